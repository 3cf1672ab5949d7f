"""What was typed before, for the arrow keys: of this run, and of earlier ones from a file that only its owner reads."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

from prompt_toolkit.history import FileHistory

from suffice.cli.infer.chat.texts import agrees, declines
from suffice.cli.notes import tell

__all__ = ["InputHistory"]

_MOST_INPUTS = 1000
_MOST_CHARACTERS = 1_000_000  # of all inputs in the file together
_OWNER_ONLY = 0o600


class InputHistory(FileHistory):
    """Inputs, newest first; yes and no are not among them. Without a file, they are gone with the program.

    A file that cannot be read or written costs one line, and this run goes on without it.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(path or os.devnull)
        self._kept = path is not None
        if path is not None:
            try:
                self._prepare(path)
            except OSError as error:
                self._give_up(error)

    def load_history_strings(self) -> Iterable[str]:
        try:
            return [*super().load_history_strings()] if self._kept else []
        except OSError as error:
            self._give_up(error)
            return []

    def append_string(self, string: str) -> None:
        if not (agrees(string) or declines(string)):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        try:
            if self._kept:
                super().store_string(string)
        except OSError as error:
            self._give_up(error)

    def _prepare(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, _OWNER_ONLY))
        path.chmod(_OWNER_ONLY)
        inputs = [*super().load_history_strings()]
        newest = inputs[:_MOST_INPUTS]
        fitting = sum(size <= _MOST_CHARACTERS for size in accumulate(map(len, newest)))
        if fitting < len(inputs):
            self._rewrite(path, newest[:fitting])

    def _rewrite(self, path: Path, newest_first: list[str]) -> None:
        self.filename = path.with_name(f"{path.name}.{os.getpid()}")
        os.close(os.open(self.filename, os.O_CREAT | os.O_TRUNC | os.O_RDWR, _OWNER_ONLY))
        for text in reversed(newest_first):
            super().store_string(text)
        Path(self.filename).replace(path)
        self.filename = path

    def _give_up(self, error: OSError) -> None:
        self._kept = False
        tell(f"notice: no history is kept: {self.filename!s} ({error.strerror or error})")

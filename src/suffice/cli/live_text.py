"""Text that is streamed to a terminal, with one line below it that changes."""

from __future__ import annotations

from typing import IO, Literal

from suffice.cli.terminal import columns_of
from suffice.cli.word_wrap import WordWrap

__all__ = ["LiveText"]

_DOWN, _UP, _ERASE_LINE, _ERASE_BELOW = "\x1b[B", "\x1b[A", "\x1b[2K", "\x1b[J"
_ROOM_BELOW = "\x1bD" + _UP  # index: one row down in the same column, which scrolls where there is no such row
_SAVE, _RESTORE = "\x1b7", "\x1b8"
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"


class LiveText:
    """Writes text to a terminal, word by word, and keeps a note on the row below it.

    Behind the last column of a row, the cursor is in a state that most terminals forget when it is moved, and then the
    next letter replaces the last one. So it is moved only while it is surely inside of a row (`WordWrap.certain`); the
    note is taken away before anything can wrap, and waits where there is doubt.

    Args:
        terminal: where the note and the width of the rows belong: a stream for which `terminal.is_live` is true.
    """

    def __init__(self, terminal: IO[str]) -> None:
        self._terminal = terminal
        self._wrap = WordWrap(columns_of(terminal))
        self._note = ""
        self._drawn: Literal["", "here", "below"] = ""

    def write(self, text: str, where: IO[str], *, faint: bool = False) -> None:
        """Write `text` to `where`, which shows on the same terminal."""
        self._follow_size()
        self._show(self._wrap.row, self._wrap.feed(text), where, faint=faint)

    def flush(self, where: IO[str], *, faint: bool = False) -> None:
        """Write the word that is being held back until it ends."""
        self._show(self._wrap.row, self._wrap.flush(), where, faint=faint)

    def note(self, text: str) -> None:
        """Show `text` as the note, in place of the one before; an empty one takes it away."""
        self._follow_size()
        if text != self._note:
            self._erase()
            self._note = text
        self._draw()

    def _show(self, row: int, placed: str, where: IO[str], *, faint: bool) -> None:
        if not placed:
            return
        if self._drawn == "here" or self._wrap.row != row or not self._wrap.certain:
            self._erase()
        _print(f"\x1b[2m{placed}\x1b[0m" if faint else placed, where)
        self._draw()

    def _draw(self) -> None:
        """Where nothing is on the row yet, the note stands there; else on the next one."""
        if self._drawn or not self._note or not self._wrap.certain or len(self._note) >= self._wrap.columns:
            return
        shown = f"{_WRAP_OFF}\r\x1b[2m{self._note}\x1b[0m{_WRAP_ON}"
        self._drawn = "below" if self._wrap.column else "here"
        _print(f"{_ROOM_BELOW}{_SAVE}{_DOWN}{shown}{_RESTORE}" if self._wrap.column else f"{shown}\r", self._terminal)

    def _erase(self) -> None:
        if self._drawn:
            _print(f"{_DOWN}{_ERASE_LINE}{_UP}" if self._drawn == "below" else _ERASE_LINE, self._terminal)
            self._drawn = ""

    def _follow_size(self) -> None:
        """After a change of the window's size, nobody knows how it has moved the rows: begin another one."""
        columns = columns_of(self._terminal)
        if columns == self._wrap.columns:
            return
        _print(("\n" if self._wrap.column else "\r") + (_ERASE_BELOW if self._drawn else ""), self._terminal)
        self._drawn = ""
        self._wrap = self._wrap.resized(columns)


def _print(text: str, where: IO[str]) -> None:
    print(text, end="", file=where, flush=True)

"""A terminal to look at: what `pyte` shows of the bytes that a program wrote."""

from __future__ import annotations

import io
import re

import pyte

__all__ = ["Emulator", "TerminalStream"]


_RUN = re.compile("[^\u200b-\u200d\ufe00-\ufe0f\u20e3]+")
"""`pyte` cannot show the other characters, and drops with them what comes behind them in one run."""


class _Rows(pyte.Screen):
    """Remembers the rows that leave it at the top (`pyte.HistoryScreen` does, at five times the price)."""

    def __init__(self, columns: int, lines: int) -> None:
        self.gone: list[str] = []
        super().__init__(columns, lines)

    def index(self) -> None:
        if self.cursor.y == self.lines - 1:
            self.gone.append("".join(self.buffer[0][column].data for column in range(self.columns)))
        super().index()


class Emulator:
    """A terminal of `columns` columns and a few rows."""

    def __init__(self, columns: int, lines: int = 12) -> None:
        self.screen = _Rows(columns, lines)
        self._stream = pyte.Stream(self.screen)

    def feed(self, text: str) -> None:
        """What a program writes; the line discipline makes a carriage return and a line feed of a line feed."""
        for run in _RUN.findall(text.replace("\r\n", "\n").replace("\n", "\r\n")):
            self._stream.feed(run)

    def rows(self) -> list[str]:
        """All rows so far, without the spaces at their ends."""
        return [row.rstrip() for row in (*self.screen.gone, *self.screen.display)]

    @property
    def row(self) -> int:
        """Of the cursor, among `rows`."""
        return len(self.screen.gone) + self.screen.cursor.y

    def text(self) -> str:
        """Everything that can be seen, without white space."""
        return "".join("".join(self.rows()).split())


class TerminalStream(io.StringIO):
    """A text stream that ends on an emulator, as standard output and standard error of a program both do."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.emulator = emulator

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.emulator.feed(text)
        return super().write(text)

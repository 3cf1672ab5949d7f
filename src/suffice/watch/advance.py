"""How far an answer that advances has come: rows that differ in their digits only, and numbers counted.

Knows nothing about tokens and prompts.
"""

from __future__ import annotations

import re
from collections import deque

__all__ = ["LONGEST_ROW", "Advance"]

_DIGITS = re.compile(r"\d+")
_NUMBERS_ALONE = re.compile(r"[-−\d\s,;.、，]*")
_NUMBER = re.compile(r"[-−]?\d{1,9}(?!\d)")
_UNFINISHED = re.compile(r"[-−]?\d{0,9}\Z")
LONGEST_ROW = 8  # lines


class Advance:
    """Reads an answer by lines, for rows, and by parts that may end anywhere, for numbers."""

    def __init__(self) -> None:
        self.counted = 0
        """Numbers in a row with nothing but signs between them, each as much more, or less, as the one before."""
        self.alike = 0
        """Lines in a row that look like those one row before; no fewer than `rows`, less one."""
        self._shapes = deque([""] * LONGEST_ROW, LONGEST_ROW)  # of lines, the newest first
        self._alike = [0] * LONGEST_ROW  # lines in a row that have the shape of the one so many before
        self._unfinished = ""
        self._last: int | None = None
        self._step = 0

    @property
    def between(self) -> bool:
        """Whether a number that was counted is complete, and the next one has not begun."""
        return self.counted > 0 and not self._unfinished

    @property
    def lines(self) -> int:
        """The same, those of the first row included."""
        return max(alike + back for back, alike in enumerate(self._alike, 1))

    @property
    def rows(self) -> int:
        """Rows in a row, of one to eight lines each, that differ in their digits only."""
        return max(1 + alike // back for back, alike in enumerate(self._alike, 1))

    def read(self, line: str) -> None:
        """Add a whole line."""
        shape = _DIGITS.sub("0", line).strip()
        if not shape:
            return
        self._alike = [
            alike + 1 if shape == earlier else 0 for alike, earlier in zip(self._alike, self._shapes, strict=True)
        ]
        self.alike = max(self._alike)
        self._shapes.appendleft(shape)

    def count(self, text: str) -> None:
        """Add a part of the answer."""
        text = self._unfinished + text
        if not _NUMBERS_ALONE.fullmatch(text):
            self._unfinished, self._last, self._step, self.counted = "", None, 0, 0
            return
        end = _UNFINISHED.search(text)
        self._unfinished = end.group() if end else ""
        for number in _NUMBER.findall(text, 0, len(text) - len(self._unfinished)):
            self._next(int(number.replace("−", "-")))

    def _next(self, number: int) -> None:
        step = number - self._last if self._last is not None else 0
        self.counted = self.counted + 1 if step and step == self._step else 1 + bool(step)
        self._last, self._step = number, step

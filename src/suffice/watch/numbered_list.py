"""A numbered list that is stuck: the same sentences under one number after another, where they differed before.

What counts is a list of prose, numbered one by one at the beginnings of lines ("44.", "**Milestone 44:**", "第44步"),
whose first items were different and whose last ones are the same but for their number. Rows of data, templates that
are filled in from the first item on, and countdowns are not stuck: they advance. So are lists that may come to an end
at a round number soon.

Knows nothing about tokens and prompts.
"""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple
from zlib import crc32

__all__ = ["NumberedList"]

_NUMBER = re.compile(r"\W*(?:[^\W\d_]+\W{0,3}){0,2}?(?:\d+\.)*(\d{1,4})(?!\w)")
_WORD = re.compile(r"[^\W\d_\u2e80-\uffff]{2,}|[\u2e80-\u9fff\uac00-\ud7af]")
_MOST_LINES = 40  # in one item
_LONGEST_TURN = 4  # items

# Why these: docs/runaways.md.
_PROSE = 8  # different words in the longest item of a turn
_ENDS = ((20, 12), (100, 8))  # numbers at which lists end, and words in the items of those that then do not
_DIFFERENT_ITEMS = 1  # before the list got stuck
_REPEATS, _TURNS = 5, 2  # items, and turns, that were there before


class _Item(NamedTuple):
    key: int
    """Equal for equal items."""
    words: int
    different: int
    """Words that differ from each other."""


class NumberedList:
    """Reads an answer line by line."""

    def __init__(self) -> None:
        self.number = 0
        """That of the item being read; 0 where there is none."""
        self.last_item = (0, 0)
        """Where the item before begins and ends."""
        self.items = 0
        """Items of the list so far, the one being read included."""
        self._begin = 0
        self._texts: list[str] = []  # the lines of the item being read
        self._items: deque[_Item] = deque(maxlen=_LONGEST_TURN)  # the newest first
        self._different: set[int] = set()
        self._repeats = [0] * (_LONGEST_TURN + 1)  # items in a row that equal the one so many before

    def read(self, line: str, end: int) -> bool:
        """Add a whole line, with which the answer has come to `end`; whether that shows that the list is stuck."""
        match = _NUMBER.match(line)
        number = int(match[1]) if match else 0
        stuck = False
        if match and self.number and number == self.number + 1:
            stuck = self._close(end)
            self.number = number
            self.items += 1
        elif match and (number == 1 or not self.number):
            self._clear(number, end)
        if self.number:
            self._texts.append(line[match.end() :] if match and number == self.number else line)
            if len(self._texts) > _MOST_LINES:
                self._clear(0, end)
        return stuck

    def _close(self, end: int) -> bool:
        """The item is complete: does it say what the one before said, or the one two or more before?"""
        text = "\n".join(self._texts)
        words = _WORD.findall(text)
        key = crc32(" ".join(re.findall(r"\w+", text)).encode("utf-8", "surrogatepass"))
        for back, earlier in enumerate(self._items, 1):
            self._repeats[back] = self._repeats[back] + 1 if earlier.key == key else 0
        self._items.appendleft(_Item(key, len(words), len(set(words))))
        if len(self._different) <= _LONGEST_TURN:  # more need not be known
            self._different.add(key)
        self._texts.clear()
        self.last_item, self._begin = (self._begin, end), end
        return any(self._stuck(back) for back in range(1, _LONGEST_TURN + 1))

    def _stuck(self, back: int) -> bool:
        """Whether turns of `back` items come again and again, and the list is past the numbers where it might end."""
        if self._repeats[back] < max(_REPEATS, _TURNS * back) or len(self._different) < _DIFFERENT_ITEMS + back:
            return False
        turn = list(self._items)[:back]
        words = sum(item.words for item in turn)
        past = any(self.number >= number and words >= fewest * back for number, fewest in _ENDS)
        return past and max(item.different for item in turn) >= _PROSE

    def _clear(self, number: int, begin: int) -> None:
        """Another list begins, or none."""
        self.number, self.items, self._begin = number, 1 if number else 0, begin
        self._texts.clear()
        self._items.clear()
        self._different.clear()
        self._repeats = [0] * (_LONGEST_TURN + 1)

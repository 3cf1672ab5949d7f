"""Words on the rows of a terminal: text that is streamed wraps at spaces, and copies without line breaks."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rich.cells import get_character_cell_size

from suffice.cli.terminal import visible

__all__ = ["WordWrap", "wrapped"]

_TAB = 8  # columns between two tab stops of a terminal
_IDEOGRAPHS = "\u2e80-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd"
_UNIT = re.compile(
    "\n|\t| +"
    "|(?P<marks>[\u0300-\u036f\u200b-\u200d\u20d0-\u20ff\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef]+)"
    f"|(?P<sign>[{_IDEOGRAPHS}])|(?P<word>[^ \t\n{_IDEOGRAPHS}]+)"
)
"""What stays together: a word. A Chinese character is one by itself; marks belong to what is before them."""


class WordWrap:
    """Places text on rows of `columns` columns, and knows where the cursor is then.

    A word that does not fit into what is left of a row begins the next one. The rest of the row is filled with spaces,
    and it is the terminal that wraps: such rows are one line where text is copied from the terminal. The last word is
    held back until it ends, so that it never has to be moved.

    Terminals disagree about the width of some characters (emoji, joined or not; marks; in Chinese text also “”—…). The
    text is complete whatever the terminal thinks, because nothing moves the cursor but the text itself. `certain` says
    whether all terminals agree that the cursor is inside of this row, so that it can be moved away and back.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.column = 0
        """The cursor's, from 0. `columns` itself: the row is full, and the next character begins another one."""
        self.row = 0
        """Rows that were ended so far."""
        self._held = ""
        self._inside = False  # of a word that is longer than a row
        self._doubt = 0  # columns that the cursor may be away from `column`, to either side
        self._quotes = 0  # the same, if this is Chinese text
        self._ideographic = False

    @property
    def certain(self) -> bool:
        """Whether the cursor is inside of this row for sure, and not behind its last column."""
        doubt = self._doubt + (self._quotes if self._ideographic else 0)
        return doubt < self.column < self.columns - doubt if doubt else self.column < self.columns

    def feed(self, text: str) -> str:
        """What to write to the terminal now: `text`, placed and made visible, but for a word that may go on."""
        found = list(_UNIT.finditer((self._held + text).replace("\r\n", "\n")))
        self._held = ""
        if found and found[-1]["word"] and not self._inside and self._width(found[-1].group()) < self.columns:
            self._held = found.pop().group()
        return "".join(map(self._place, found))

    def flush(self) -> str:
        """The word that was held back: it has ended."""
        text, self._held = self._held, ""
        return "".join(map(self._place, _UNIT.finditer(text)))

    def resized(self, columns: int) -> WordWrap:
        """The same text on rows of another width, from the beginning of a row."""
        other = WordWrap(columns)
        other._held = self._held
        return other

    def _width(self, word: str) -> int:
        return sum(_cells(character)[0] for character in visible(word))

    def _place(self, unit: re.Match[str]) -> str:
        text = unit.group()
        if text == "\n":
            self._end_line()
            return text
        if text == "\t":
            return self._tab()
        before = ""
        if not (unit["word"] or unit["marks"]):
            self._inside = False
        elif unit["word"] and not self._inside:
            width = self._width(text)
            self._inside = width >= self.columns
            if not self._inside and self.column < self.columns <= self.column + width:
                before = " " * (self.columns - self.column)
        return self._advance(before + visible(text))

    def _end_line(self) -> None:
        self.column, self.row = 0, self.row + 1
        self._doubt = self._quotes = 0
        self._inside = self._ideographic = False

    def _tab(self) -> str:
        self._inside = False
        width = _TAB - (self.column % self.columns) % _TAB
        if self._doubt or self.column + width >= self.columns:
            return self._advance(" " * width)  # a tab at the margin would stay on the last column, or lose a letter
        self.column += width
        return "\t"

    def _advance(self, text: str) -> str:
        for character in text:
            cells, doubt, quote = _cells(character)
            self._doubt += doubt
            self._quotes += quote
            self._ideographic = self._ideographic or (cells == 2 and not doubt)
            if self.column + cells > self.columns:
                if cells == 2 and (self.column < self.columns or self._doubt):
                    self._doubt += 2  # some terminals put half of a wide character into the last column
                self.column, self.row = 0, self.row + 1
            self.column += cells
        return text


@lru_cache(4096)
def _cells(character: str) -> tuple[int, int, int]:
    """The columns that a character takes, by how many a terminal may differ, and by how many only in Chinese text."""
    if " " <= character <= "~":
        return 1, 0, 0
    cells, kind = get_character_cell_size(character), unicodedata.category(character)[0]
    if kind in "MC" or (kind == "S" and cells == 2):  # marks, joiners, characters of tomorrow, emoji
        return cells, 2, 0
    ambiguous = unicodedata.east_asian_width(character) == "A"
    return (
        cells,
        0,
        int(ambiguous and kind != "L"),
    )  # Greek, Cyrillic and accented letters are narrow where they are read


def wrapped(text: str, columns: int) -> str:
    """`text` on rows of `columns` columns, as a whole."""
    rows = WordWrap(columns)
    return rows.feed(text) + rows.flush()

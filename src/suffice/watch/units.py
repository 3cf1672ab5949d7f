"""The units in which repetition is measured: words, signs, blanks and numbers, from token ids or from text.

Knows nothing about repetition. Numbers are kept apart, so that "Step 41 … Step 42" can be seen as the same words with a
counter, and so are blanks, because forty empty lines are a loop by themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, MutableMapping
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary
from zlib import crc32

__all__ = ["Kind", "TextUnits", "TokenUnits", "Unit"]

_CHINESE_NUMERALS = frozenset("零〇一二三四五六七八九十百千万亿两壹贰叁肆伍陆柒捌玖拾佰仟")
_LONGEST_NUMBER = 18  # digits that still fit the 64-bit integers in which values are kept


class Kind(IntEnum):
    """What a unit is made of."""

    WORD = 0  # letters, signs, and bytes that are not a character yet
    NUMBER = 1  # digits or Chinese numerals alone, blanks around them allowed
    BLANK = 2  # white space alone


class Unit(NamedTuple):
    """One token or one piece of text."""

    symbol: int
    """Equal for equal units, never negative."""
    kind: Kind
    text: str
    """What it reads; '' where that is not known."""


def classify(text: str, symbol: int) -> Unit:
    """The unit that `text` is."""
    bare = text.strip()
    if not bare:
        return Unit(symbol, Kind.BLANK if text else Kind.WORD, text)
    if len(bare) <= _LONGEST_NUMBER and (bare.isdecimal() or _CHINESE_NUMERALS.issuperset(bare)):
        return Unit(symbol, Kind.NUMBER, bare)
    return Unit(symbol, Kind.WORD, text)


def number_value(text: str) -> int:
    """An integer for the numerals in `text`: its value for digits, some number that differs for Chinese numerals."""
    if text.isdecimal():
        return int(text)
    value = 0
    for numeral in text:
        value = value * 11 + int(unicodedata.numeric(numeral, 2)) % 11  # 两 has no value there
    return value


# Reading a token is the dearest step, and every answer of one model reads the same ones: they are kept per tokenizer.
_known: MutableMapping[Callable[[int], str], dict[int, Unit]] = WeakKeyDictionary()


class TokenUnits:
    """Units of token ids; with `decode`, each id is read once per process and `decode` function.

    Args:
        decode: the text of one token id; without it every token counts as a word.
    """

    def __init__(self, decode: Callable[[int], str] | None) -> None:
        self._decode = decode
        self._units: dict[int, Unit] = {}
        if decode is not None:
            try:
                self._units = _known.setdefault(decode, {})
            except TypeError:  # no weak reference to it possible: it is read once per answer then
                self._units = {}

    def __call__(self, token_id: int) -> Unit:
        """The unit that `token_id` is."""
        unit = self._units.get(token_id)
        if unit is None:
            unit = Unit(token_id, Kind.WORD, "") if self._decode is None else classify(self._decode(token_id), token_id)
            self._units[token_id] = unit
        return unit


# Chinese characters, kana and hangul one by one, Latin words up to 16 letters, other scripts in parts of 3 (about a
# token), digits, white space, and rows of one sign, such as the rules of tables. Every alternative has a longest match,
# so little is held back.
_UNITS = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]|[A-Za-z\u00c0-\u024f]{1,16}|\d{1,16}|\s{1,32}"
    r"|[^\W\d_A-Za-z\u00c0-\u024f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]{1,3}|(?P<sign>.)(?P=sign){0,15}"
)


@lru_cache(maxsize=1 << 16)
def _text_unit(text: str) -> Unit:
    return classify(text, crc32(text.encode("utf-8", "surrogatepass")))


class TextUnits:
    """Units of streamed text; where the pieces are cut makes no difference.

    Neither one space between words nor U+FFFD (bytes that never became a character) is a unit of its own.
    """

    def __init__(self) -> None:
        self._held = ""
        self._start = 0  # of the text held back, in characters

    def push(self, piece: str) -> list[tuple[int, Unit]]:
        """The units that `piece` completes, each with the position of its first character in the whole text."""
        text = self._held + piece
        start = self._start
        found = []
        last = 0
        for match in _UNITS.finditer(text):
            last = match.start()
            found.append((last, match.group()))
        if found:
            found.pop()  # the next piece may continue it
        self._held, self._start = text[last:], start + last
        return [(start + at, _text_unit(part)) for at, part in found if part != " " and part != "\ufffd"]

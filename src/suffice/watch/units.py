"""What repetition is measured in: words, signs, digits and blanks, from token ids or from text.

Knows nothing about repetition. White space and the light punctuation between words are told apart from the rest, so
that a sentence is the same sentence whether a blank, a comma or a line break comes before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from typing import NamedTuple
from weakref import WeakKeyDictionary
from zlib import crc32

__all__ = ["CHARACTERS", "FILLER", "LINE_END", "WORD", "TextUnits", "TokenUnits", "Unit"]

# What a unit is made of is in the lowest bits of its symbol; 0 are digits, operators, brackets, single letters, and the
# blanks that indent.
WORD = 1  # two letters, or one of a script that needs no more; bytes that are not a character yet
FILLER = 2  # what stands between words: light punctuation, single blanks, line ends
LINE_END = 4  # white space with a line end in it
_KINDS = 7

_LIGHT = " \t\r\n\v\f\u00a0\u3000.,;:!?'\"`“”‘’…，。；：！？、·"
_BROKEN = "\ufffd"  # what bytes that are not a character yet decode to
_FIRST_WIDE = "\u2e80"  # where the scripts begin whose single characters are words


class Unit(NamedTuple):
    """One token or one piece of text."""

    symbol: int
    """Equal where the text is, blanks and light punctuation at its ends aside; never negative."""
    exact: int
    """Equal only where the whole text is."""
    text: str
    """What it reads; '' where that is not known."""


def read_unit(text: str) -> Unit:
    """The unit that `text` is."""
    bare = text.strip(_LIGHT)
    exact = crc32(text.encode("utf-8", "surrogatepass"))
    if not bare:
        ends = text.isspace() and "\n" in text
        indents = text.isspace() and not ends and (len(text) > 1 or text == "\t")
        return Unit(exact & ~_KINDS | ends * LINE_END | (not indents) * FILLER, exact, text)
    letters = [character for character in bare if character.isalpha()]
    word = len(letters) > 1 or bare[0] == _BROKEN or any(letter >= _FIRST_WIDE for letter in letters)
    return Unit(crc32(bare.encode("utf-8", "surrogatepass")) & ~_KINDS | word, exact, text)


# Reading a token is the dearest step, and every answer of one model reads the same ones: they are kept per tokenizer.
_known: MutableMapping[Callable[[int], str], dict[int, Unit]] = WeakKeyDictionary()


class TokenUnits(dict[int, Unit]):
    """Units by token id; with `decode`, each id is read once per process and `decode` function.

    Args:
        decode: the text of one token id; without it every token counts as a word.
    """

    def __init__(self, decode: Callable[[int], str] | None) -> None:
        self._decode = decode

    @staticmethod
    def of(decode: Callable[[int], str] | None) -> TokenUnits:
        """The units that all answers with this `decode` share."""
        try:
            return _known.setdefault(decode, TokenUnits(decode))  # type: ignore[arg-type, return-value]
        except TypeError:  # no weak reference to it possible: each token is read once per answer then
            return TokenUnits(decode)

    def __missing__(self, token_id: int) -> Unit:
        text = "" if self._decode is None else self._decode(token_id)
        symbol = read_unit(text).symbol if text and _BROKEN not in text else (token_id << 3 | WORD) & 0xFFFFFFFF
        unit = self[token_id] = Unit(symbol, token_id & 0xFFFFFFFF, text)
        return unit


# About a token each, because bars count units. Every alternative has a longest match, so little is held back.
_LATIN = r"A-Za-z\u00c0-\u024f\u1e00-\u1eff"
_WIDE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"
_UNITS = re.compile(
    rf"[{_LATIN}]{{1,16}}(?![{_LATIN}])|[{_LATIN}]{{1,2}}"  # words, and rows of letters that are none
    rf"|[{_WIDE}]{{1,2}}|(?P<part>[^\W\d_{_LATIN}{_WIDE}]{{1,3}})"
    r"|\d|\ufffd|\n{1,2}|[^\S\n]{1,8}|(?P<sign>.)(?P=sign){1,3}|[^\w\s\ufffd]{1,2}|."
)

CHARACTERS = 4.35
"""A token has as many characters as a rule in English, and fewer in every other language (1 / 0.23: token_ratios)."""


@lru_cache(maxsize=1 << 16)
def _text_unit(text: str) -> Unit:
    """The unit that a piece of text is; where words are cut into threes, none of them is a word."""
    unit = read_unit(text)
    match = _UNITS.match(text)
    return unit._replace(symbol=unit.symbol & ~WORD) if match and match["part"] else unit


class TextUnits:
    """Units of streamed text; where the pieces are cut makes no difference. One space is not a unit of its own."""

    def __init__(self) -> None:
        self._held = ""
        self._start = 0  # of the text held back, in characters

    def push(self, piece: str) -> list[tuple[int, Unit]]:
        """The units that `piece` completes, each with the position of its first character in the whole text."""
        held, start = self._held, self._start
        word = piece[1:]
        if piece[:1] == " " and len(word) <= 16 and word.isascii() and word.isalpha() and held and not held.isspace():
            self._held, self._start = word, start + len(held) + 1  # most pieces are so
            return [(start, _text_unit(held))]
        text = held + piece
        found = []
        last = 0
        for match in _UNITS.finditer(text):
            last = match.start()
            found.append((last, match.group()))
        if found:
            found.pop()  # the next piece may go on with it
        self._held, self._start = text[last:], start + last
        return [(start + at, _text_unit(part)) for at, part in found if part != " "]

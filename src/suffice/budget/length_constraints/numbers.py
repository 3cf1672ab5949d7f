"""Numbers as people write them: 800, 1,500, 2k, twenty-five, two hundred, 三, 两百, 一千五, 1.5万."""

from __future__ import annotations

from suffice.numerals import chinese_number

__all__ = ["CHINESE_NUMBER", "ENGLISH_NUMBER", "NUMBER_WORDS", "parse_number"]

_SMALL = {"zero": 0, "a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_SMALL |= {"seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14}
_SMALL |= {"fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"hundred": 100, "thousand": 1000}
_SUFFIXES = {"十": 10, "百": 100, "千": 1000, "k": 1000, "万": 10_000, "w": 10_000}  # after digits: 2k, 1.5万

_DIGITS = r"\d{1,3}(?:[,，]\d{3})+|\d{1,7}(?:\.\d{1,2})?"
NUMBER_WORDS = frozenset([*_SMALL, *_TENS, *_SCALES]) - {"a", "an", "zero"}
"""The words of English numbers, but for articles."""
_WORD = "|".join([*_TENS, *sorted(set(_SMALL) - {"a", "an", "zero"}, key=len, reverse=True)])
ENGLISH_NUMBER = (
    rf"(?:(?:{_DIGITS})k?|(?:{_WORD}|a(?=[ -](?:hundred|thousand)))(?:[ -](?:{_WORD}|hundred|thousand)){{0,3}})"
)
"""Regular expression (no groups) for one number in English text."""
CHINESE_NUMBER = rf"(?:(?:{_DIGITS})[百千万kKwW]?|[一二两俩三仨四五六七八九十百千万零〇]{{1,8}})"
"""Regular expression (no groups) for one number in Chinese text."""


def parse_number(text: str) -> float | None:
    """The value of `text`, or None where it is not a number that the patterns of this module match."""
    text = text.strip().lower().replace(",", "").replace("，", "")
    scale = 1
    while text and text[0].isdigit() and text[-1] in _SUFFIXES:
        scale *= _SUFFIXES[text[-1]]
        text = text[:-1]
    try:
        return float(text) * scale
    except ValueError:
        chinese = chinese_number(text, elided=True) if text else None
        return _english(text) if chinese is None else float(chinese)


def _english(text: str) -> float | None:
    total = current = 0
    for word in text.replace("-", " ").split():
        if word in _SCALES:
            current = max(current, 1) * _SCALES[word]
            if word == "thousand":
                total, current = total + current, 0
        elif word in _SMALL or word in _TENS:
            current += _SMALL.get(word, 0) + _TENS.get(word, 0)
        else:
            return None
    return float(total + current)

"""Numbers as people write them: Chinese numerals, and numbers of tokens such as 32k."""

from __future__ import annotations

import re

__all__ = ["COUNT_EXAMPLES", "chinese_number", "token_count"]

_DIGITS = {numeral: value for value, numeral in enumerate("零一二三四五六七八九")}
_DIGITS |= {"〇": 0, "两": 2, "俩": 2, "仨": 3}
_SCALES = {"十": 10, "百": 100, "千": 1000}
_MYRIAD = 10_000
_TOKENS = re.compile(
    r"([0-9]{1,15}|[0-9]{1,3}(?:[,_][0-9]{3}){1,4})(\.[0-9]{1,6}(?=\s*[km]))?\s*([km]?)", re.IGNORECASE
)
_MULTIPLES = {"": 1, "k": 1024, "m": 1024 * 1024}
COUNT_EXAMPLES = "2048, 32k (= 32,768) or 1M (= 1,048,576)"
"""Examples of what `token_count` reads, for help texts and messages."""


def chinese_number(numerals: str, *, elided: bool = False) -> int | None:
    """The value of Chinese numerals below 10^8, such as 三百二十 or 一万; None where there are other characters.

    Args:
        numerals: the text.
        elided: read numerals as people speak: 一千五 is 1500, since a last digit right after 百 or more counts one
            scale below; and a 万 with nothing before it is nothing, not 10,000.
    """
    total = section = digit = 0
    scale = 1  # of the last numeral, if that was one
    for numeral in numerals:
        if numeral in _DIGITS:
            digit = _DIGITS[numeral]
            scale = scale if digit else 1
        elif numeral == "万":
            myriads = total + section + digit or (0 if elided else 1)
            total, section, digit, scale = myriads * _MYRIAD, 0, 0, _MYRIAD
        elif numeral in _SCALES:
            scale = _SCALES[numeral]
            section, digit = section + (digit or 1) * scale, 0
        else:
            return None
    return total + section + digit * (scale // 10 if elided and scale >= 100 else 1)


def token_count(text: str) -> int | None:
    """A number of tokens: `2048`, `4_096`, `1,024`, `32k`, `1.5K`, `1M`; None for anything else.

    k is 1,024 and M is 1,024 x 1,024, since contexts and limits of tokens are powers of two: a model with a context of
    32k takes 32,768 tokens. A fraction of a token is cut off.
    """
    match = _TOKENS.fullmatch(text.strip())
    if match is None:
        return None
    whole, fraction, unit = match.groups(default="")
    number = re.sub("[,_]", "", whole)
    return (
        int(float(number + fraction) * _MULTIPLES[unit.lower()]) if fraction else int(number) * _MULTIPLES[unit.lower()]
    )

"""Chinese numerals. Knows nothing about what is counted."""

from __future__ import annotations

__all__ = ["chinese_number"]

_DIGITS = {numeral: value for value, numeral in enumerate("零一二三四五六七八九")}
_DIGITS |= {"〇": 0, "两": 2, "俩": 2, "仨": 3}
_SCALES = {"十": 10, "百": 100, "千": 1000}
_MYRIAD = 10_000


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

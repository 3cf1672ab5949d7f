"""Reads how much repetition a prompt asks for, and where a counting list may end.

Evaluated only when a loop is about to be reported.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from suffice.numerals import chinese_number
from suffice.prompt import Prompt
from suffice.watch.repetition_score import RepetitionScore
from suffice.watch.units import TextUnits

__all__ = ["WantedRepetition", "ends_wanted", "prompt_text", "turns_wanted", "wanted"]

_LONGEST = 20_000  # characters read, from the end
_MARGIN = 1.25  # models miscount
_ENDLESS = 100  # turns that are allowed where the prompt wants repetition without saying how much
_NAMED = {"twice": 2, "thrice": 3, "ten": 10, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
_NAMED |= {"seventy": 70, "eighty": 80, "ninety": 90, "a hundred": 100, "one hundred": 100, "a thousand": 1000}
_NAMED |= {"one thousand": 1000}
_ENDS = {0, 10, 20, 100}  # where lists and countdowns end if the prompt does not say where: docs/runaways.md
_CHINESE = "[零〇一二两三四五六七八九十百千万]+"

_VERBS = (
    r"(?:repeat|repetition|writ|say|print|typ|copy|copies|output|sing|chant|recit|r[ée]p[éeè]t|escrib|[ée]cri[vst]|répèt"
    r"|重复|反复|写|说|抄|输出|打印|念|复制|默写|繰り返|書)"
)
# "write … 100 times", not "… should appear at least 40 times", which asks for a word and not for more of the same.
_TIMES = re.compile(
    rf"{_VERBS}[^.!?。！？\n]{{0,120}}?"
    rf"(?:\b(?P<named>{'|'.join(_NAMED)})(?:\s+(?:times|lines|copies|repetitions))?\b"
    r"|\b(?P<number>\d[\d,]*)\s*(?:x\b|times|lines|copies|repetitions|fois|veces|vezes|mal\b)"
    rf"|(?P<chinese>\d+|{_CHINESE})\s*(?:遍|次|行|回|份|个))",
    re.IGNORECASE,
)
_NUMBERS = re.compile(
    rf"\b(?P<named>{'|'.join(_NAMED)})\b|(?<![\d.,])(?P<number>\d{{1,4}})(?![\d.,]*\d)|(?P<chinese>{_CHINESE})",
    re.IGNORECASE,
)
_WITHOUT_END = re.compile(
    r"over and over|again and again|keep (?:repeating|saying|writing|printing)|\bforever\b|\bendlessly\b"
    r"|不断(?:地)?重复|一直重复|反复(?:地)?(?:写|说|输出|重复)|无限(?:地)?重复|不停(?:地)?(?:重复|写|说|输出)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class WantedRepetition:
    """What a prompt says about repetition."""

    turns: int
    """How often something may be said again."""
    ends: tuple[int, ...]
    """Numbers at which a list that counts may come to its end, rising."""

    def end_ahead(self, value: int, step: int) -> int | None:
        """The first of `ends` that a list comes to which counts from `value` by `step`, `value` itself included."""
        at = bisect_left(self.ends, value) if step > 0 else bisect_right(self.ends, value) - 1
        return self.ends[at] if 0 <= at < len(self.ends) else None


def wanted(prompt: object) -> WantedRepetition:
    """What `prompt`, a string or chat messages, says about repetition."""
    text = prompt_text(prompt)
    return WantedRepetition(turns_wanted(text), ends_wanted(text))


def prompt_text(prompt: object) -> str:
    """The text of a prompt, a string or chat messages; anything else has none."""
    return Prompt.of(prompt).text if isinstance(prompt, Prompt | str | Sequence) else ""


def turns_wanted(prompt: str) -> int:
    """How many turns of a repetition the prompt asks for, or shows in itself, with a margin; 0 where it does neither.

    A number of times counts ("100 times", 「重复一百遍」), repetition without end counts as 100 turns, and a prompt
    that is itself repetitive (a table to translate, a list to convert) counts as often as its own parts return.
    """
    text = prompt[-_LONGEST:]
    said = [_number(match) for match in _TIMES.finditer(text)]
    endless = _ENDLESS if _WITHOUT_END.search(text) else 0
    return int(max([0, endless, _shown(text), *said]) * _MARGIN)


def ends_wanted(prompt: str) -> tuple[int, ...]:
    """Where a list may end, rising: at any number below 10,000 that the prompt names, and at round ones."""
    return tuple(sorted(_ENDS.union(_number(match) for match in _NUMBERS.finditer(prompt[-_LONGEST:]))))


def _number(match: re.Match[str]) -> int:
    if named := match.group("named"):
        return _NAMED[named.lower()]
    digits = (match.group("number") or match.group("chinese")).replace(",", "")
    return int(digits[:9]) if digits.isdecimal() else chinese_number(digits) or 0


def _shown(text: str) -> int:
    """How often a part of the prompt returns while the prompt is repetitive."""
    units, score, turns = TextUnits(), RepetitionScore(), 0
    for start, unit in units.push(text + "\n"):
        score.take(unit, start)
        if score.turns > turns and score.suspicion > 0.3:
            turns = score.turns
    return turns

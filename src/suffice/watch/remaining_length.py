"""Estimates how much of a running answer is still to come.

The prediction gives a distribution of lengths, of which the part above the present length remains. The text itself says
more: the place in a list whose length was announced, a formula that closes answers, a code block or a block of thinking
that is still open.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

__all__ = ["Basis", "RemainingLength"]

Basis = Literal["length", "list", "closing", "code", "thinking"]
"""What an estimate rests on: the length so far, the place in a list, a closing formula, an open block."""

_NORMAL = NormalDist()
_LEAST_SPREAD = 0.3  # of log length, where the quantiles say less: two runs of one prompt differ by about this
_MOST_P = 0.9999
_BEYOND = 0.15  # share of its length by which an answer beyond every expectation continues: the median of real ones

# Chosen on half of some 6,000 real answers by their mean absolute error and checked on the other: docs/evidence.md.
_SIGN_OFF_TOKENS = 40  # a closing sentence; in letters and templates more comes after it
_SUMMARY_TOKENS = 60  # a closing paragraph, of which the formula is the beginning
_AFTER_LIST_TOKENS = 25  # most lists have a sentence behind them
_MOST_BY_LIST = 2.0  # times what the length says: beyond that, the number that was announced is of something else
_FENCE_TOKENS = 12  # a code block has at least its last line and its end before it
_KEPT = 160  # characters looked at for formulae
_LONGEST_MARK = 24  # characters in which the number of an item must have come

_SIGN_OFF = re.compile(
    r"\b(?:hope (?:this|that) helps|let me know if|feel free to (?:ask|reach))"
    r"|\bif you have any (?:other |more )?questions"
    r"|希望[^。！\n]{0,16}(?:帮助|帮到|有用)|如果你?您?(?:还)?有(?:任何|其他|更多)|祝(?:你|您)",
    re.I,
)
_SUMMARY = re.compile(
    r"(?:^|\n)[#*\s]*(?:in (?:conclusion|summary|short)|to (?:sum up|summari[sz]e)|overall,)"
    r"|总之|综上|总的来说|总结一下",
    re.I,
)
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: n for n, word in enumerate(_WORDS, 1)}
_NUMBERS |= {word: n for n, word in enumerate("一二三四五六七八九十", 1)} | {"两": 2}
_NUMBER = r"(\d{1,3}|[一二两三四五六七八九十]|\b(?:one|two|three|four|five|six|seven|eight|nine|ten)\b)"
_TOTAL = re.compile(
    rf"{_NUMBER}(?:\s+[a-z-]+){{0,2}}\s+(?:points?|reasons?|items?|steps?|ways?|tips?|things?|facts?|examples?|ideas?"
    rf"|benefits?|advantages?|fruits?|animals?|words?\b(?=\s*:)|parts?|sections?|paragraphs?|questions?|options?)\b"
    rf"|{_NUMBER}\s*(?:点|条|个|种|项|步|方面|部分|段|类|道|件)",
    re.I,
)
_ITEM = re.compile(
    rf"^[\s#*>]*(?:(?:step|point|part|reason|day|section)\s+)?(?:第\s*)?{_NUMBER}"
    r"(?:\s*(?:/|of)\s*(\d{1,3}))?(?:[.)、．：:]|点|条|步|项|部分|段|章|节|\s*[,，])",
    re.I,
)


class RemainingLength:
    """Follows one answer. Work per piece is constant but for the piece itself.

    Args:
        quantiles: (p, tokens) of the predicted length, ascending; empty where nothing is predicted.
        cap: the most tokens the answer may have.
        prompt: what was asked; it may say how many points the answer should have.
    """

    def __init__(self, quantiles: Sequence[tuple[float, int]], cap: int, prompt: str = "") -> None:
        self._cap = cap
        self._points = _in_normal_scores(quantiles)
        self._total = _total(prompt)
        self._items: list[int] = []  # tokens at the beginning of each item
        self._tokens = 0
        self._line = ""
        self._tail = ""
        self._fence = self._thinking = False

    def push(self, text: str, tokens: int, *, thinking: bool = False) -> None:
        """Take a piece.

        Args:
            text: of the answer; '' while the model thinks.
            tokens: all that were generated so far.
            thinking: whether a block of thinking is open.
        """
        self._tokens, self._thinking = tokens, thinking
        self._tail = (self._tail + text)[-_KEPT:]
        *lines, rest = text.split("\n")
        for line in lines:
            self._look_for_item(self._line + line)
            self._end_line(self._line + line)
            self._line = ""
        begins = not self._line
        self._line += rest
        if rest and (begins or len(self._line) <= _LONGEST_MARK):
            self._look_for_item(self._line)

    @property
    def tokens(self) -> int:
        """Tokens that are still to come, as far as can be told: at least 0, at most what the cap leaves."""
        return min(max(0, self._cap - self._tokens), round(self._expect()[0]))

    @property
    def basis(self) -> Basis:
        """What the estimate rests on."""
        return self._expect()[1]

    def _expect(self) -> tuple[float, Basis]:
        by_list = self._by_list()
        by_length = self._by_length()
        expected = by_length if by_list is None else min(by_list, _MOST_BY_LIST * by_length)
        if self._thinking:
            return max(expected, self._answer_after_thinking()), "thinking"
        if self._fence:
            return max(expected, _FENCE_TOKENS), "code"
        for formula, at_most in ((_SIGN_OFF, _SIGN_OFF_TOKENS), (_SUMMARY, _SUMMARY_TOKENS)):
            if formula.search(self._tail):
                return min(expected, at_most), "closing"
        return expected, "length" if by_list is None else "list"

    def _by_length(self) -> float:
        """The median of what is left of the predicted distribution, given that the answer is as long as it is."""
        if not self._points:
            return (self._cap - self._tokens) / 2
        half = (1 + _probability(self._points, self._tokens)) / 2
        if half > _MOST_P:  # the quantiles know nothing of such an answer
            return max(1.0, _BEYOND * self._tokens)
        return max(1.0, _length(self._points, half) - self._tokens)

    def _by_list(self) -> float | None:
        """The items that are missing, each as long as those that are there, and what closes the answer."""
        done = len(self._items) - 1
        if self._total is None or done < 1 or len(self._items) > self._total:
            return None
        each = (self._items[-1] - self._items[0]) / done
        if not each:  # they came in one piece
            return None
        current = max(0.0, each - (self._tokens - self._items[-1]))
        return current + each * (self._total - len(self._items)) + _AFTER_LIST_TOKENS

    def _answer_after_thinking(self) -> int:
        """The answer is still to come, whatever the thinking takes: half of the median, as if both were alike."""
        return round(_length(self._points, 0.5) / 2) if self._points else 0

    def _end_line(self, line: str) -> None:
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            self._fence = not self._fence
        elif self._total is None and not self._items:
            self._total = _total(stripped)

    def _look_for_item(self, line: str) -> None:
        """Whether the line begins with the number that comes next in the list."""
        if self._fence or not (found := _ITEM.match(line)):
            return
        if _number(found[1]) == len(self._items) + 1:
            self._items.append(self._tokens)
            if found[2]:
                self._total = int(found[2])


def _total(text: str) -> int | None:
    """How many points a text announces or asks for."""
    found = [each for match in _TOTAL.finditer(text) for each in match.groups() if each]
    numbers = [number for each in found if (number := _number(each)) is not None and number > 1]
    return numbers[0] if numbers else None


def _number(word: str) -> int | None:
    return int(word) if word.isdecimal() else _NUMBERS.get(word.lower())


def _in_normal_scores(quantiles: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """(normal score, log length): a line between two of them is a piece of a log-normal distribution."""
    points: list[tuple[float, float]] = []
    for p, tokens in quantiles:
        score, log = _NORMAL.inv_cdf(min(_MOST_P, max(1 - _MOST_P, p))), math.log(max(1, tokens))
        if not points or log > points[-1][1]:  # those that were clipped at the cap say nothing
            points.append((score, log))
    if len(points) == 1:
        points.append((points[0][0] + 1, points[0][1] + _LEAST_SPREAD))
    return points


def _line(points: list[tuple[float, float]], at: float, axis: int) -> tuple[tuple[float, float], float]:
    """A point and the slope of the piece in which `at` lies on the axis; the outer pieces go on for ever."""
    last = len(points) - 2
    piece = next((i for i in range(last) if at < points[i + 1][axis]), last)
    (x0, y0), (x1, y1) = points[piece], points[piece + 1]
    return (x0, y0), (y1 - y0) / (x1 - x0)


def _length(points: list[tuple[float, float]], p: float) -> float:
    score = _NORMAL.inv_cdf(p)
    (x, y), slope = _line(points, score, 0)
    return math.exp(min(30.0, y + slope * (score - x)))


def _probability(points: list[tuple[float, float]], tokens: int) -> float:
    log = math.log(max(1, tokens))
    (x, y), slope = _line(points, log, 1)
    return _NORMAL.cdf(x + (log - y) / slope)

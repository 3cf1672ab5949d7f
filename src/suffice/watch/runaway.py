"""The runaway detector: tells when an answer loops, so that only a limit would end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from suffice.watch.repetition_score import UNITS_BEFORE_A_LOOP, Counter, RepetitionScore
from suffice.watch.repetition_wanted import WantedRepetition, wanted
from suffice.watch.units import Kind, TextUnits, TokenUnits, Unit

__all__ = ["Runaway", "RunawayDetector"]

# Units that a counting list may still take to reach its end; one that has passed 20 often continues to 100.
_PATIENCE, _PATIENCE_TO_100 = 800, 1400
_MOST_LINES = 40  # line ends in a row
_MOST_BLANKS = 400  # white-space characters in a row
_MOST_DIGITS = 512  # digits in a row, if they repeat
_DIGIT_STEP = 128  # digits between two looks at them
_LONGEST_DIGIT_PERIOD = 64


@dataclass(frozen=True, slots=True)
class Runaway:
    """A loop that an answer fell into, in tokens where `push` found it and in characters where `push_text` did."""

    onset: int
    """The tokens or characters before its first turn."""
    period: int
    """The length of its first turn."""
    at: int
    """How much of the answer had been taken when the loop was reported."""

    @property
    def keep(self) -> int:
        """`onset + period`: how much is kept when the loop is cut back to its first full turn: `answer[:keep]`."""
        return self.onset + self.period


class RunawayDetector:
    """Watches one answer as it is generated and reports once when it has become a loop.

    Call either `push` for every token id or `push_text` for every piece of text, not both. After the report both return
    None; `runaway` keeps it. Work per token is constant (amortised), memory is bounded by some 130 KB whatever the
    answer's length. Not safe for several threads at once; one detector belongs to one answer.

    Args:
        prompt: what was asked, a string or chat messages. It is read only when a loop is about to be reported: a
            repetition is allowed as many turns as the prompt asks for or shows itself, and a list may count to a number
            that the prompt names.
        decode: the text of one token id, for `push`. Without it numbers are words like others, so that loops with a
            counter are found late or not at all. Its results are kept as long as the function lives, so give every
            detector of one model the same function.
    """

    def __init__(self, prompt: object = None, decode: Callable[[int], str] | None = None) -> None:
        self._prompt = prompt
        self._units = TokenUnits(decode)
        self._text = TextUnits()
        self._early: list[tuple[Unit, int]] = []
        self._score: RepetitionScore | None = None
        self._taken = 0
        self._wanted: WantedRepetition | None = None
        self._streak: _Streak | None = None
        self.runaway: Runaway | None = None
        """The report, once there is one."""

    def push(self, token_id: int) -> Runaway | None:
        """Take the next token id; the report if the answer loops by now."""
        if self.runaway is not None:
            return None
        start = self._taken
        self._taken = start + 1
        return self._take(self._units(token_id), start, start + 1)

    def push_text(self, piece: str) -> Runaway | None:
        """Take the next piece of text, cut anywhere; the report if the answer loops by now."""
        if self.runaway is not None:
            return None
        self._taken += len(piece)
        for start, unit in self._text.push(piece):
            if (found := self._take(unit, start, start + len(unit.text))) is not None:
                return found
        return None

    def _take(self, unit: Unit, start: int, end: int) -> Runaway | None:
        score = self._score or self._begin_score(unit, start)
        if score is not None and score.take(unit, start) and not self._ends_soon(score.counter):
            if score.turns >= self._prompt_wants().turns:
                first, second = score.copied_from()
                return self._report(first, second - first)
            score.hold()
        if unit.kind != Kind.WORD:
            return self._flood(unit, start, end)
        self._streak = None
        return None

    def _begin_score(self, unit: Unit, start: int) -> RepetitionScore | None:
        """The score, once the answer is long enough to loop: many end before that and need none."""
        if len(self._early) < UNITS_BEFORE_A_LOOP:
            self._early.append((unit, start))
            return None
        self._score = RepetitionScore()
        for earlier in self._early:
            self._score.take(*earlier)
        self._early.clear()
        return self._score

    def _flood(self, unit: Unit, start: int, end: int) -> Runaway | None:
        """The report of blanks or digits that do not end."""
        streak = self._streak
        if streak is None or streak.kind != unit.kind:
            streak = self._streak = _Streak(unit.kind, start)
        streak.add(unit.text, end)
        period = streak.period()
        if not period or streak.turns < self._prompt_wants().turns:
            return None
        return self._report(streak.start, period)

    def _ends_soon(self, counter: Counter | None) -> bool:
        """Whether this is a list that counts up, or down, to a number where it may well end."""
        if counter is None:
            return False
        end = self._prompt_wants().end_ahead(counter.value, counter.step)
        return end is not None and counter.units_to(end) <= (_PATIENCE_TO_100 if end == 100 else _PATIENCE)

    def _prompt_wants(self) -> WantedRepetition:
        if self._wanted is None:
            self._wanted = wanted(self._prompt)
            self._prompt = None
        return self._wanted

    def _report(self, onset: int, period: int) -> Runaway:
        self.runaway = Runaway(onset, max(1, period), self._taken)
        return self.runaway


class _Streak:
    """Blanks or digits in a row."""

    def __init__(self, kind: Kind, start: int) -> None:
        self.kind, self.start = kind, start
        self.turns = 0
        self._first_end = 0
        self._length = self._lines = self._looked = 0
        self._end = start
        self._digits = ""

    def add(self, text: str, end: int) -> None:
        """Take `text`, which ends at `end`."""
        self._first_end = self._first_end or end
        self._end = end
        self._length += len(text)
        if self.kind == Kind.NUMBER:
            self._digits = (self._digits + text)[-_MOST_DIGITS:]
        else:
            self._lines += text.count("\n")

    def period(self) -> int:
        """The length of one turn, in the unit of the positions, once this is a flood; 0 before."""
        if self.kind == Kind.BLANK:
            self.turns = max(self._lines, self._length // 10)
            return self._first_end - self.start if self._lines >= _MOST_LINES or self._length >= _MOST_BLANKS else 0
        if self._length < max(_MOST_DIGITS, self._looked + _DIGIT_STEP):
            return 0
        self._looked = self._length
        for period in range(1, _LONGEST_DIGIT_PERIOD + 1):
            if self._digits[period:] == self._digits[:-period]:
                self.turns = self._length // period
                return max(1, period * (self._end - self.start) // self._length)
        return 0

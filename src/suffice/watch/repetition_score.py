"""Scores how much of the newest text copies earlier text, and finds where the copying began; constant work per unit.

Each unit is predicted from an earlier place that reads the same: the place being followed, or else the last place where
the same twelve or the same three units stood (Bloom's LZP, "New techniques in context modeling and arithmetic
encoding", DCC 1996), or where the unit itself stood after the same three. Units that come true raise a score and units
that do not lower it, never below zero: Page's cumulative sum test ("Continuous inspection schemes", Biometrika 1954),
which detects a lasting change at the earliest moment for a given rate of false alarms. A unit that the answer did not
hold before costs most: a text with new names in it is getting somewhere. A number that continues a counter costs
little, one that follows no rule costs much.

The score that makes a loop grows with the loop's period: short ones must turn more often, long ones be copied for
longer. While turns still differ in more than a counter, it is several times as high: trying one number after another
often ends, saying the same thing again seldom does.

Knows nothing about tokens, characters and prompts.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from suffice.watch.units import Kind, Unit, number_value

__all__ = ["UNITS_BEFORE_A_LOOP", "WINDOW", "Counter", "RepetitionScore"]

WINDOW = 2048  # units remembered; a longer period cannot be seen
_ROOM = 256  # units that there is room for at first: most answers need no more
_BUCKETS = 2 * WINDOW - 1
_NUMBER = -1  # the symbol of every number
_LARGEST = 10**15  # values are kept below it
_CONTEXT = 12

# Searched on two halves of some 7,700 answers of Qwen2 and Qwen2.5 models apart; between the two: docs/runaways.md.
_GAINS = (0.0, 0.0, 1.0)  # per unit that came true, by how often it had been said before: once is not a loop yet
_GAIN = 2.0  # from the fourth time on
_JUMP = 3.0  # cost of following another place
_NEW = 60.0  # cost of a unit that was not seen before at all
_MISS = 2.0  # cost of a unit that came unexpected
_MISS_AGAIN = 6.0  # cost of each further one in a row
_COUNTER = 1.0  # cost of a number that differs by the same step as last time
_OTHER_NUMBER = 12.0  # cost of any other number where a number was expected
_SHORT_BAR, _SHORT_BAR_PER_LAG = 45.0, 9.0  # score that makes a loop, and more for each unit of its period
_LONG_BAR, _LONG_BAR_PER_LAG = 200.0, 3.2  # the same for periods above some 27
_SHORTEST_LAG, _LONGEST_LAG = 5.0, 400.0  # periods beyond are judged like these
_VARIED = 3.5  # times that score while turns differ
_LASTING = 1.25  # turns without a difference, after which they are taken to be equal
_SMOOTHING = 1 / 32
UNITS_BEFORE_A_LOOP = int((_SHORT_BAR + _SHORT_BAR_PER_LAG * _SHORTEST_LAG) / _GAIN)
"""Units after which the score is still too low for a loop, whatever they were."""
_TOLERANCE = 48  # how far below its best the match may fall on the way back to where a loop began


class Counter(NamedTuple):
    """A number that changes by the same step from turn to turn."""

    value: int
    step: int
    """Never 0; below it where the numbers go down."""
    lag: float
    """The length of a turn in units."""

    def units_to(self, end: int) -> float:
        """How many units it takes to count up or down to `end`."""
        return (end - self.value) / self.step * self.lag


class RepetitionScore:
    """Follows a stream of units and scores how much of it is repetition."""

    def __init__(self) -> None:
        self._mask = _ROOM - 1  # a ring: unit `n` stands at `n & mask`
        self._symbols, self._values, self._steps, self._starts, self._turns = (
            array("q", bytes(8 * _ROOM)) for _ in range(5)
        )
        self._last_after_3 = array("i", b"\xff" * (4 * (_BUCKETS + 1)))  # -1: nowhere
        self._last_after_12 = array("i", self._last_after_3)
        self._last_of_symbol = array("i", self._last_after_3)
        self._count = 0
        self._context = (0,) * _CONTEXT  # the newest first
        self._source = -1  # the unit that the next one is expected to equal
        self._score = 0.0
        self._risen = 0  # the unit at which the score last left zero
        self._lag = 0.0  # smoothed
        self._varied = -WINDOW  # the last unit that broke the copy by more than a counter
        self._counted = -WINDOW  # the last unit that was a counter
        self._missed = False
        self._number: int | None = None  # value of the number being read
        self._number_start = 0
        self.turns = 0
        """How often the newest unit had been said before, each time in the same place of the loop."""

    @property
    def suspicion(self) -> float:
        """The score as a share of what makes a loop: 1 and more is one."""
        return self._score / self._bar()

    def take(self, unit: Unit, start: int) -> bool:
        """Add `unit`, whose position in the answer is `start`; whether the answer loops by now."""
        symbol, kind, text = unit
        if kind == Kind.NUMBER:  # "1", "0", "7" are one number, complete when something else follows
            value = number_value(text)
            if self._number is None:
                self._number, self._number_start = value, start
            else:
                self._number = (self._number * 10 ** len(text) + value) % _LARGEST
            return False
        looping = False
        if self._number is not None:
            looping = self._add(_NUMBER, self._number % _LARGEST, self._number_start)
            self._number = None
        return self._add(symbol, 0, start) or looping

    @property
    def counter(self) -> Counter | None:
        """The number that counted last in the present turn; None where none does."""
        if self._count - self._counted > _LASTING * self._lag + 3:
            return None
        at = self._counted & self._mask
        return Counter(self._values[at], self._steps[at], self._lag)

    def hold(self) -> None:
        """Keep the score at the bar: the loop is allowed to continue for a while."""
        self._score = self._bar()

    def copied_from(self) -> tuple[int, int]:
        """Where the first turn and where the second one begin, in positions of the answer.

        Walks back from the newest unit as long as the text equals the text one period before, some differences
        allowed (an X-drop extension, as in BLAST), at most to the edge of what is remembered.
        """
        newest = self._count - 1
        lag = max(1, newest - self._source + 1)
        begin, best, score = newest, 0, 0
        for at in range(newest, max(lag, self._count - WINDOW + lag) - 1, -1):
            same = self._symbols[at & self._mask] == self._symbols[(at - lag) & self._mask]
            score += 1 if same else -8
            if score >= best:
                begin, best = at, score
            elif score < best - _TOLERANCE:
                break
        oldest = max(0, self._count - WINDOW)
        # Where turns differ in length or order the walk ends early; what raised the score is a copy as well.
        second = max(min(begin, self._risen), oldest)
        first = max(second - lag, oldest)
        return self._starts[first & self._mask], self._starts[second & self._mask]

    def _grow(self) -> None:
        """Twice the room. Its last place stays free until the whole window is there: -1, nowhere, means it."""
        size = self._mask + 1
        for ring in (self._symbols, self._values, self._steps, self._starts, self._turns):
            ring.frombytes(bytes(8 * size))
        self._mask += size

    def _bar(self) -> float:
        lag = min(max(self._lag, _SHORTEST_LAG), _LONGEST_LAG)
        bar = min(_SHORT_BAR + _SHORT_BAR_PER_LAG * lag, _LONG_BAR + _LONG_BAR_PER_LAG * lag)
        return bar * _VARIED if self._count - self._varied <= _LASTING * (self._lag + 1.0) else bar

    def _add(self, symbol: int, value: int, start: int) -> bool:
        """One complete unit: is it the expected one, what does that say, and remember it."""
        symbols, count, source = self._symbols, self._count, self._source
        if count == self._mask < WINDOW - 1:
            self._grow()
        mask = self._mask
        here = count & mask
        bucket_3, bucket_12 = hash(self._context[:3]) & _BUCKETS, hash(self._context) & _BUCKETS
        bucket = symbol & _BUCKETS
        turns, step, score = 0, 0, self._score
        jumped = counts = False
        expected = source >= 0 and symbols[source & mask] == symbol
        if not expected:
            place = self._find(symbol, bucket_12, bucket_3, bucket)
            if place >= 0:
                expected, jumped, source = True, True, place
        if expected:
            there = source & mask
            turns = self._turns[there] + 1
            step = value - self._values[there]
            if step:
                counts = step == self._steps[there]
                score -= _COUNTER if counts else _OTHER_NUMBER
            else:
                score += (_GAINS[turns] if turns < 3 else _GAIN) - (_JUMP if jumped else 0.0)
                self._lag += (count - source - self._lag) * _SMOOTHING
        elif symbols[self._last_of_symbol[bucket] & mask] != symbol:
            score -= _NEW
        else:
            score -= _MISS_AGAIN if self._missed else _MISS
        if counts:
            self._counted = count
        elif step or jumped or not expected:
            self._varied = count
        self._missed = not expected
        if score <= 0.0:
            score, self._risen = 0.0, count + 1
            self._lag = count - source if expected else 0.0
        symbols[here], self._values[here], self._steps[here] = symbol, value, step
        self._turns[here], self._starts[here] = turns, start
        self._last_after_3[bucket_3] = self._last_after_12[bucket_12] = self._last_of_symbol[bucket] = count
        self._source = source + 1 if source >= 0 and count + 1 - source < WINDOW else -1
        self._context = (symbol, *self._context[: _CONTEXT - 1])
        self._count, self._score, self.turns = count + 1, score, turns
        return expected and score > _SHORT_BAR and score > self._bar()

    def _find(self, symbol: int, bucket_12: int, bucket_3: int, bucket: int) -> int:
        """The last place of `symbol` after the same twelve or the same three units; -1 for none.

        After the same three as well where something else has followed them since: loops whose turns are alike in pairs.
        """
        for place, depth in (
            (self._last_after_12[bucket_12], _CONTEXT),
            (self._last_after_3[bucket_3], 3),
            (self._last_of_symbol[bucket], 3),
        ):
            if self._symbols[place & self._mask] == symbol and self._follows(place, depth):
                return place
        return -1

    def _follows(self, place: int, depth: int) -> bool:
        """Whether the `depth` units before `place` are the newest ones, and all of them are still remembered."""
        if place < depth or self._count - place >= WINDOW - depth:
            return False
        symbols, context, mask = self._symbols, self._context, self._mask
        if symbols[(place - 1) & mask] != context[0]:  # most end here: before a generator is made
            return False
        return all(symbols[(place - 1 - back) & mask] == context[back] for back in range(1, depth))

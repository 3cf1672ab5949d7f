"""How much of the newest text is a copy of earlier text, and where the copying began; constant work per unit.

Each unit is predicted from an earlier place that reads the same: the place being followed, or else the last place where
the same twelve or the same three units stood (Bloom's LZP, "New techniques in context modeling and arithmetic
encoding", DCC 1996). Units that come true raise a score and units that do not lower it, never below zero: Page's
cumulative sum test ("Continuous inspection schemes", Biometrika 1954), which tells a lasting change at the earliest
moment for a given rate of false alarms. A unit that the answer did not hold before costs most: whoever fills in new
names is getting somewhere. A number that goes on like a counter costs little, one that follows no rule costs much.

Knows nothing about tokens, characters and prompts.
"""

from __future__ import annotations

from array import array

from suffice.watch.units import Kind, Unit, number_value

__all__ = ["UNITS_BEFORE_A_LOOP", "WINDOW", "Repeats"]

WINDOW = 2048  # units remembered; a longer period cannot be seen
_MASK = WINDOW - 1
_BUCKETS = 2 * WINDOW - 1
_NUMBER = -1  # the symbol of every number
_LARGEST = 10**15  # values are kept below it
_CONTEXT = 12

# Searched on half of some 7,700 answers of Qwen2 and Qwen2.5 models and checked on the other: docs/runaways.md.
_GAINS = (0.0, 0.0, 0.0, 0.5)  # per unit that came true, by how often it had been said before: thrice is no loop yet
_GAIN = 2.0  # from the fifth time on
_JUMP = 5.0  # cost of following another place
_NEW = 100.0  # cost of a unit that was not seen before at all
_MISS = 3.0  # cost of a unit that came unexpected
_MISS_AGAIN = 8.0  # cost of each further one in a row
_COUNTER = 2.0  # cost of a number that differs by the same step as last time
_OTHER_NUMBER = 8.0  # cost of any other number where a number was expected
_BAR = 150.0  # score that tells a loop whose period is near zero
_BAR_PER_LAG = 6.0  # more for each unit of the period: long ones must turn more often to be told from long quotations
_LONGEST_LAG = 200.0  # up to which that goes on
_BAR_NUMBERS = 200.0  # more where numbers change along the way
_SMOOTHING = 1 / 32
UNITS_BEFORE_A_LOOP = int(_BAR / _GAIN)
"""Units after which the score is still too low to tell a loop, whatever they were."""
_FORGET = 0.995
_TOLERANCE = 48  # how far below its best the match may fall on the way back to where a loop began


class Repeats:
    """Follows a stream of units and scores how much of it is repetition."""

    def __init__(self) -> None:
        self._symbols = array("q", bytes(8 * WINDOW))
        self._values = array("q", bytes(8 * WINDOW))
        self._steps = array("q", bytes(8 * WINDOW))
        self._starts = array("q", bytes(8 * WINDOW))
        self._turns = array("q", bytes(8 * WINDOW))
        self._last_after_3 = array("q", b"\xff" * (8 * (_BUCKETS + 1)))  # -1: nowhere
        self._last_after_12 = array("q", self._last_after_3)
        self._last_of_symbol = array("q", self._last_after_3)
        self._count = 0
        self._context = (0,) * _CONTEXT  # the newest first
        self._source = -1  # the unit that the next one is expected to equal
        self._score = 0.0
        self._risen = 0  # the unit at which the score last left zero
        self._lag = 0.0  # smoothed
        self._numbers = 0.0  # 1 where a number just changed, fading
        self._missed = False
        self._number: int | None = None  # value of the number being read
        self._number_start = 0
        self.turns = 0
        """How often the newest unit had been said before, each time in the same place of the loop."""

    @property
    def suspicion(self) -> float:
        """The score in parts of what tells a loop: 1 and more is one."""
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

    def hold(self) -> None:
        """Stay on the edge of telling: the loop that was told is allowed to go on for a while."""
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
            same = self._symbols[at & _MASK] == self._symbols[(at - lag) & _MASK]
            score += 1 if same else -8
            if score >= best:
                begin, best = at, score
            elif score < best - _TOLERANCE:
                break
        oldest = max(0, self._count - WINDOW)
        # Where turns differ in length or order the walk ends early; what raised the score is a copy as well.
        second = max(min(begin, self._risen), oldest)
        first = max(second - lag, oldest)
        return self._starts[first & _MASK], self._starts[second & _MASK]

    def _bar(self) -> float:
        lag = self._lag
        return _BAR + _BAR_PER_LAG * (lag if lag < _LONGEST_LAG else _LONGEST_LAG) + _BAR_NUMBERS * self._numbers

    def _add(self, symbol: int, value: int, start: int) -> bool:
        """One complete unit: is it the expected one, what does that say, and remember it."""
        symbols, count, source = self._symbols, self._count, self._source
        here = count & _MASK
        bucket_3, bucket_12 = hash(self._context[:3]) & _BUCKETS, hash(self._context) & _BUCKETS
        bucket = symbol & _BUCKETS
        turns, step, score = 0, 0, self._score
        self._numbers *= _FORGET
        jumped = False
        expected = source >= 0 and symbols[source & _MASK] == symbol
        if not expected:
            place = self._find(symbol, bucket_3, bucket_12)
            if place >= 0:
                expected, jumped, source = True, True, place
        if expected:
            there = source & _MASK
            turns = self._turns[there] + 1
            step = value - self._values[there]
            if step:
                score -= _COUNTER if step == self._steps[there] else _OTHER_NUMBER
                self._numbers = 1.0
            else:
                score += (_GAINS[turns] if turns < 4 else _GAIN) - (_JUMP if jumped else 0.0)
                self._lag += (count - source - self._lag) * _SMOOTHING
        elif symbols[self._last_of_symbol[bucket] & _MASK] != symbol:
            score -= _NEW
        else:
            score -= _MISS_AGAIN if self._missed else _MISS
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
        return expected and score > _BAR and score > self._bar()

    def _find(self, symbol: int, bucket_3: int, bucket_12: int) -> int:
        """The last place after the same twelve or the same three units where `symbol` came next; -1 for none."""
        for place, depth in ((self._last_after_12[bucket_12], _CONTEXT), (self._last_after_3[bucket_3], 3)):
            if self._symbols[place & _MASK] == symbol and self._follows(place, depth):
                return place
        return -1

    def _follows(self, place: int, depth: int) -> bool:
        """Whether the `depth` units before `place` are the newest ones, and all of them are still remembered."""
        if place < depth or self._count - place >= WINDOW - depth:
            return False
        symbols = self._symbols
        return all(symbols[(place - 1 - back) & _MASK] == self._context[back] for back in range(depth))

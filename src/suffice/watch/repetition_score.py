"""How long the newest text has been a copy of what stands one period before it; constant work per unit.

Each unit is predicted from an earlier place that reads the same: the place being followed, or else the last place where
the same twelve or the same three units stood (Bloom's LZP, "New techniques in context modeling and arithmetic
encoding", DCC 1996), or where the unit itself stood after the same three. What is counted is the run: how many units in
a row came true at one distance, the lag. A run that is longer than its lag repeats itself; where a single digit or word
differs, it starts again at nothing.

Light punctuation and white space are not compared, unless they go on by themselves. They are remembered all the same:
what may be cut back must be equal to the letter.

Knows nothing about tokens, characters and prompts.
"""

from __future__ import annotations

import math
from array import array

from suffice.watch.units import FILLER, LINE_END, WORD, Unit

__all__ = ["WINDOW", "VerbatimRun", "bar"]

WINDOW = 4096  # units remembered; a longer period cannot be seen
_MASK = WINDOW - 1
_HASH = (1 << 32) - 1
_EXACT = (1 << 16) - 1  # the bits of a mark that say how a unit is written; the others say what came after it
_MIX = 0x9E3779B1
_DEEP, _SHALLOW = 12, 3  # units that must be equal before a place is followed
_MIX_DEEP, _MIX_SHALLOW = pow(_MIX, _DEEP, _HASH + 1), pow(_MIX, _SHALLOW, _HASH + 1)
_PASSED_OVER = 16  # units between words that are passed over; more of them are looked at

# Why these: docs/runaways.md.
_WORDS, _VARIETY, _WORDY = 6, 8, 1 / 12  # different words, units of any kind, and words per unit of a turn that is rich
_SHORT, _SHORT_POOR, _SHORT_SIGNS = 110, 150, 240  # units: rich turns, poor ones, and digits and signs alone
_TURNS, _TURNS_POOR = 3.1, 4.1  # turns after the first
_LONG, _LONG_POOR = 500, 655  # units, where that is less
_LEAST_TURNS = 1.1
_LINE_ENDS = 24  # units, for line ends alone
_FIRST_LOOK = _LINE_ENDS  # units; before, a run need not be looked at
_LOOSE = 2  # times as long where commas and blanks between words differ from turn to turn


def bar(lag: int, words: int, variety: int, size: float = 1.0) -> float:
    """How long a run must be to be a loop if its turns are `lag` units, with so many different words and units.

    Units that are longer than a token is as a rule need only be `size` times as many.
    """
    varied = words >= _WORDS and variety >= _VARIETY
    rich = varied and words >= _WORDY * lag
    shortest = _SHORT if varied else _SHORT_POOR if words or variety >= _VARIETY else _SHORT_SIGNS
    turns, long = (_TURNS, _LONG) if rich else (_TURNS_POOR, _LONG_POOR)
    size = size if words else 1.0  # rows of signs are drawn in any length
    return max(shortest * size, min(turns * lag, max(long * size, _LEAST_TURNS * lag)))


class VerbatimRun:
    """Follows a stream of units and counts how long it has been repeating itself."""

    def __init__(self) -> None:
        self.length = 0
        """Units in a row that equal those one lag before them."""
        self.granted = 0
        """Turns that are not a loop yet, however long they are."""
        self.unit_size = math.inf
        """Positions of the answer that a unit takes up at most to count for one token; longer ones count for more."""
        self._symbols, self._marks, self._starts = (array("I", bytes(4 * WINDOW)) for _ in range(3))  # rings
        self._last_after_deep, self._last_after_shallow, self._last_of_symbol = (
            array("i", b"\xff" * (4 * WINDOW)) for _ in range(3)
        )  # -1: nowhere
        self._count = 0
        self._deep = self._shallow = 0  # hashes of the newest units
        self._start = 0  # of the newest unit
        self._filler = self._filler_mark = 0  # what was passed over since then
        self._source = -1  # the unit that the next one is expected to equal
        self._whole = True  # `length` counts all of the run, also what came before it was noticed
        self._look = math.inf  # the length at which the run deserves a look
        self._loose = False  # turns differ in commas and blanks
        self._looping = False

    @property
    def lag(self) -> int:
        """The period of what is being followed, in units."""
        return self._count - self._source

    @property
    def turns(self) -> float:
        """How often what is being said was said, the first time included."""
        return 1 + self.length / (self._count - self._source) if self._source >= 0 else 1.0

    def take(self, unit: Unit, start: int) -> bool:
        """Add `unit`, whose position in the answer is `start`; whether the answer loops now."""
        symbol, exact, _ = unit
        if symbol & FILLER:
            self._filler += 1
            if self._filler <= _PASSED_OVER:
                self._filler_mark = (self._filler_mark + exact) * _MIX & _HASH
                return self._looping
        else:
            self._filler = 0
        count, source, symbols = self._count, self._source, self._symbols
        deep, shallow = self._deep >> 16 & _MASK, self._shallow >> 16 & _MASK
        if source >= 0 and symbols[source & _MASK] == symbol:
            self.length += 1
            self._source = source + 1
        else:
            self._follow(symbol, deep, shallow)
        here = count & _MASK
        self._deep = ((self._deep + symbol) * _MIX - symbols[(count - _DEEP) & _MASK] * _MIX_DEEP * _MIX) & _HASH
        self._shallow = (
            (self._shallow + symbol) * _MIX - symbols[(count - _SHALLOW) & _MASK] * _MIX_SHALLOW * _MIX
        ) & _HASH
        symbols[here], self._starts[here] = symbol, start
        self._marks[here - 1] |= (self._filler_mark + (start - self._start) * _MIX) & ~_EXACT & _HASH
        self._marks[here] = exact & _EXACT
        self._start, self._filler_mark = start, 0
        self._last_after_deep[deep] = self._last_after_shallow[shallow] = count
        self._last_of_symbol[symbol >> 3 & _MASK] = count
        self._count = count + 1
        if self.length >= self._look:
            self.look()
        return self._looping

    def look(self) -> bool:
        """Whether the run is a loop, and when it is worth another look."""
        lag = self._count - self._source
        if not self._whole:
            self.length, self._whole = self._back(self._symbols, 1), True
        self._look = self._lowest_bar(lag, self._symbols[self._count - 1 & _MASK])
        if self.length >= self._look:
            need, words = self._bar(lag)
            self._look = need = max(need, (self.granted - 1) * lag)
            exact = self._copied() if self.length >= need else need
            self._loose = exact < need
            if self._loose:
                loose = _LOOSE * need if words else math.inf
                self._look = min(loose, self.length + need - exact)
        self._looping = self.length >= self._look
        return self._looping

    def turn(self, end: int) -> tuple[int, int]:
        """Where the first turn begins and where it ends, in positions of the answer, which has come to `end`.

        All that follows it is a copy to the letter; where turns differ in blanks or commas, it is the last turn.
        """
        lag = self._count - self._source
        copied = 0 if self._loose else self._copied()
        second = self._starts[(self._count - copied) & _MASK] if copied else end
        first = self._starts[(self._count - copied - lag) & _MASK]
        return first, second

    def _copied(self) -> int:
        """How many of the newest units equal those one lag before them to the letter, with all that is between them."""
        newest = self._count - 1
        if (self._marks[newest & _MASK] ^ self._marks[(newest - self.lag) & _MASK]) & _EXACT:
            return 0
        return self._back(self._marks, 2)

    def _back(self, ring: array[int], first: int) -> int:
        """How many of the newest units equal those one lag before them in `ring`, as far as they are remembered.

        The `first` of them is compared first; those after it are known to be equal.
        """
        count, lag = self._count, self._count - self._source
        most = min(count, WINDOW) - lag
        for length in range(first, most + 1):
            at = count - length
            if ring[at & _MASK] != ring[(at - lag) & _MASK]:
                return length - 1
        return max(0, most)

    def _bar(self, lag: int) -> tuple[float, int]:
        """How long this run must be, and how many different words its turns hold."""
        turn = {self._symbols[at & _MASK] for at in range(self._count - lag, self._count)}
        words = sum(symbol & WORD for symbol in turn)
        ends = all(symbol & LINE_END for symbol in turn)
        return _LINE_ENDS if ends else bar(lag, words, len(turn), self._size(lag)), words

    def _lowest_bar(self, lag: int, symbol: int) -> float:
        """How long the run must be at least, whatever else its turns hold."""
        return _LINE_ENDS if symbol & LINE_END else bar(lag, max(_WORDS, lag), _VARIETY, self._size(lag))

    def _size(self, lag: int) -> float:
        """How many units stand for one token in the newest turn; never more than one."""
        if self.unit_size == math.inf:
            return 1.0
        positions = self._starts[(self._count - 1) & _MASK] - self._starts[(self._count - 1 - lag) & _MASK]
        return min(1.0, self.unit_size * lag / positions) if positions > 0 else 1.0

    def _follow(self, symbol: int, deep: int, shallow: int) -> None:
        """The run is over: follow the last place of `symbol` after the same units, or the same lag again."""
        self._looping = False
        for place, depth in (
            (self._last_after_deep[deep], _DEEP),
            (self._last_after_shallow[shallow], _SHALLOW),
            (self._last_of_symbol[symbol >> 3 & _MASK], _SHALLOW),
        ):
            if self._symbols[place & _MASK] == symbol and self._follows(place, depth):
                self._source, self.length, self._whole = place + 1, depth + 1, False
                self._look = _FIRST_LOOK
                return
        self._source = self._source + 1 if self._source >= 0 else -1
        self.length, self._whole = 0, True
        self._look = _FIRST_LOOK if self._source >= 0 else math.inf

    def _follows(self, place: int, depth: int) -> bool:
        """Whether the `depth` units before `place` are the newest ones, and all of them are still remembered."""
        count, symbols = self._count, self._symbols
        if place < depth or count - place >= WINDOW - depth:
            return False
        return all(symbols[(place - back) & _MASK] == symbols[(count - back) & _MASK] for back in range(1, depth + 1))

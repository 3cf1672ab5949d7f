"""How often each length occurs: exact for every length that matters, in memory that does not grow with the rows."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

__all__ = ["EDGES", "Histogram"]

_EXACT = 1 << 17
"""Lengths up to this one are counted one by one: 131,072 tokens, the context of today's long-context models."""
_DIGITS = 10  # binary digits that are kept of longer ones; rounding them up changes a length by less than 0.2 %

EDGES = (0, 1, 2, 3, 4, 6, 8, 12, *(width << shift for shift in range(17) for width in (16, 24)), 1 << 62)
"""Lower edges of the bars of a picture: two to an octave, round numbers of tokens."""


class Histogram:
    """Counts of lengths in tokens; quantiles, shares and sums follow from them."""

    __slots__ = ("_counts", "_cumulated", "_keys", "largest", "rows", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._keys: Sequence[int] = ()
        self._cumulated: Sequence[int] = ()
        self.rows = 0
        self.total = 0
        """Sum of the lengths, exact."""
        self.largest = 0

    def add(self, tokens: int, times: int = 1) -> None:
        self.rows += times
        self.total += tokens * times
        if tokens > self.largest:
            self.largest = tokens
        if tokens > _EXACT:
            shift = tokens.bit_length() - _DIGITS
            tokens = -(-tokens >> shift) << shift
        self._counts[tokens] = self._counts.get(tokens, 0) + times

    def items(self) -> Iterator[tuple[int, int]]:
        """(length, rows of that length), ascending."""
        self._sort()
        return ((key, self._counts[key]) for key in self._keys)

    @property
    def mean(self) -> float:
        """0 without rows."""
        return self.total / self.rows if self.rows else 0.0

    def quantile(self, p: float) -> int:
        """The least length that at least a share `p` of the rows do not exceed.

        Definition 1 of Hyndman & Fan 1996, "Sample Quantiles in Statistical Packages"; NumPy's `inverted_cdf`.

        Args:
            p: from 0 to 1.

        Raises:
            ValueError: there are no rows.
        """
        # What is a whole number but for the rounding of p counts as that number.
        rank = p * self.rows
        nearest = round(rank)
        return self.at_rank(max(1, nearest if math.isclose(rank, nearest, rel_tol=1e-12) else math.ceil(rank)))

    def at_rank(self, rank: int) -> int:
        """The `rank`-th smallest length, from 1.

        Raises:
            ValueError: there is no such rank.
        """
        if not 1 <= rank <= self.rows:
            raise ValueError(f"rank {rank} of {self.rows} rows")
        if rank == self.rows:
            return self.largest
        self._sort()
        return min(self._keys[bisect_left(self._cumulated, rank)], self.largest)

    def over(self, limit: int) -> int:
        self._sort()
        place = bisect_right(self._keys, limit)
        return self.rows - (self._cumulated[place - 1] if place else 0)

    def tokens_over(self, limit: int) -> int:
        """Tokens beyond `limit`, over all rows: what cutting each row there would lose."""
        return sum((tokens - limit) * times for tokens, times in self._counts.items() if tokens > limit)

    def times(self, tokens: int) -> int:
        return self._counts.get(tokens, 0)

    def bars(self) -> list[tuple[int, int, int]]:
        """(first length, last length, rows) of each bar of a picture, from the first with rows to the last."""
        self._sort()
        bars = [(low, high - 1, self.over(low - 1) - self.over(high - 1)) for low, high in pairwise(EDGES)]
        filled = [place for place, (_, _, rows) in enumerate(bars) if rows]
        return bars[filled[0] : filled[-1] + 1] if filled else []

    def _sort(self) -> None:
        if not self._cumulated or self._cumulated[-1] != self.rows:
            self._keys = sorted(self._counts)
            self._cumulated = list(accumulate(self._counts[key] for key in self._keys))

"""A distribution of lengths on one grid that all parts share, and what callers read from it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from suffice.budget.types import Quantiles

__all__ = ["BINS", "EDGES", "LengthPrediction", "bin_of", "budget_quantiles", "grid_quantiles"]

_Floats = NDArray[np.float64]


def _edges() -> _Floats:
    edges = list(range(-1, 33))
    while edges[-1] < 1 << 20:
        edges.append(max(edges[-1] + 1, round(edges[-1] * 1.03)))
    return np.array(edges, np.float64)


EDGES = _edges()
"""Bin b holds the lengths in (EDGES[b], EDGES[b + 1]]: every length up to 32 tokens by itself, then steps of 3 %."""
BINS = len(EDGES) - 1
_WIDTHS = np.diff(EDGES)
_BOUNDS: list[float] = EDGES.tolist()
_OF_A_BUDGET = (0.5, 0.9, 0.95, 0.99)
_ZERO = np.zeros(1)


def bin_of(tokens: float) -> int:
    """The bin of a length; beyond the grid, the last."""
    return min(BINS - 1, max(0, bisect_left(_BOUNDS, tokens) - 1))


def grid_quantiles(cumulative: _Floats, levels: _Floats) -> _Floats:
    """Tokens at `levels`, whole numbers; `cumulative` has the probability up to each bin's upper edge, (BINS,).

    A length is a whole number of tokens, so a quantile is rounded up: a bin of one length gives exactly that length.
    """
    at = np.minimum(cumulative.searchsorted(levels), BINS - 1)
    up_to = np.concatenate((_ZERO, cumulative))
    below = up_to[at]
    inside = (levels - below) / np.maximum(up_to[at + 1] - below, 1e-12)
    return np.ceil(EDGES[at] + np.minimum(np.maximum(inside, 1e-9), 1.0) * _WIDTHS[at] - 1e-9)


def _quantile(levels: Sequence[float], tokens: Sequence[float], p: float) -> int:
    """Tokens at a probability `p`; levels ascend, and what lies outside is answered with the first and the last."""
    above = bisect_left(levels, p)
    if above in (0, len(levels)):
        return int(tokens[min(above, len(levels) - 1)])
    low, high = tokens[above - 1], tokens[above]
    share = (p - levels[above - 1]) / (levels[above] - levels[above - 1])
    return math.ceil(low + share * (high - low) - 1e-6)


def budget_quantiles(levels: Sequence[float], tokens: Sequence[float]) -> Quantiles:
    """(p, tokens) for each p that a budget has, at least one token each."""
    return tuple([(p, max(1, _quantile(levels, tokens, p))) for p in _OF_A_BUDGET])


class LengthPrediction:
    """How long an answer will be: a distribution, not a number."""

    def __init__(self, levels: Sequence[float], tokens: Sequence[float], source: str) -> None:
        """
        Args:
            levels: ascending probabilities; what lies outside is answered with the first and the last.
            tokens: the calibrated quantiles there, ascending whole numbers.
            source: where the prediction comes from, in words.
        """
        self._levels, self._tokens, self.source = levels, tokens, source

    def quantile(self, p: float) -> int:
        """Tokens that a share `p` of such answers does not exceed.

        Raises:
            ValueError: `p` is not between 0 and 1.
        """
        if not 0 < p < 1:
            raise ValueError(f"p is {p!r}; a quantile needs a probability between 0 and 1")
        return _quantile(self._levels, self._tokens, p)

    @property
    def expected(self) -> float:
        """The mean length in tokens, of what lies between the 0.1 % and the 99.9 % quantile."""
        pairs = zip(self._levels, self._levels[1:], self._tokens, self._tokens[1:], strict=False)
        total = math.fsum((above - below) * (low + high) / 2 for below, above, low, high in pairs)
        return total / (self._levels[-1] - self._levels[0])

    def quantiles(self) -> Quantiles:
        return budget_quantiles(self._levels, self._tokens)

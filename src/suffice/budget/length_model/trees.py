"""Gradient boosting of a location and a scale with small oblivious trees; predicting is a handful of array lookups.

Oblivious trees ask the same question on a whole level, so that a leaf's number is the bits of the answers (as in
CatBoost, Prokhorenkova et al. 2018). Both parameters of a normal distribution follow the natural gradient (NGBoost,
Duan et al. 2020): the residual for the location, half of z^2 - 1 for the logarithm of the scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Forest", "Growth", "Trees"]

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_NARROWER, _WIDER = 2.5, 1.5  # a scale is kept between 1/12 and 4.5 times that of all rows (e^-2.5, e^1.5)


@dataclass(frozen=True, slots=True)
class Growth:
    trees: int = 150
    depth: int = 5
    """At most 8: a leaf's number fits a byte."""
    rate: float = 0.06
    shrinkage: float = 20.0
    """Rows of no effect that every leaf is averaged with."""
    row_share: float = 0.7
    most_rows: int = 4000
    """A tree sees at most this many rows, so that its cost has a bound."""
    column_share: float = 0.5
    bins: int = 48
    scale_gain: float = 1.0
    """What a split is worth for the scale, relative to the location."""
    clip: float = 3.0
    """Standardised residuals beyond this count as this: lengths have heavy tails."""


@dataclass(frozen=True, slots=True)
class Trees:
    """Grown trees. Arrays are never written to."""

    column: _Ints
    """Shape (trees, depth)."""
    threshold: _Floats
    """Shape (trees, depth): the answer is 1 above it."""
    leaves: NDArray[np.float32]
    """Shape (trees, 2^depth, 2): what a leaf adds to the location and to the log scale."""
    start: _Floats
    """Location and log scale before the first tree, shape (2,)."""

    @classmethod
    def grow(cls, table: _Floats, target: _Floats, growth: Growth, seed: int) -> Self:
        """Fit `target` (rows,) on `table` (rows, columns)."""
        return cls(*_Grower(table, target, growth, seed).grow())

    def predict(self, table: _Floats) -> tuple[_Floats, _Floats]:
        """Location and log scale of every row of `table`, each of shape (rows,)."""
        powers = 1 << np.arange(self.column.shape[1])[::-1]
        total = np.tile(self.start, (len(table), 1))
        for column, threshold, leaves in zip(self.column, self.threshold, self.leaves, strict=True):
            total += leaves[(table[:, column] > threshold) @ powers]
        return total[:, 0], _bounded(total[:, 1], self.start[1])


class Forest:
    """Several fits, asked at once: every fold's trees on that fold's row."""

    def __init__(self, column: _Ints, threshold: _Floats, leaves: NDArray[np.float32], start: _Floats) -> None:
        """Arrays as in `Trees`, each with the folds as an axis before all others."""
        self.column, self.threshold, self.leaves, self.start = column, threshold, leaves, start
        folds, trees, depth = column.shape
        self._folds, self._fold_of = folds, np.repeat(np.arange(folds), trees)[:, None]
        self._columns = column.reshape(folds * trees, depth)
        self._width, self._places = 0, self._columns  # of a table: where in it each question looks
        self._thresholds = threshold.reshape(folds * trees, depth)
        self._powers = (1 << np.arange(depth)[::-1]).astype(np.float32)
        self._first = np.arange(folds * trees) << depth
        self._leaves = leaves.reshape(-1, 2)

    @classmethod
    def of(cls, fits: Sequence[Trees]) -> Self:
        names = ("column", "threshold", "leaves", "start")
        return cls(*(np.stack([getattr(fit, name) for fit in fits]) for name in names))

    def predict(self, table: _Floats) -> tuple[float, float]:
        """Location and log scale, averaged over the folds; `table` has a row for each of them."""
        if table.shape[1] != self._width:
            self._places, self._width = self._fold_of * table.shape[1] + self._columns, table.shape[1]
        answers = table.ravel().take(self._places) > self._thresholds  # several times faster than table[..., ...]
        numbers = (answers @ self._powers).astype(np.int64)  # a leaf's number is the bits of the answers
        leaves = self._leaves.take(self._first + numbers, axis=0)
        total = (self.start + leaves.reshape(self._folds, -1, 2).sum(axis=1)).tolist()
        scales = [
            min(first + _WIDER, max(first - _NARROWER, log_scale))
            for (_, log_scale), (_, first) in zip(total, self.start.tolist(), strict=True)
        ]
        return sum(location for location, _ in total) / self._folds, sum(scales) / self._folds


def _bounded(log_scale: _Floats, start: float) -> _Floats:
    return np.clip(log_scale, start - _NARROWER, start + _WIDER)


class _Grower:
    def __init__(self, table: _Floats, target: _Floats, growth: Growth, seed: int) -> None:
        self._growth, self._random = growth, np.random.default_rng(seed)
        self._target = target
        self._edges = [_edges(column, growth.bins) for column in table.T]
        self._binned = np.stack([np.searchsorted(e, c) for e, c in zip(self._edges, table.T, strict=True)], axis=1)
        self._width = max(len(edges) for edges in self._edges) + 1
        self._start = np.array([target.mean(), np.log(target.std() + 1e-3)])
        self._state = np.tile(self._start, (len(target), 1))

    def grow(self) -> tuple[_Ints, _Floats, NDArray[np.float32], _Floats]:
        g = self._growth
        columns = np.zeros((g.trees, g.depth), np.int64)
        thresholds = np.full((g.trees, g.depth), np.inf)
        leaves = np.zeros((g.trees, 1 << g.depth, 2), np.float32)
        for tree in range(g.trees):
            moments = self._moments()
            rows = self._some_rows()
            leaf, in_tree = np.zeros(len(self._target), np.int64), np.zeros(len(rows), np.int64)
            tried = np.flatnonzero(self._random.random(len(self._edges)) < g.column_share)
            for level in range(g.depth):
                column, place = self._best_split(rows, in_tree, moments, tried, 1 << level)
                if column < 0:
                    leaf, in_tree = 2 * leaf, 2 * in_tree
                    continue
                columns[tree, level], thresholds[tree, level] = column, self._edges[column][place]
                leaf = 2 * leaf + (self._binned[:, column] > place)
                in_tree = leaf[rows]
            leaves[tree] = self._leaf_values(in_tree, moments[:, rows], 1 << g.depth)
            self._state += leaves[tree][leaf]
            self._state[:, 1] = _bounded(self._state[:, 1], self._start[1])
        return columns, thresholds, leaves, self._start

    def _moments(self) -> _Floats:
        """Weighted residual, weight, gradient of the log scale, 1: shape (4, rows). The weights are precisions."""
        scale = np.exp(self._state[:, 1])
        z = np.clip((self._target - self._state[:, 0]) / scale, -self._growth.clip, self._growth.clip)
        weight = 1 / scale**2
        weight = np.clip(weight / weight.mean(), 0.1, 10)
        return np.stack([weight * z * scale, weight, (z * z - 1) / 2, np.ones(len(z))])

    def _some_rows(self) -> _Ints:
        count = min(self._growth.most_rows, max(1, int(self._growth.row_share * len(self._target))))
        return np.sort(self._random.choice(len(self._target), count, replace=False))

    def _best_split(self, rows: _Ints, leaf: _Ints, moments: _Floats, tried: _Ints, leaves: int) -> tuple[int, int]:
        """Column and place of the split with the largest gain over all leaves; column -1 if none has any."""
        if not len(tried):
            return -1, 0
        width, cells = self._width, leaves * len(tried) * self._width
        first = leaf[:, None] * (len(tried) * width) + np.arange(len(tried)) * width
        keys = (first + self._binned[np.ix_(rows, tried)]).ravel()
        sums = [np.bincount(keys, np.repeat(moment[rows], len(tried)), cells) for moment in moments]
        below = np.stack(sums).reshape(len(moments), leaves, len(tried), width).cumsum(axis=3)
        whole = below[..., -1:]
        gain = (self._worth(below, moments) + self._worth(whole - below, moments) - self._worth(whole, moments)).sum(0)
        places = np.array([len(self._edges[column]) for column in tried])
        gain[np.arange(width) >= places[:, None]] = -1.0
        best = int(gain.argmax())
        if gain.flat[best] <= 0:
            return -1, 0
        return int(tried[best // width]), best % width

    def _worth(self, sums: _Floats, moments: _Floats) -> _Floats:
        """Newton's decrease of both losses, each over its own mean, for sums of shape (4, ...)."""
        g = self._growth
        location = sums[0] ** 2 / (sums[1] + g.shrinkage) / (np.mean(moments[0] ** 2 / moments[1]) + 1e-9)
        scale = sums[2] ** 2 / (sums[3] + g.shrinkage) / (np.mean(moments[2] ** 2) + 1e-9)
        worth: _Floats = location + g.scale_gain * scale
        return worth

    def _leaf_values(self, leaf: _Ints, moments: _Floats, leaves: int) -> _Floats:
        sums = [np.bincount(leaf, moment, leaves) for moment in moments]
        shrinkage = self._growth.shrinkage
        location = sums[0] / (sums[1] + shrinkage)
        return self._growth.rate * np.stack([location, sums[2] / (sums[3] + shrinkage)], axis=1)


def _edges(column: _Floats, bins: int) -> _Floats:
    """Places where a column may be split: between its values, or at its quantiles where it has many."""
    values = np.unique(column)
    if len(values) <= bins:
        return (values[1:] + values[:-1]) / 2
    return np.unique(np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1]))

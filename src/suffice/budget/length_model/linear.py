"""Ridge regression on hashed n-grams: rows are sets of cells, weighted by how rare a cell is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["SparseRows", "cell_weights", "ridge"]

_Floats = NDArray[np.float64]


def cell_weights(rows: Sequence[NDArray[np.int64]], cells: int) -> _Floats:
    """Inverse document frequency of each cell; 0 for cells that fewer than two rows have. Shape (cells,)."""
    counts = np.bincount(np.concatenate(rows), minlength=cells)
    return np.where(counts > 1, np.log((1 + len(rows)) / (1 + counts)), 0.0)


class SparseRows:
    """Rows of cells as one compressed matrix, each scaled to length 1."""

    def __init__(self, rows: Sequence[NDArray[np.int64]], weights: _Floats) -> None:
        """From the cells of each row, none of them empty, and the weights of every cell, shape (cells,)."""
        self._cells = np.concatenate(rows)
        self._counts = np.array([len(row) for row in rows])
        self._starts = np.concatenate([[0], np.cumsum(self._counts)[:-1]])
        values = weights[self._cells]
        norms = np.sqrt(np.add.reduceat(values * values, self._starts)) + 1e-9
        self._values = values / np.repeat(norms, self._counts)
        self.columns = len(weights)

    def times(self, vector: _Floats) -> _Floats:
        """Rows @ vector, shape (rows,)."""
        return np.asarray(np.add.reduceat(vector[self._cells] * self._values, self._starts), np.float64)

    def transposed_times(self, vector: _Floats) -> _Floats:
        """Rows^T @ vector, shape (cells,)."""
        weights: _Floats = self._values * np.repeat(vector, self._counts)
        return np.bincount(self._cells, weights, self.columns).astype(np.float64)


def ridge(
    rows: SparseRows, target: _Floats, used: NDArray[np.bool_], penalty: float, steps: int
) -> tuple[_Floats, float]:
    """Weights and intercept that minimise squared error + `penalty` |weights|^2 over the rows that are `used`.

    By conjugate gradients (Hestenes and Stiefel 1952), stopped after `steps`, which regularises too.
    """
    share = used.astype(np.float64)
    intercept = float(target[used].mean())
    residual = rows.transposed_times(share * (target - intercept))
    weights, direction = np.zeros(rows.columns), residual.copy()
    energy = float(residual @ residual)
    for _ in range(steps):
        if energy < 1e-9:
            break
        image = rows.transposed_times(share * rows.times(direction)) + penalty * direction
        step = energy / float(direction @ image)
        weights += step * direction
        residual -= step * image
        energy, previous = float(residual @ residual), energy
        direction = residual + energy / previous * direction
    return weights, intercept

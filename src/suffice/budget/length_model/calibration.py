"""Quantiles that keep what they promise while traffic drifts: adaptive conformal inference.

After each answer the level that is really asked for moves a little: up if the answer was longer than the quantile, down
if not (Gibbs and Candès 2021), in logits, so that it stays between 0 and 1. Everyone has such shifts, and the finest
group has its own on top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS", "MOST", "adjusted", "covered_if_cut", "moved"]

_Floats = NDArray[np.float64]

LEVELS = np.array([0.001, 0.01, 0.05, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95, 0.975, 0.99, 0.999])
"""The probabilities that predictions are calibrated at; others lie on straight lines between them."""
_LOGITS = np.log(LEVELS / (1 - LEVELS))
_RATE = 0.02
_STEP = _RATE / np.sqrt(LEVELS * (1 - LEVELS))
MOST = 3.0
"""Logits by which a level is moved at most."""


def adjusted(shift: _Floats) -> _Floats:
    """The levels to ask for, so that `LEVELS` are kept; ascending, shape (len(LEVELS),)."""
    return 1 / (1 + np.exp(-np.maximum.accumulate(_LOGITS + shift)))


def moved(shift: _Floats, covered: _Floats) -> _Floats:
    """The shift after one more answer; `covered` says which quantiles it did not exceed: 1, 0, or how probably."""
    return np.minimum(np.maximum(shift + _STEP * (LEVELS - covered), -MOST), MOST)  # np.clip is several times slower


def covered_if_cut(tokens: int, quantiles: _Floats) -> _Floats:
    """How probably each quantile covers an answer of which only is known that it is longer than `tokens`."""
    passed = float(np.interp(tokens, quantiles, LEVELS, left=0.0))
    return np.clip((LEVELS - passed) / (1 - passed), 0.0, 1.0)

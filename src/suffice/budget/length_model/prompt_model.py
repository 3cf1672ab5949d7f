"""From a prompt to a distribution of the answer's length: a few folds of ridge + trees, and how wrong they were.

Each fold is trained without a part of the prompts, and that part says how far its predictions are off. Those residuals
are the shape of the distribution (cross-conformal prediction, Vovk 2015), so that quantiles are as wide as errors on
*unseen* prompts are. Lengths are predicted as their fourth root: quantiles keep their meaning under any monotone
scale, and of logarithm, square root and fourth root the last has the lowest pinball loss.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from suffice.budget.length_key import LocationScale
from suffice.budget.length_model.features import BITS, FORM_NAMES, SEEN_BITS, TextFeatures
from suffice.budget.length_model.linear import SparseRows, cell_weights, ridge
from suffice.budget.length_model.trees import Forest, Growth, Trees

__all__ = ["COLUMNS", "FOLDS", "LEVELS", "OnStep", "PromptModel", "ignored_steps", "to_scale", "to_tokens"]

_Floats = NDArray[np.float64]
_Model = TypeVar("_Model", bound="PromptModel")
OnStep = Callable[[int, int], None]
"""Told the steps done and the steps in all."""

FOLDS = 4
LEVELS = np.concatenate([[0.001, 0.0025, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.9975, 0.999]])
"""Probabilities at which the shape of the residuals is kept."""
COLUMNS = (*FORM_NAMES, "offset of the model", "ridge", "ridge and offset")
"""What the trees see of a prompt."""
_PENALTY, _STEPS = 1.0, 10  # of the ridge; 25 steps are no better
_INNER = 4  # parts in which a fold predicts its own training prompts for the trees
_MODEL_PRIOR = 10.0  # answers of the average model that every model's own are averaged with
_WIDE = 2.0  # standard deviations of all training lengths, where a prompt is like nothing in training


def ignored_steps(done: int, total: int) -> None: ...


def to_scale(tokens: Any) -> Any:
    """Tokens on the scale on which lengths are predicted."""
    return np.sqrt(np.sqrt(tokens))


def to_tokens(value: Any) -> Any:
    """The inverse of `to_scale`; what lies below 0 is 0."""
    return np.square(np.square(np.maximum(value, 0.0)))


def _table(form: _Floats, offset: float | _Floats, linear: _Floats) -> _Floats:
    """The trees' rows, shape (rows, len(COLUMNS)); `form` is one row for all, or one for each."""
    table = np.empty((len(linear), len(COLUMNS)))
    at = len(FORM_NAMES)
    table[:, :at] = form
    table[:, at], table[:, at + 1], table[:, at + 2] = offset, linear, linear + offset
    return table


@dataclass(frozen=True, kw_only=True)
class PromptModel:
    """Trained once, never changed; any number of threads may predict."""

    cell_weights: NDArray[np.float32]
    """Rarity of every n-gram cell, shape (2^BITS,)."""
    ridge: NDArray[np.float32]
    """Shape (2^BITS, folds), as `intercepts` is (folds,)."""
    intercepts: _Floats
    forest: Forest
    shape: _Floats
    """Quantiles of the standardised residuals at `LEVELS`."""
    models: Mapping[str, float]
    """By `model_key`: how far its answers are from the mean of all, on the model's scale."""
    mean: float
    spread: float
    """Mean and standard deviation of all training lengths, on the model's scale."""
    seen: NDArray[np.bool_]
    """Which hashes of 3-grams training has seen, shape (2^SEEN_BITS,)."""
    familiar: float
    """Share of unseen 3-grams that 95 % of held-out training prompts stay below."""
    rows: int

    @cached_property
    def model_spread(self) -> float:
        """Standard deviation between models, on the model's scale."""
        return float(np.std(list(self.models.values()))) if len(self.models) > 1 else 0.0

    def expect(self, found: TextFeatures, model: str) -> LocationScale:
        """What a prompt with these features says of the answer of a model, which `model_key` names."""
        weights = self.cell_weights[found.cells]
        norm = float(np.sqrt(weights @ weights)) + 1e-9
        linear = (weights @ self.ridge[found.cells]) / norm + self.intercepts
        offset = self.models.get(model)
        location, log_scale = self.forest.predict(_table(found.form, offset or 0.0, linear))
        scale = math.exp(log_scale)
        if offset is None:  # it is not known which model answers
            scale = math.hypot(scale, self.model_spread)
        return self._widened(location, scale, self._novelty(found.fingerprints))

    def _novelty(self, fingerprints: NDArray[np.uint32]) -> float:
        unseen = _unseen_share(self.seen, fingerprints)
        return max(0.0, unseen - self.familiar) / max(1e-9, 1 - self.familiar)

    def _widened(self, location: float, scale: float, novelty: float) -> LocationScale:
        """From the prediction, for a familiar prompt, to all training lengths and more, for one like nothing there."""
        location += novelty * (self.mean - location)
        return LocationScale(location, math.hypot(scale, novelty * _WIDE * self.spread), novelty)

    @classmethod
    def fit(
        cls,
        rows: Sequence[TextFeatures],
        models: Sequence[str],
        tokens: _Floats,
        growth: Growth | None = None,
        on_step: OnStep = ignored_steps,
    ) -> tuple[Self, list[LocationScale]]:
        """A model, and what it says of each row without having seen its prompt; `models` are `model_key`s."""
        return _Fitting(rows, models, to_scale(tokens), growth or Growth(), on_step).run(cls)


class _Fitting:
    def __init__(
        self,
        rows: Sequence[TextFeatures],
        models: Sequence[str],
        target: _Floats,
        growth: Growth,
        on_step: Callable[[int, int], None],
    ) -> None:
        self._rows, self._target, self._growth, self._on_step = rows, target, growth, on_step
        self._weights = cell_weights([row.cells for row in rows], 1 << BITS)
        self._sparse = SparseRows([row.cells for row in rows], self._weights)
        self._offsets = _model_offsets(models, target)
        self._offset = np.array([self._offsets[model] for model in models])
        self._form = np.stack([row.form for row in rows])
        self._part = np.array([zlib.crc32(row.cells.tobytes()) for row in rows])  # the same prompt: the same part
        self._fold = self._part % FOLDS
        self._steps = 0

    def run(self, kind: type[_Model]) -> tuple[_Model, list[LocationScale]]:
        location, log_scale = np.zeros(len(self._rows)), np.zeros(len(self._rows))
        fits, ridges, intercepts = [], [], []
        for fold in range(FOLDS):
            held = self._fold == fold
            linear, weights, intercept = self._linear(~held, held)
            table = _table(self._form, self._offset, linear)
            trees = Trees.grow(table[~held], self._target[~held], self._growth, seed=fold)
            location[held], log_scale[held] = trees.predict(table[held])
            fits.append(trees)
            ridges.append(weights)
            intercepts.append(intercept)
            self._step()
        scale = np.exp(log_scale)
        seen, unseen = self._seen()
        model = kind(
            cell_weights=self._weights.astype(np.float32),
            ridge=np.stack(ridges, axis=1).astype(np.float32),
            intercepts=np.array(intercepts),
            forest=Forest.of(fits),
            shape=np.quantile((self._target - location) / scale, LEVELS),
            models=self._offsets,
            mean=float(self._target.mean()),
            spread=float(self._target.std()),
            seen=seen,
            familiar=float(np.quantile(unseen, 0.95)),
            rows=len(self._rows),
        )
        return model, [LocationScale(float(a), float(b), 0.0) for a, b in zip(location, scale, strict=True)]

    def _linear(self, used: NDArray[np.bool_], held: NDArray[np.bool_]) -> tuple[_Floats, _Floats, float]:
        """The ridge's word on every row, given without having seen it, and the ridge that says it to new prompts."""
        target, inner = self._target - self._offset, self._part // FOLDS % _INNER
        said, weights, intercept = np.zeros(len(target)), np.zeros(1 << BITS), 0.0
        for part in range(_INNER):
            own, own_intercept = ridge(self._sparse, target, used & (inner != part), _PENALTY, _STEPS)
            here = used & (inner == part)
            everywhere = self._sparse.times(own) + own_intercept
            said[here] = everywhere[here]
            said[held] += everywhere[held] / _INNER
            weights += own / _INNER
            intercept += own_intercept / _INNER
            self._step()
        return said, weights, intercept

    def _seen(self) -> tuple[NDArray[np.bool_], _Floats]:
        """The set of all 3-grams, and the share that each row has for itself against the other folds."""
        sets = [np.zeros(1 << SEEN_BITS, bool) for _ in range(FOLDS)]
        for row, fold in zip(self._rows, self._fold, strict=True):
            sets[fold][row.fingerprints] = True
        others = [np.logical_or.reduce([s for at, s in enumerate(sets) if at != fold]) for fold in range(FOLDS)]
        rows = zip(self._rows, self._fold, strict=True)
        unseen = np.array([_unseen_share(others[fold], row.fingerprints) for row, fold in rows])
        return np.logical_or.reduce(sets), unseen

    def _step(self) -> None:
        self._steps += 1
        self._on_step(self._steps, FOLDS * (_INNER + 1))


def _model_offsets(models: Sequence[str], target: _Floats) -> dict[str, float]:
    """Each model's distance from the mean, shrunk towards it."""
    names, index = np.unique(np.array(models, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(index, target - target.mean())
    counts = np.bincount(index)
    return {str(n): float(s / (c + _MODEL_PRIOR)) for n, s, c in zip(names, sums, counts, strict=True)}


def _unseen_share(seen: NDArray[np.bool_], fingerprints: NDArray[np.uint32]) -> float:
    return 1.0 - np.count_nonzero(seen[fingerprints]) / len(fingerprints)

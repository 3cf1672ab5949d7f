"""How good a length model is, beside one constant, on answers to prompts that it has not seen."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffice.budget.length_model.model import LengthModel
from suffice.budget.length_model.prompt_model import OnStep, ignored_steps
from suffice.budget.length_model.sample import LengthSample, Record

__all__ = ["EVALUATED", "Figures", "evaluate", "pinball"]

_Floats = NDArray[np.float64]

EVALUATED = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_AT_95 = EVALUATED.index(0.95)
_FOLDS = 5
_ONE_SPLIT = 5000  # rows from which on one fifth held out is enough, rather than every fifth in turn


@dataclass(frozen=True, slots=True)
class Figures:
    """How a model did on held-out answers, beside the quantiles of the training answers as constants."""

    rows: int
    pinball: float
    """Mean pinball loss over `EVALUATED`, in tokens: the smaller, the better."""
    pinball_constant: float
    coverage: tuple[float, ...]
    """Share of the answers within each quantile of `EVALUATED`."""
    waste: float
    """Mean 95 % quantile over mean tokens used below it."""
    waste_constant: float

    @classmethod
    def of(cls, tokens: _Floats, quantiles: _Floats, constant: _Floats) -> Figures:
        """From true lengths (rows,), and predicted and constant quantiles (rows, len(EVALUATED))."""
        return cls(
            rows=len(tokens),
            pinball=pinball(tokens, quantiles),
            pinball_constant=pinball(tokens, constant),
            coverage=tuple(float(share) for share in (tokens[:, None] <= quantiles).mean(axis=0)),
            waste=_waste(tokens, quantiles[:, _AT_95]),
            waste_constant=_waste(tokens, constant[:, _AT_95]),
        )

    @property
    def ratio(self) -> float:
        """Pinball loss relative to the constant's: below 1 is better than a constant."""
        return self.pinball / max(self.pinball_constant, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        return {
            "held_out": self.rows,
            "pinball": round(self.pinball, 3),
            "pinball_constant": round(self.pinball_constant, 3),
            "coverage": {str(p): round(share, 4) for p, share in zip(EVALUATED, self.coverage, strict=True)},
            "waste_q0.95": round(self.waste, 3),
            "waste_q0.95_constant": round(self.waste_constant, 3),
        }

    def describe(self) -> str:
        levels = "  ".join(f"q{p:g} {100 * share:.1f} %" for p, share in zip(EVALUATED, self.coverage, strict=True))
        return (
            f"held out {self.rows} answers: pinball loss {self.pinball:.2f} tokens, a constant's "
            f"{self.pinball_constant:.2f} (ratio {self.ratio:.2f})\n"
            f"coverage  {levels}\n"
            f"reserved at q0.95 / used: {self.waste:.2f}, a constant's {self.waste_constant:.2f}"
        )


def evaluate(records: Sequence[Record], on_step: OnStep = ignored_steps) -> Figures:
    """Held-out figures of `LengthModel.fit` on these records.

    Where records say who asked, or have no prompt, they are taken as a stream in order: the first four fifths are
    learned, the rest predicted and then observed one by one. Otherwise prompts are split, no prompt in both parts.
    Answers that a limit ended are learned from, but not scored.

    Raises:
        DataError: as `LengthModel.fit` does.
    """
    samples = [LengthSample.of(record) for record in records]
    stream = any(_has_history(sample) for sample in samples)
    split = _by_time(samples) if stream else _by_prompt(samples)
    parts = (_FOLDS if not stream and len(samples) < _ONE_SPLIT else 1) if samples else 0
    truth, predicted, constant = [], [], []
    for part in range(parts):
        train = [sample for sample, fold in zip(samples, split, strict=True) if fold != part]
        model = LengthModel.fit_samples(train, on_step=_shifted(on_step, part, parts))
        fixed = np.quantile([sample.tokens for sample in train if not sample.cut], EVALUATED)
        for sample in (sample for sample, fold in zip(samples, split, strict=True) if fold == part):
            key = model.key(sample.query)
            if not sample.cut:
                truth.append(float(sample.tokens))
                predicted.append([model.predict_by(key).quantile(p) for p in EVALUATED])
                constant.append(fixed)
            if stream:
                model.learn(key, sample.tokens, cut=sample.cut)
    return Figures.of(np.array(truth), np.array(predicted, np.float64), np.array(constant))


def pinball(tokens: _Floats, quantiles: _Floats) -> float:
    """Mean pinball loss (Koenker and Bassett 1978) of quantiles at `EVALUATED`, in tokens."""
    levels, distance = np.array(EVALUATED), tokens[:, None] - quantiles
    return float(np.maximum(levels * distance, (levels - 1) * distance).mean())


def _waste(tokens: _Floats, caps: _Floats) -> float:
    return float(caps.mean() / np.maximum(np.minimum(tokens, caps).mean(), 1e-9))


def _has_history(sample: LengthSample) -> bool:
    return bool(sample.query.info.client or sample.query.info.route) or not sample.has_prompt


def _by_time(samples: Sequence[LengthSample]) -> NDArray[np.int64]:
    """0 for the last fifth, 1 for the rest."""
    return (np.arange(len(samples)) < len(samples) * 4 // 5).astype(np.int64)


def _by_prompt(samples: Sequence[LengthSample]) -> NDArray[np.int64]:
    prompts = (sample.query.prompt for sample in samples)
    contents = (str(list(prompt.messages) or prompt.raw) for prompt in prompts)
    return np.array([zlib.crc32(content.encode("utf-8", "replace")) % _FOLDS for content in contents])


def _shifted(on_step: OnStep, part: int, parts: int) -> OnStep:
    return lambda done, total: on_step(part * total + done, parts * total)

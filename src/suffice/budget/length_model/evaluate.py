"""Honest figures: a length model against one constant, on answers to prompts that it has not seen."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffice.budget.length_model.model import LengthModel

__all__ = ["EVALUATED", "Figures", "evaluate", "pinball"]

_Floats = NDArray[np.float64]
_Step = Callable[[int, int], None]

EVALUATED = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_AT_95 = EVALUATED.index(0.95)
_FOLDS = 5
_ONE_SPLIT = 5000  # rows from which on one fifth held out is enough, rather than every fifth in turn


@dataclass(frozen=True, slots=True)
class Figures:
    """How a model did on held-out answers, beside the quantiles of the training answers as constants."""

    rows: int
    """Held-out answers."""
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
        """As JSON can hold it."""
        return {
            "held_out": self.rows,
            "pinball": round(self.pinball, 3),
            "pinball_constant": round(self.pinball_constant, 3),
            "coverage": {str(p): round(share, 4) for p, share in zip(EVALUATED, self.coverage, strict=True)},
            "waste_q0.95": round(self.waste, 3),
            "waste_q0.95_constant": round(self.waste_constant, 3),
        }

    def describe(self) -> str:
        """A few lines for a person."""
        levels = "  ".join(f"q{p:g} {100 * share:.1f} %" for p, share in zip(EVALUATED, self.coverage, strict=True))
        return (
            f"held out {self.rows} answers: pinball loss {self.pinball:.2f} tokens, a constant's "
            f"{self.pinball_constant:.2f} (ratio {self.ratio:.2f})\n"
            f"coverage  {levels}\n"
            f"reserved at q0.95 / used: {self.waste:.2f}, a constant's {self.waste_constant:.2f}"
        )


def evaluate(records: Sequence[Mapping[str, Any]], on_step: _Step = lambda done, total: None) -> Figures:
    """Held-out figures of `LengthModel.fit` on these records.

    Where records say who asked, or have no prompt, they are taken as a stream in order: the first four fifths are
    learned, the rest predicted and then observed one by one. Otherwise prompts are split, no prompt in both parts.
    Answers that a limit ended are learned from, but not scored.

    Raises:
        DataError: as `LengthModel.fit` does.
    """
    stream = any(_has_history(record) for record in records)
    split = _by_time(records) if stream else _by_prompt(records)
    parts = (_FOLDS if not stream and len(records) < _ONE_SPLIT else 1) if len(records) else 0
    truth, said, constant = [], [], []
    for part in range(parts):
        held = split == part
        train = [record for record, out in zip(records, held, strict=True) if not out]
        model = LengthModel.fit(train, on_step=_shifted(on_step, part, parts))
        fixed = np.quantile(
            [record["output_tokens"] for record in train if record.get("finish") != "length"], EVALUATED
        )
        for record in (record for record, out in zip(records, held, strict=True) if out):
            if record.get("finish") != "length":
                prediction = model.predict(record)
                truth.append(float(record["output_tokens"]))
                said.append([prediction.quantile(p) for p in EVALUATED])
                constant.append(fixed)
            if stream:
                model.observe(record)
    return Figures.of(np.array(truth), np.array(said, np.float64), np.array(constant))


def pinball(tokens: _Floats, quantiles: _Floats) -> float:
    """Mean pinball loss (Koenker and Bassett 1978) of quantiles at `EVALUATED`, in tokens."""
    levels, distance = np.array(EVALUATED), tokens[:, None] - quantiles
    return float(np.maximum(levels * distance, (levels - 1) * distance).mean())


def _waste(tokens: _Floats, caps: _Floats) -> float:
    return float(caps.mean() / np.maximum(np.minimum(tokens, caps).mean(), 1e-9))


def _has_history(record: Mapping[str, Any]) -> bool:
    return any(record.get(name) for name in ("client", "route")) or not (record.get("messages") or record.get("prompt"))


def _by_time(records: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """0 for the last fifth, 1 for the rest."""
    return (np.arange(len(records)) < len(records) * 4 // 5).astype(np.int64)


def _by_prompt(records: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    contents = (str(record.get("messages") or record.get("prompt")) for record in records)
    return np.array([zlib.crc32(content.encode("utf-8", "replace")) % _FOLDS for content in contents])


def _shifted(on_step: _Step, part: int, parts: int) -> _Step:
    return lambda done, total: on_step(part * total + done, parts * total)

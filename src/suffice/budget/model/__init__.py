"""The length model. Needs numpy, which is imported with it; `suffice.budget` does not import it before it is used."""

from __future__ import annotations

from suffice.budget.model.distribution import LengthPrediction
from suffice.budget.model.length_model import Asked, LengthModel

__all__ = ["Asked", "LengthModel", "LengthPrediction"]

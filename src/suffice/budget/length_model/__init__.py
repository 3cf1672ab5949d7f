"""The length model. Needs numpy, which is imported with it; `suffice.budget` does not import it before it is used."""

from __future__ import annotations

from suffice.budget.length_model.distribution import LengthPrediction
from suffice.budget.length_model.model import LengthKey, LengthModel

__all__ = ["LengthKey", "LengthModel", "LengthPrediction"]

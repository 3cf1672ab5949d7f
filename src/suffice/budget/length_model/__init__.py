"""The length model. Needs numpy, which is imported with it; `suffice.budget` does not import it before it is used."""

from __future__ import annotations

from suffice.budget.length_key import LengthKey
from suffice.budget.length_model.distribution import LengthPrediction
from suffice.budget.length_model.model import LengthModel
from suffice.deprecated import renamed

__all__ = ["LengthKey", "LengthModel", "LengthPrediction"]

__getattr__ = renamed(__name__, {"Asked": "LengthKey"})

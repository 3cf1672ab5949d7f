"""The length model: a distribution of the length, from the prompt and from history.

`suffice.budget` imports it, and with it numpy, only when it is used.
"""

from __future__ import annotations

from suffice.budget.length_key import LengthKey
from suffice.budget.length_model.distribution import LengthPrediction
from suffice.budget.length_model.model import LengthModel
from suffice.deprecated import renamed

__all__ = ["LengthKey", "LengthModel", "LengthPrediction"]

__getattr__ = renamed(__name__, {"Asked": "LengthKey"})

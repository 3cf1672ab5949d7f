"""How long an answer will be, and how long it may be: length constraints, predictions, and the limits of policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suffice.budget.budgeter import Budgeter
from suffice.budget.expectation import Expectation, LengthEstimator, LengthQuery
from suffice.budget.settings import packaged_settings
from suffice.budget.types import Budget, EngineInfo, Limits, RequestInfo, Tier
from suffice.deprecated import renamed, warn_deprecated
from suffice.token_ratios import TextRatios, estimate_tokens

if TYPE_CHECKING:
    from suffice.budget.length_model import LengthModel, LengthPrediction

__all__ = [
    "Budget",
    "Budgeter",
    "EngineInfo",
    "Expectation",
    "LengthEstimator",
    "LengthModel",
    "LengthPrediction",
    "LengthQuery",
    "Limits",
    "RequestInfo",
    "TextRatios",
    "Tier",
    "estimate_tokens",
]

_renamed = renamed(__name__, {"Question": "LengthQuery"})


def __getattr__(name: str) -> Any:
    """`LengthModel` and what it predicts, imported when first used, because they need numpy; and old names."""
    if name in ("LengthModel", "LengthPrediction"):
        from suffice.budget import length_model

        return getattr(length_model, name)
    if name == "DEFAULT_TIERS":
        warn_deprecated(f"{__name__}.{name}", f"{__name__}.Budgeter.load().tiers")
        return packaged_settings().tiers
    if name == "LengthEstimate":
        from suffice.budget.expectation import LengthEstimate

        warn_deprecated(f"{__name__}.{name}", f"{__name__}.Expectation")
        return LengthEstimate
    return _renamed(name)

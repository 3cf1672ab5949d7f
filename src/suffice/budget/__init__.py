"""How long should this answer be? Wishes in the prompt, keywords, the model's default; then the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from suffice.budget.budgeter import Budgeter
from suffice.budget.types import (
    DEFAULT_TIERS,
    Budget,
    EngineInfo,
    LengthEstimate,
    LengthEstimator,
    Limits,
    Question,
    RequestInfo,
    Tier,
)
from suffice.token_ratios import TextRatios, estimate_tokens

if TYPE_CHECKING:
    from suffice.budget.length_model import LengthModel, LengthPrediction

__all__ = [
    "DEFAULT_TIERS",
    "Budget",
    "Budgeter",
    "EngineInfo",
    "LengthEstimate",
    "LengthEstimator",
    "LengthModel",
    "LengthPrediction",
    "Limits",
    "Question",
    "RequestInfo",
    "TextRatios",
    "Tier",
    "estimate_tokens",
]


def __getattr__(name: str) -> Any:
    """`LengthModel` and what it predicts, imported when first used: they need numpy."""
    if name in ("LengthModel", "LengthPrediction"):
        from suffice.budget import length_model

        return getattr(length_model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

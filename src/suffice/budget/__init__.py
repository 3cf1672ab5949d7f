"""How long should this answer be? Wishes in the prompt, keywords, the model's default; then the limits."""

from __future__ import annotations

from suffice.budget.budgeter import Budgeter
from suffice.budget.ratios import TextRatios, estimate_tokens
from suffice.budget.types import (
    DEFAULT_TIERS,
    Budget,
    LengthEstimate,
    LengthEstimator,
    Question,
    Tier,
)

__all__ = [
    "DEFAULT_TIERS",
    "Budget",
    "Budgeter",
    "LengthEstimate",
    "LengthEstimator",
    "Question",
    "TextRatios",
    "Tier",
    "estimate_tokens",
]

"""The words of this room: a budget, a tier, a question, and what an estimator answers to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from suffice.deprecated import warn_deprecated
from suffice.immutable import immutable
from suffice.token_ratios import TextRatios

if TYPE_CHECKING:
    from suffice.budget.length_model import LengthKey

__all__ = [
    "DEFAULT_TIERS",
    "Bound",
    "Budget",
    "EngineInfo",
    "LengthConstraint",
    "LengthEstimate",
    "LengthEstimator",
    "LimitedBy",
    "Limits",
    "Preset",
    "Quantiles",
    "Question",
    "RequestInfo",
    "Tier",
    "Unit",
]

LimitedBy = Literal["auto", "caller", "tier", "context", "model"]
Quantiles = tuple[tuple[float, int], ...]
Unit = Literal["word", "hanzi", "character", "sentence", "paragraph", "item", "piece", "page", "line"]
Bound = Literal["about", "at least", "at most"]

_UNIT_NAMES: dict[Unit, str] = {
    "word": "word",
    "hanzi": "character",
    "character": "character",
    "sentence": "sentence",
    "paragraph": "paragraph",
    "item": "point",
    "piece": "text",
    "page": "page",
    "line": "line",
}

_RESERVED = 0.9  # a tenth of the answers has to go on; a higher quantile sets much more aside for few of them

_Z = ((0.5, 0.0), (0.9, 1.2816), (0.95, 1.6449), (0.99, 2.3263))  # standard normal quantiles


@dataclass(frozen=True, slots=True)
class Tier:
    """A named class of service."""

    name: str
    max_new_tokens: int
    """The most tokens one answer may have."""
    needs_key: bool = False
    """Whether only a caller whose key permits it may use this tier."""
    priority: int = 0
    """Its class in a queue: lower goes first."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A name for what a kind of answer usually wants: a tier's cap, and the sampling that goes with it."""

    name: str
    tier: str
    temperature: float
    top_p: float


DEFAULT_TIERS: Mapping[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier("short", 128, priority=0),
        Tier("standard", 512, priority=1),
        Tier("long", 1024, priority=2),
        Tier("unlimited", 2048, needs_key=True, priority=3),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long an answer may be, as its caller says."""

    max_new_tokens: int | Literal["auto"] = "auto"
    """The most tokens that the answer may have; `auto` lets the budgeter decide."""
    max_length: int | None = None
    """The most tokens that prompt and answer may have together."""
    tier: str | None = None
    """Name of the caller's class of service, whose cap is never exceeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """Who asks and how: what the length model may use beside the prompt."""

    client: str | None = None
    """Whatever tells one caller from another."""
    route: str | None = None
    """Where it was asked: a path, a command, an application."""
    response_format: object = None
    """OpenAI's field of that name."""
    temperature: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says of its model and of this prompt; None for what it cannot say."""

    model: str | None = None
    """Name of the model that will answer."""
    context_tokens: int | None = None
    """The most tokens that prompt and answer may have together."""
    default_max_new_tokens: int | None = None
    """`max_new_tokens` of the model's `generation_config.json`."""
    ratios: TextRatios | None = None
    """Tokens per word and character of the model's tokenizer; Qwen2's where it is None."""
    prompt_tokens: int | None = None
    """Tokens in the prompt, template included; estimated where it is None."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The decision for one request: a cap, what is expected, and why."""

    max_new_tokens: int
    """The cap: the most tokens the answer may have, the prompt not counted."""
    expected_tokens: int
    """The median of the predicted length in tokens, never above the cap."""
    quantiles: Quantiles
    """(p, tokens) for p = 0.5, 0.9, 0.95, 0.99, ascending, never above the cap."""
    limited_by: LimitedBy
    """What set the cap: the `caller`'s number, the `tier`, the `context` (or `max_length`), the `model`'s default, or
    what the prompt asks for where that needs more than the default (`auto`)."""
    reasons: tuple[str, ...]
    """How the cap came about, step by step, each a short sentence for a person."""
    clamped_from: int | None = None
    """What the caller asked for, when a limit reduced it."""
    prompt_tokens: int | None = None
    """Tokens in the prompt; an estimate when the reasons say so."""
    context_left: int | None = field(default=None, repr=False, compare=False)
    """Tokens that `max_length` and the model's context leave beside the prompt; None without such a limit."""
    length_key: LengthKey | None = field(default=None, repr=False, compare=False)
    """What the length model needs to learn from the answer (`LengthModel.learn`); None without one."""

    @property
    def asked(self) -> LengthKey | None:
        """Deprecated: `length_key`."""
        warn_deprecated("Budget.asked", "Budget.length_key")
        return self.length_key

    @property
    def reservation(self) -> int:
        """Tokens to set aside at first: what 9 of 10 such answers do not exceed, and never above the cap."""
        enough = (tokens for p, tokens in self.quantiles if p >= _RESERVED)
        return max(1, min(next(enough, self.max_new_tokens), self.max_new_tokens))

    def to_dict(self) -> dict[str, Any]:
        """The budget as JSON can hold it; quantiles are named `p50`, `p90`, `p95`, `p99`."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "expected_tokens": self.expected_tokens,
            "quantiles": {f"p{round(p * 100)}": tokens for p, tokens in self.quantiles},
            "reservation": self.reservation,
            "limited_by": self.limited_by,
            "reasons": list(self.reasons),
            "clamped_from": self.clamped_from,
            "prompt_tokens": self.prompt_tokens,
        }


@immutable
class Question:
    """What an estimator may look at."""

    text: str
    """The last user message (or the raw prompt)."""
    system: str
    """The system prompt; '' without one."""
    instructions: str
    """The parts of `text` in which its author says what to do, without quotes, code and pasted text."""
    system_instructions: str
    """The same of `system`."""
    ratios: TextRatios
    """Tokens per word, character, sentence ... for this model's tokenizer."""
    model_default: int | None
    """`max_new_tokens` of the model's `generation_config.json`."""
    prompt_tokens: int
    """Tokens in the whole prompt, perhaps estimated."""
    conversation: tuple[Mapping[str, Any], ...] = ()
    """All messages; () for a raw prompt."""
    model: str | None = None
    """Name of the model that will answer."""
    client: str | None = None
    """Who asks: whatever tells one caller from another."""
    route: str | None = None
    """Where it was asked: a path, a command, an application."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else tells long answers from short ones: `tools`, `response_format`, `sampling`."""


@dataclass(frozen=True, slots=True)
class LengthConstraint:
    """One length that the prompt asks for."""

    unit: Unit
    amount: float
    """How many of the unit; the upper end of a range."""
    bound: Bound
    text: str
    """The words of the prompt that say so."""
    each: bool = False
    """It speaks of each part ("100 words each"), not of the whole answer."""

    def __str__(self) -> str:
        name = _UNIT_NAMES[self.unit] + ("" if self.amount == 1 else "s")
        prefix = "" if self.bound == "about" else f"{self.bound} "
        return f"{prefix}{self.amount:g} {name} ({' '.join(self.text.split())})"


@immutable
class LengthEstimate:
    """One estimator's answer."""

    quantiles: Quantiles
    """(p, tokens) as in `Budget`, not clipped."""
    reason: str
    """Why, in a short sentence for a person."""
    room: int = 0
    """Tokens that such an answer must be allowed to have, head-room included: a default that is smaller is raised to
    it. A larger one stays, because a guess does not end an answer."""
    guess: bool = False
    """The quantiles are a guess, and a length model's are better."""

    @classmethod
    def around(
        cls,
        median: float,
        spread: float,
        reason: str,
        room: float = 0,
        guess: bool = False,
    ) -> LengthEstimate:
        """An estimate with log-normal quantiles.

        Args:
            median: tokens that half of the answers stay below.
            spread: standard deviation of the natural logarithm of the length.
            reason: why, for a person.
            room: as the field of that name, and `guess` too.
            guess: see `room`.
        """
        quantiles = tuple((p, max(1, round(median * math.exp(spread * z)))) for p, z in _Z)
        return cls(quantiles, reason, math.ceil(room), guess)


class LengthEstimator(Protocol):
    """How long will the answer be? Estimators are asked in turn; the first that answers wins."""

    def estimate(self, question: Question) -> LengthEstimate | None:
        """The estimate, or None when this estimator has nothing to say about the question."""
        ...

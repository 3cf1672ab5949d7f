"""What goes into a budget decision, and the budget that comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from suffice.budget.length_key import LengthKey
from suffice.deprecated import warn_deprecated
from suffice.token_ratios import TextRatios

__all__ = ["Budget", "EngineInfo", "LimitedBy", "Limits", "Preset", "Quantiles", "RequestInfo", "Tier"]

LimitedBy = Literal["auto", "caller", "tier", "context", "model"]
Quantiles = tuple[tuple[float, int], ...]

_RESERVED = 0.9  # one answer in ten has to be continued; a higher quantile sets much more aside for few of them


@dataclass(frozen=True, slots=True)
class Tier:
    name: str
    max_new_tokens: int
    """The most tokens one answer may have."""
    needs_key: bool = False
    """Whether only a caller whose key permits it may use this tier."""
    priority: int = 0
    """Its class in a queue: lower goes first."""
    on_runaway: Literal["stop", "warn", "off"] | None = None
    """What the server does about answers that repeat themselves; None leaves that to the request."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A name for what a kind of answer usually wants: its limits, and the sampling that goes with them.

    None is whatever holds without the preset.
    """

    name: str
    tier: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
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
    system: str | None = None
    """The system prompt, where the prompt itself does not hold it (as in logs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What an engine says of its model and of this prompt; None for what it cannot say."""

    model: str | None = None
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

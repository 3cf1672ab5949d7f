"""What length estimators are asked, and what they answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from suffice.budget.length_constraints.constraint import LengthConstraint
from suffice.budget.length_constraints.find import find_constraints
from suffice.budget.length_key import LengthKey
from suffice.budget.types import EngineInfo, Quantiles, RequestInfo
from suffice.deprecated import warn_deprecated
from suffice.immutable import immutable
from suffice.prompt import Prompt
from suffice.token_ratios import TextRatios

__all__ = ["Expectation", "LengthEstimator", "LengthQuery", "Room"]

_QWEN2 = TextRatios()
_Z = ((0.5, 0.0), (0.9, 1.2816), (0.95, 1.6449), (0.99, 2.3263))  # standard normal quantiles


@dataclass(frozen=True)
class LengthQuery:
    """One question of length: a prompt, who asks, and which engine answers. What is found in the prompt is kept."""

    prompt: Prompt
    info: RequestInfo = field(default_factory=RequestInfo)
    engine: EngineInfo = field(default_factory=EngineInfo)
    ratios: TextRatios = _QWEN2
    """Tokens per word, character, sentence ... for this model's tokenizer."""
    prompt_tokens: int = 0
    """Tokens in the whole prompt, perhaps estimated."""

    @cached_property
    def constraints(self) -> Sequence[LengthConstraint]:
        return find_constraints(self.prompt.instructions)

    @cached_property
    def system_constraints(self) -> Sequence[LengthConstraint]:
        return find_constraints(self.prompt.system_instructions) if self.prompt.system else ()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What estimators of earlier releases read."""
            if name not in _OLD_NAMES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            new, read = _OLD_NAMES[name]
            warn_deprecated(f"LengthQuery.{name}", f"LengthQuery.{new}")
            return read(self)


_OLD_NAMES: Mapping[str, tuple[str, Callable[[LengthQuery], Any]]] = {
    "text": ("prompt.user", lambda query: query.prompt.user),
    "system": ("prompt.system", lambda query: query.prompt.system),
    "instructions": ("prompt.instructions", lambda query: query.prompt.instructions),
    "system_instructions": ("prompt.system_instructions", lambda query: query.prompt.system_instructions),
    "conversation": ("prompt.messages", lambda query: query.prompt.messages),
    "model_default": ("engine.default_max_new_tokens", lambda query: query.engine.default_max_new_tokens),
    "model": ("engine.model", lambda query: query.engine.model),
    "client": ("info.client", lambda query: query.info.client),
    "route": ("info.route", lambda query: query.info.route),
    "more": (
        "prompt.tools, info.response_format or info.temperature",
        lambda query: {
            "tools": query.prompt.tools,
            "response_format": query.info.response_format,
            "sampling": {"temperature": query.info.temperature},
        },
    ),
}


class Room(NamedTuple):
    """Tokens that an answer must be allowed to have, head-room included: a smaller default cap is raised to it."""

    tokens: int
    reason: str


@immutable
class Expectation:
    quantiles: Quantiles
    """(p, tokens) as in `Budget`, not clipped."""
    reason: str
    """Why, in a short sentence for a person."""
    room: int | None = None
    """Tokens that such an answer must be allowed to have, head-room included: a default cap that is smaller is raised
    to it, a larger one stays. None where the estimator cannot tell; then those after it are asked."""
    length_key: LengthKey | None = None
    """What the length model needs to learn from the answer, where the expectation is the model's."""

    @classmethod
    def around(cls, median: float, spread: float, reason: str, room: float | None = None) -> Expectation:
        """An expectation with log-normal quantiles; `spread` is the standard deviation of the length's logarithm."""
        quantiles = tuple([(p, max(1, round(median * math.exp(spread * z)))) for p, z in _Z])
        return cls(quantiles, reason, None if room is None else math.ceil(room))


class LengthEstimate(Expectation):
    """Deprecated: an `Expectation` with another default of `room`, and with `guess`, which leaves `room` to others."""

    def __init__(self, quantiles: Quantiles, reason: str, room: int = 0, guess: bool = False) -> None:
        super().__init__(quantiles, reason, None if guess else room)

    @classmethod
    def around(
        cls, median: float, spread: float, reason: str, room: float | None = 0, guess: bool = False
    ) -> LengthEstimate:
        found = Expectation.around(median, spread, reason, room)
        return cls(found.quantiles, reason, found.room or 0, guess)


class LengthEstimator(Protocol):
    """How long will the answer be? Estimators are asked in turn; the first that answers wins.

    One that knows how much room an answer needs even where another expects its length may have a method
    `room(query) -> Room | None` too (as `Keywords` does).
    """

    def estimate(self, query: LengthQuery, /) -> Expectation | None:
        """None when this estimator has nothing to say about the query."""
        ...

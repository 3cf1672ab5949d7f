"""The decision: estimators say what to expect; the caller, the tier, the context or a default is the cap.

A guess never ends an answer: it may raise the default cap, and lowers none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from suffice.budget.decide_keywords import DecideKeywords, with_keywords
from suffice.budget.estimators import ExplicitLength, Keywords, TextTransform, UsualLength
from suffice.budget.expected_length import Forecast, Forecaster
from suffice.budget.length_profile import LengthProfile, ProfileEstimator
from suffice.budget.settings import Settings, load_settings
from suffice.budget.types import (
    Budget,
    EngineInfo,
    LengthEstimate,
    LengthEstimator,
    LimitedBy,
    Limits,
    Question,
    RequestInfo,
    Tier,
)
from suffice.errors import PromptTooLongError, UsageError
from suffice.prompt import Prompt
from suffice.token_ratios import TextRatios, estimate_tokens

if TYPE_CHECKING:
    from suffice.budget.length_model import LengthKey

__all__ = ["Budgeter"]

_TEMPLATE_TOKENS = 5  # what a chat template adds per message, in ChatML: <|im_start|>role\n ... <|im_end|>\n


@dataclass(frozen=True, slots=True)
class Budgeter:
    """Decides how long an answer may be, and says why. Immutable; one serves all requests."""

    estimators: tuple[LengthEstimator, ...]
    """Asked in turn; the first that answers wins. The last one always answers."""
    tiers: Mapping[str, Tier]
    default_max_new_tokens: int = 2048
    """The cap of *auto* where the model has no default of its own, in tokens."""
    forecaster: Forecaster | None = None
    """The length model: what is expected where the prompt has no wish. It never touches the cap."""

    @classmethod
    def load(cls, path: Path | None = None, length_model: Path | None = None) -> Budgeter:
        """The budgeter that a settings file describes, with a length model.

        Args:
            path: a TOML file on top of the packaged `defaults.toml`; None takes the one that the environment variable
                SUFFICE_BUDGET_FILE names, if any.
            length_model: what `suffice fit` wrote; None takes what SUFFICE_LENGTH_MODEL names, else the packaged model
                (where numpy is installed).

        Raises:
            UsageError: a file cannot be read, or has a key or a value that it should not have.
        """
        return replace(cls.from_settings(load_settings(path)), forecaster=Forecaster.load(length_model))

    @classmethod
    def from_settings(cls, settings: Settings) -> Budgeter:
        """The standard estimators with these settings."""
        estimators: tuple[LengthEstimator, ...] = (
            ExplicitLength(),
            TextTransform(),
            Keywords(settings.keywords),
            UsualLength(),
        )
        return cls(estimators, settings.tiers, settings.default_max_new_tokens)

    def with_profiles(self, adapters: Iterable[str | Path]) -> Budgeter:
        """A budgeter that also knows the answer lengths that these LoRA adapters were trained on, where they say.

        Raises:
            DataError: a length profile is damaged.
        """
        budgeter = self
        for adapter in adapters:
            if (profile := LengthProfile.load(Path(adapter))) is not None:
                budgeter = budgeter.with_estimator(ProfileEstimator(profile), before=Keywords)
        return budgeter

    def with_estimator(self, estimator: LengthEstimator, *, before: type | None = None) -> Budgeter:
        """A budgeter that also asks `estimator`: first of all, or just before the first one of type `before`."""
        kinds = [type(known) for known in self.estimators]
        at = kinds.index(before) if before is not None else 0
        return replace(self, estimators=(*self.estimators[:at], estimator, *self.estimators[at:]))

    def decide(
        self,
        prompt: Prompt | str | Sequence[Mapping[str, Any]],
        limits: Limits = Limits(),  # noqa: B008
        info: RequestInfo = RequestInfo(),  # noqa: B008
        engine: EngineInfo = EngineInfo(),  # noqa: B008
        **keywords: Unpack[DecideKeywords],
    ) -> Budget:
        """Decide for one request.

        Args:
            prompt: a prompt, raw text, or a conversation as `{"role": ..., "content": ...}` messages.
            limits: what the caller allows.
            info: who asks and how.
            engine: what is known of the model that will answer, and how it counts this prompt.
            keywords: `max_new_tokens`, `max_length` and `tier` in place of `limits`; the others are deprecated.

        Raises:
            UsageError: a number that is not a positive integer, an unknown tier, or a malformed message.
            PromptTooLongError: the prompt leaves no room for an answer.
        """
        prompt = Prompt.of(prompt)
        if keywords:
            prompt, limits, info, engine = with_keywords(prompt, limits, info, engine, keywords)
        max_new_tokens, max_length, context = limits.max_new_tokens, limits.max_length, engine.context_tokens
        model_default, prompt_tokens = engine.default_max_new_tokens, engine.prompt_tokens
        for name, value in (
            ("max_length", max_length),
            ("context", context),
            ("prompt_tokens", prompt_tokens),
            ("model_default", model_default),
        ):
            if value is not None:
                _check_tokens(name, value, minimum=0 if name == "prompt_tokens" else 1)
        ratios = engine.ratios or TextRatios()
        reasons: list[str] = []
        if prompt_tokens is None:
            template = _TEMPLATE_TOKENS * (len(prompt.messages) + 1) if prompt.is_chat else 0
            prompt_tokens = estimate_tokens(prompt.text, ratios) + template
            reasons.append(f"prompt length estimated: about {prompt_tokens} tokens")
        more = {
            "tools": prompt.tools,
            "response_format": info.response_format,
            "sampling": {"temperature": info.temperature},
        }
        question = Question(
            prompt.user,
            prompt.system,
            prompt.instructions,
            prompt.system_instructions,
            ratios,
            model_default,
            prompt_tokens,
            prompt.messages,
            engine.model,
            info.client,
            info.route,
            more,
        )
        estimate = self._estimate(question)
        length_key, forecast = self._forecast(question, wanted=estimate.guess)
        reasons.append(forecast.reason if forecast is not None else estimate.reason)
        if max_new_tokens == "auto":
            cap = self._auto(estimate, model_default, reasons)
        else:
            _check_tokens("max_new_tokens", max_new_tokens, or_auto=True)
            cap = _Cap(max_new_tokens, "caller", [*reasons, f"the caller asks for {max_new_tokens}"])
        if limits.tier is not None:
            cap.clip(self._tier(limits.tier).max_new_tokens, "tier", f"tier {limits.tier}")
        left = None
        for limit, name in ((max_length, "max_length"), (context, "the model's context")):
            if limit is not None:
                if prompt_tokens >= limit:
                    raise PromptTooLongError(prompt_tokens, limit, name)
                left = min(limit - prompt_tokens, left or limit)
                cap.clip(limit - prompt_tokens, "context", f"{name} {limit} minus {prompt_tokens} prompt tokens")
        expected = forecast.quantiles if forecast is not None else estimate.quantiles
        quantiles = tuple((p, min(tokens, cap.tokens)) for p, tokens in expected)
        return Budget(
            max_new_tokens=cap.tokens,
            expected_tokens=quantiles[0][1],
            quantiles=quantiles,
            limited_by=cap.limited_by,
            reasons=tuple(cap.reasons),
            clamped_from=max_new_tokens if max_new_tokens != "auto" and cap.tokens < max_new_tokens else None,
            prompt_tokens=prompt_tokens,
            context_left=left,
            length_key=length_key,
        )

    def _estimate(self, question: Question) -> LengthEstimate:
        for estimator in self.estimators:
            estimate = estimator.estimate(question)
            if estimate is not None:
                return estimate
        raise UsageError("no estimator has an answer: the last of Budgeter.estimators must always have one")

    def _forecast(self, question: Question, *, wanted: bool) -> tuple[LengthKey | None, Forecast | None]:
        """What the length model needs to learn from the answer, and what it expects where that is wanted."""
        if self.forecaster is None:
            return None, None
        asked = self.forecaster.look(question, predicted=wanted)
        return asked, self.forecaster.expect(asked) if asked is not None and wanted else None

    def _auto(self, estimate: LengthEstimate, model_default: int | None, reasons: list[str]) -> _Cap:
        """The cap where the caller names none: the default, or the room that the answer needs where that is more."""
        default = model_default or self.default_max_new_tokens
        whose = "the model's default" if model_default else "the default"
        if estimate.room <= default:
            return _Cap(default, "model", [*reasons, f"the cap is {whose}: {default}"])
        why = [] if estimate.reason in reasons else [estimate.reason]
        raised = f"room for that raises {whose} of {default}: {estimate.room}"
        return _Cap(estimate.room, "auto", [*reasons, *why, raised])

    def _tier(self, name: str) -> Tier:
        try:
            return self.tiers[name]
        except KeyError:
            raise UsageError(f"unknown tier {name!r}; there are: {', '.join(self.tiers)}") from None


@dataclass(slots=True)
class _Cap:
    """A cap on its way through the limits."""

    tokens: int
    limited_by: LimitedBy
    reasons: list[str]

    def clip(self, limit: int, limited_by: LimitedBy, name: str) -> None:
        if limit < self.tokens:
            self.tokens, self.limited_by = limit, limited_by
            self.reasons.append(f"clipped to {name}: {limit}")


def _check_tokens(name: str, value: object, minimum: int = 1, or_auto: bool = False) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        wanted = f"a whole number of tokens >= {minimum}" + (' or "auto"' if or_auto else "")
        raise UsageError(f"{name} is {value!r}; it must be {wanted}")

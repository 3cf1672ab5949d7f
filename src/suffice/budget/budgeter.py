"""The decision: estimators say what to expect; the caller, the tier, the context or a default is the cap.

An expectation never ends an answer: it may raise the default cap, and lowers none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from suffice.budget.decide_keywords import DecideKeywords, with_keywords
from suffice.budget.estimators import ExplicitLength, Keywords, TextTransform, UsualLength
from suffice.budget.expectation import Expectation, LengthEstimator, LengthQuery, Room
from suffice.budget.learned_length import LearnedLength
from suffice.budget.length_key import LengthKey
from suffice.budget.length_profile import LengthProfile, ProfileEstimator
from suffice.budget.settings import Settings, load_settings
from suffice.budget.types import Budget, EngineInfo, LimitedBy, Limits, RequestInfo, Tier
from suffice.deprecated import warn_deprecated
from suffice.errors import PromptTooLongError, UsageError
from suffice.nearest import did_you_mean
from suffice.prompt import Prompt
from suffice.token_ratios import TextRatios, estimate_prompt_tokens

__all__ = ["Budgeter"]

_GUESSES = (Keywords, UsualLength)  # before which a length model is asked: it knows better
_QWEN2 = TextRatios()
_NO_LIMITS, _NO_INFO, _NO_ENGINE = Limits(), RequestInfo(), EngineInfo()


@dataclass(frozen=True, slots=True)
class Budgeter:
    """Decides how long an answer may be, and says why. Immutable; one serves all requests."""

    estimators: tuple[LengthEstimator, ...]
    """Asked in turn; the first that answers wins. The last one always answers."""
    tiers: Mapping[str, Tier]
    default_max_new_tokens: int = 2048
    """The cap of *auto* where the model has no default of its own, in tokens."""

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
        return cls.from_settings(load_settings(path)).with_length_model(LearnedLength.load(length_model))

    @classmethod
    def from_settings(cls, settings: Settings) -> Budgeter:
        """The estimators that these settings name and the standard ones, without a length model."""
        standard = (ExplicitLength(), TextTransform(), Keywords(settings.keywords), UsualLength())
        return cls((*settings.first_estimators, *standard), settings.tiers, settings.default_max_new_tokens)

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
        """A budgeter that also asks `estimator`: first of all, or just before the first one of type `before` (and
        before the length model, which stands in front of the keywords)."""
        kinds = [type(known) for known in self.estimators]
        at = kinds.index(before) if before is not None else 0
        if at and isinstance(self.estimators[at - 1], LearnedLength):
            at -= 1
        return replace(self, estimators=(*self.estimators[:at], estimator, *self.estimators[at:]))

    def with_length_model(self, learned: LearnedLength | None) -> Budgeter:
        """A budgeter with this length model in the place of its own; None for one without."""
        others = [each for each in self.estimators if not isinstance(each, LearnedLength)]
        if learned is not None:
            at = next((at for at, each in enumerate(others) if isinstance(each, _GUESSES)), len(others))
            others.insert(at, learned)
        return replace(self, estimators=tuple(others))

    @property
    def learned_length(self) -> LearnedLength | None:
        return next((each for each in self.estimators if isinstance(each, LearnedLength)), None)

    @property
    def forecaster(self) -> LearnedLength | None:
        """Deprecated: `learned_length`."""
        warn_deprecated("Budgeter.forecaster", "Budgeter.learned_length")
        return self.learned_length

    def decide(
        self,
        prompt: Prompt | str | Sequence[Mapping[str, Any]],
        limits: Limits = _NO_LIMITS,
        info: RequestInfo = _NO_INFO,
        engine: EngineInfo = _NO_ENGINE,
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
        _check(limits, engine)
        query, reasons = self._query(prompt, info, engine)
        others = iter(self.estimators)
        expectation = self._expect(query, others)
        reasons.append(expectation.reason)
        asked = limits.max_new_tokens
        if asked == "auto":
            cap = self._default_cap(query, expectation, others, reasons)
        else:
            reasons.append(f"the caller asks for {asked}")
            cap = _Cap(asked, "caller", reasons)
        if limits.tier is not None:
            cap.clip(self._tier(limits.tier).max_new_tokens, "tier", f"tier {limits.tier}")
        context_left = cap.clip_to_context(query.prompt_tokens, limits.max_length, engine.context_tokens)
        return Budget(
            max_new_tokens=cap.tokens,
            expected_tokens=min(expectation.quantiles[0][1], cap.tokens),
            quantiles=tuple([(p, min(tokens, cap.tokens)) for p, tokens in expectation.quantiles]),
            limited_by=cap.limited_by,
            reasons=tuple(reasons),
            clamped_from=asked if asked != "auto" and cap.tokens < asked else None,
            prompt_tokens=query.prompt_tokens,
            context_left=context_left,
            length_key=self._length_key(query, expectation),
        )

    def _query(self, prompt: Prompt, info: RequestInfo, engine: EngineInfo) -> tuple[LengthQuery, list[str]]:
        """What the estimators are asked; and the reasons, of which the first says that the prompt was not counted."""
        ratios, tokens, reasons = engine.ratios or _QWEN2, engine.prompt_tokens, []
        if tokens is None:
            tokens = estimate_prompt_tokens(prompt, ratios)
            reasons.append(f"prompt length estimated: about {tokens} tokens")
        return LengthQuery(prompt, info, engine, ratios, tokens), reasons

    def _expect(self, query: LengthQuery, estimators: Iterator[LengthEstimator]) -> Expectation:
        """The first answer; `estimators` is left at those that were not asked."""
        for estimator in estimators:
            if (expectation := estimator.estimate(query)) is not None:
                return expectation
        raise UsageError("no estimator has an answer: the last of Budgeter.estimators must always have one")

    def _default_cap(
        self, query: LengthQuery, expectation: Expectation, others: Iterator[LengthEstimator], reasons: list[str]
    ) -> _Cap:
        """The cap where the caller names none: the default, or the room that the answer needs where that is more."""
        own = query.engine.default_max_new_tokens
        default, whose = (own, "the model's default") if own else (self.default_max_new_tokens, "the default")
        room = _room(query, expectation, others)
        if room is None or room.tokens <= default:
            reasons.append(f"the cap is {whose}: {default}")
            return _Cap(default, "model", reasons)
        if room.reason not in reasons:
            reasons.append(room.reason)
        reasons.append(f"room for that raises {whose} of {default}: {room.tokens}")
        return _Cap(room.tokens, "auto", reasons)

    def _length_key(self, query: LengthQuery, expectation: Expectation) -> LengthKey | None:
        if expectation.length_key is not None or (learned := self.learned_length) is None:
            return expectation.length_key
        return learned.unpredicted_key(query)

    def _tier(self, name: str) -> Tier:
        try:
            return self.tiers[name]
        except KeyError:
            known = ", ".join(self.tiers) + did_you_mean(name, self.tiers)
            raise UsageError(f"unknown tier {name!r}; there are: {known}") from None


def _room(query: LengthQuery, expectation: Expectation, others: Iterator[LengthEstimator]) -> Room | None:
    """The room that the answer needs: the expectation's own, or what the first of the others says that can tell."""
    if expectation.room is not None:
        return Room(expectation.room, expectation.reason)
    ask = (each.room for each in others if hasattr(each, "room"))
    return next((room for room_of in ask if (room := room_of(query)) is not None), None)


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

    def clip_to_context(self, prompt_tokens: int, max_length: int | None, context: int | None) -> int | None:
        """Clip to what `max_length` and the model's context leave beside the prompt; that number, None without them.

        Raises:
            PromptTooLongError: they leave nothing.
        """
        left = []
        for limit, name in ((max_length, "max_length"), (context, "the model's context")):
            if limit is not None:
                if prompt_tokens >= limit:
                    raise PromptTooLongError(prompt_tokens, limit, name)
                left.append(limit - prompt_tokens)
                self.clip(left[-1], "context", f"{name} {limit} minus {prompt_tokens} prompt tokens")
        return min(left, default=None)


def _check(limits: Limits, engine: EngineInfo) -> None:
    asked = limits.max_new_tokens
    if asked != "auto" and (not isinstance(asked, int) or isinstance(asked, bool) or asked < 1):
        raise UsageError(f'max_new_tokens is {asked!r}; it must be a whole number of tokens >= 1 or "auto"')
    _check_tokens("max_length", limits.max_length)
    _check_tokens("context", engine.context_tokens)
    _check_tokens("model_default", engine.default_max_new_tokens)
    _check_tokens("prompt_tokens", engine.prompt_tokens, least=0)


def _check_tokens(name: str, value: object, least: int = 1) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UsageError(f"{name} is {value!r}; it must be a whole number of tokens >= {least}")

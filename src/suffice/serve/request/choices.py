"""The answers to one request, as far as they have come. Knows nothing about HTTP or the shapes of APIs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

from suffice.budget import Budget
from suffice.budget.types import Tier
from suffice.engines.base import Finish, Usage
from suffice.serve.limits.admission import Slot
from suffice.serve.request.api_request import ApiRequest
from suffice.session import AnswerBuilder, Event, Request, Restarted, Text, Thinking, ToolCallPiece

__all__ = ["Choice", "Choices"]

_PIECES = (Text, Thinking, ToolCallPiece)
_FAILED = ("error", "cancelled")
_LIKELY_MOST = 0.9  # the quantile of the predicted length that is charged to a key's limits up front


@dataclass(slots=True, kw_only=True)
class Choice(AnswerBuilder):
    """One answer (`choice` is OpenAI's word), made of the events of one session stream."""

    index: int
    request: Request
    budget: Budget
    frame: tuple[bytes, bytes] | None = None
    """What stands before and after a piece of its text in a stream."""
    offset: int = 0
    """Characters of text whose log-probabilities have been written."""

    @property
    def end(self) -> tuple[str, str]:
        """Why it ended and what ended it; one without an end counts as cancelled."""
        return (self.finish.reason, self.finish.by) if self.finish is not None else ("cancelled", "")


@dataclass(slots=True, eq=False, kw_only=True)
class Choices(Slot):
    """All answers to one request, with its place among those that wait and run."""

    id: str
    """Of the response."""
    api: ApiRequest
    model: str
    tier: str
    priority: int
    """The tier's: lower goes first."""
    budgets: tuple[Budget, ...]
    """One for each prompt."""
    answers: tuple[Choice, ...]
    """`n` to each prompt, in their order."""
    charge_tokens: int
    """Tokens of all answers that are charged to the caller's limits."""
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, response_id: str, api: ApiRequest, model: str, tier: Tier, budgets: tuple[Budget, ...]) -> Self:
        n, requests = api.n, api.requests()
        likely_most = [dict(each.quantiles).get(_LIKELY_MOST, each.expected_tokens) for each in budgets]
        return cls(
            prompt_tokens=sum([each.prompt_tokens or 0 for each in budgets]),
            expected_tokens=n * sum([each.expected_tokens for each in budgets]),
            charge_tokens=n * sum(likely_most),
            id=response_id,
            api=api,
            model=model,
            tier=tier.name,
            priority=tier.priority,
            budgets=budgets,
            answers=tuple([Choice(index=i, request=each, budget=budgets[i // n]) for i, each in enumerate(requests)]),
        )

    @property
    def budget(self) -> Budget:
        """That of the first prompt."""
        return self.budgets[0]

    @property
    def finish(self) -> Finish | None:
        """Why the request ended: one that failed, looped or was cut counts for all; None while one is under way."""
        if len(self.answers) == 1:
            return self.answers[0].finish
        finishes = [answer.finish for answer in self.answers]
        for reason in _FAILED:
            if found := next((each for each in finishes if each and each.reason == reason), None):
                return found
        if None in finishes:
            return None
        cut = [each for each in finishes if each and each.reason == "length"]
        return next((each for each in cut if each.looped), cut[0] if cut else finishes[0])

    @property
    def failed(self) -> bool:
        """Whether the engine ended an answer, or left it without an end."""
        finish = self.finish
        return finish is None or finish.reason in _FAILED

    @property
    def first_piece(self) -> float | None:
        """`time.perf_counter()` of the first piece of any answer."""
        return min([each.first_piece for each in self.answers if each.first_piece is not None], default=None)

    @property
    def usage(self) -> Usage:
        """Tokens of all answers, and each prompt's once; pieces count while the engine has not said."""
        n = self.api.n
        prompt = sum([_prompt_tokens(self.answers[i * n : (i + 1) * n]) for i in range(len(self.budgets))])
        known = [each.usage for each in self.answers if each.usage is not None]
        return Usage(
            prompt_tokens=prompt,
            answer_tokens=sum([each.tokens for each in self.answers]),
            exact=len(known) == len(self.answers) and all(each.exact for each in known),
            thinking_tokens=sum([each.thinking_tokens for each in known]),
        )

    def add(self, choice: Choice, event: Event) -> bool:
        """Take the next event of one answer, and count it; whether it is a piece of that answer."""
        choice.add(event)
        if isinstance(event, _PIECES):
            self.generated += 1
            return True
        if isinstance(event, (Usage, Restarted)):
            self.generated = sum([each.tokens for each in self.answers])
        return False


def _prompt_tokens(answers: tuple[Choice, ...]) -> int:
    """Of the prompt that these answer: as the engine said of one of them, else as the budget counted."""
    said = (each.usage.prompt_tokens for each in answers if each.usage is not None)
    return next(said, answers[0].budget.prompt_tokens or 0)

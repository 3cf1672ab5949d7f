"""How much of what is generated may be thinking, and how much answer."""

from __future__ import annotations

from suffice.budget import Budget
from suffice.immutable import immutable
from suffice.session.request import Request

__all__ = ["ThinkingSplit"]

_ANSWER_SHARE = 4  # without a budget of its own, thinking leaves the answer at least one part in this many of the cap


@immutable
class ThinkingSplit:
    """The thinking of one answer, in tokens."""

    thinking: int
    """Thinking that is longer is closed, so that the answer is written."""
    on_top: int = 0
    """What may be generated beyond the budget, because thinking has one of its own."""

    @classmethod
    def plan(cls, request: Request, budget: Budget) -> ThinkingSplit:
        """Share out a budget.

        With `max_thinking_tokens`, thinking comes on top of the budget as far as the context has room, and no more than
        half of that room goes to it where both do not fit. Without, thinking counts as part of the budget and is closed
        when a quarter of it is left.
        """
        answer = budget.max_new_tokens
        if request.max_thinking_tokens is None:
            return cls(answer - max(1, answer // _ANSWER_SHARE))
        total = answer + request.max_thinking_tokens
        if budget.context_left is not None:
            total = min(total, budget.context_left)
        return cls(min(request.max_thinking_tokens, total - min(answer, (total + 1) // 2)), total - answer)

"""How much of a conversation has to go so that the rest fits into the context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from suffice.cli.infer.chat.dialogue import Dialogue

__all__ = ["Shortening"]

_PROMPT_SHARE = 3 / 4
"""Of the context, for what is kept: with less room for the answer, the next message would meet the same question."""


@dataclass(frozen=True, slots=True)
class Shortening:
    """The fewest of the oldest turns without which the last one can be answered."""

    turns: int
    tokens: int
    """What they take."""
    whole: int
    """Tokens of the conversation with them."""
    shorter: Dialogue

    @classmethod
    def of(cls, asked: Dialogue, limit: int, count: Callable[[Dialogue], int]) -> Shortening | None:
        """None where the last turn alone (with the system prompt) fills the context.

        Args:
            asked: the conversation, with what is to be answered.
            limit: tokens of the context.
            count: tokens of a conversation.
        """
        most = asked.turns - 1
        if most < 1:
            return None
        fits = bisect_left(range(1, most), True, key=lambda n: count(asked.without_oldest(n)) <= limit * _PROMPT_SHARE)
        shorter = asked.without_oldest(fits + 1)
        left = count(shorter)
        if left >= limit:
            return None
        whole = count(asked)
        return cls(fits + 1, whole - left, whole, shorter)

"""Progress of one answer: what is expected to come, and how fast it comes."""

from __future__ import annotations

import time
from collections.abc import Iterator

from suffice.budget import Budget
from suffice.session.events import Progress
from suffice.session.request import Request
from suffice.watch.remaining_length import RemainingLength

__all__ = ["ProgressMeter"]

_EVERY = 16  # tokens between two events


class ProgressMeter:
    """Tells how far an answer is, every 16 tokens."""

    def __init__(self, request: Request, budget: Budget) -> None:
        self._remaining = RemainingLength(budget.quantiles, budget.max_new_tokens, request.prompt.user)
        self._first = 0.0
        self._told = 0

    def read(self, text: str, tokens: int, thinking: bool) -> Iterator[Progress]:
        """Take a piece of the answer, with the count of all tokens so far."""
        self._first = self._first or time.perf_counter()
        self._remaining.push(text, tokens, thinking=thinking)
        if tokens - self._told >= _EVERY:
            self._told = tokens
            seconds = time.perf_counter() - self._first
            yield Progress(tokens, self._remaining.tokens, (tokens - 1) / seconds if seconds > 0 else 0.0)

"""What an engine's chunks mean to whoever reads the answer: text without stop words, and why it ended."""

from __future__ import annotations

from collections.abc import Iterator

from suffice.budget import Budget
from suffice.engines.base import Chunk, Finish, Usage
from suffice.session.events import Event, Text
from suffice.session.request import Request
from suffice.watch import StopWords

__all__ = ["Reader"]


class Reader:
    """Reads one answer.

    Args:
        request: what was asked for.
        budget: what was decided.
    """

    def __init__(self, request: Request, budget: Budget) -> None:
        self.finish: Finish | None = None
        """Why the answer is over, once it is."""
        self._budget = budget
        self._stop_words = StopWords(request.stop_words, keep=request.keep_stop_words)

    def read(self, chunk: Chunk) -> Iterator[Event]:
        """The events in a chunk; look at `finish` after."""
        match = self._stop_words.push(chunk.text)
        if match.text:
            yield Text(match.text)
        if match.word is not None:
            self.finish = Finish("stop", "stop_word", match.word)
        else:
            self.finish = chunk.finish

    def fail(self, error: str) -> None:
        """The engine failed."""
        self.finish = Finish("error", "engine", error)

    def end(self, usage: Usage) -> Iterator[Event]:
        """What was held back, and the last two events."""
        finish = self.finish or Finish("error", "engine", "the engine ended the answer without saying why")
        if finish.by != "stop_word" and (rest := self._stop_words.flush()):
            yield Text(rest)
        yield usage
        yield self._with_limit(finish)

    def _with_limit(self, finish: Finish) -> Finish:
        """An engine knows its own limits (context, memory); whose limit the cap was, the budget knows."""
        if finish.reason != "length" or finish.by in ("context", "memory", "reservation"):
            return finish
        return Finish("length", self._budget.limited_by, f"{self._budget.max_new_tokens} tokens")

"""What there is of one answer: its text, its tokens where they are known, and what it took."""

from __future__ import annotations

from dataclasses import replace

from suffice.engines.base import AnswerPrefix, Chunk, Usage

__all__ = ["AnswerSoFar"]


class AnswerSoFar:
    """Gathers the chunks of an answer over all its segments; `prompt_tokens` counts where the engine says nothing."""

    def __init__(self, prompt_tokens: int) -> None:
        self._pieces: list[str] = []
        self._ids: list[int] = []
        self._prompt_ids: tuple[int, ...] = ()
        self._ids_known = True
        self._reasoned = False
        self._before = Usage(prompt_tokens, 0)
        self._said: Usage | None = None
        self._prompt_tokens = prompt_tokens  # of this segment, as the others below
        self._tokens = self._thinking_tokens = 0
        self._exact = True

    def add(self, chunk: Chunk) -> None:
        self._pieces.append(chunk.text)
        self._ids += chunk.token_ids
        self._prompt_ids = self._prompt_ids or chunk.prompt_ids
        self._reasoned = self._reasoned or bool(chunk.reasoning)
        if tokens := chunk.tokens:
            if not chunk.token_ids:
                self._ids_known = self._exact = False
            self._tokens += tokens
            self._thinking_tokens += tokens if chunk.reasoning else 0
        self._said = chunk.usage or self._said

    def prefix(self) -> AnswerPrefix:
        """All of it, for an engine to continue."""
        known = self._ids_known
        ids, prompt_ids = (tuple(self._ids), self._prompt_ids) if known else ((), ())
        return AnswerPrefix("".join(self._pieces), ids, prompt_ids, self._reasoned)

    def next_segment(self, prefix: AnswerPrefix, then: str = "") -> None:
        """A segment begins behind `prefix`, which ends with `then`; tokens that are written again count once."""
        again = len(self._ids) - len(prefix.token_ids) if self._ids_known and prefix.token_ids and not then else 0
        self._before = self.usage
        if again > 0:
            self._before = replace(self._before, answer_tokens=self._before.answer_tokens - again)
        if prefix.token_ids and self._ids_known:
            self._ids = list(prefix.token_ids)
        self._pieces.append(then)
        self._said, self._prompt_tokens, self._tokens, self._thinking_tokens, self._exact = None, 0, 0, 0, True

    @property
    def usage(self) -> Usage:
        """Tokens of all segments so far: what the engine says, else what arrived."""
        counted = Usage(self._prompt_tokens, self._tokens, self._exact, self._thinking_tokens)
        before, now = self._before, self._said or counted
        return Usage(
            before.prompt_tokens if before.answer_tokens else now.prompt_tokens or before.prompt_tokens,
            before.answer_tokens + now.answer_tokens,
            before.exact and now.exact,
            before.thinking_tokens + now.thinking_tokens,
        )

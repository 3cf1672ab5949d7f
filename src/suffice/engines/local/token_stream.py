"""One answer on its way from the generation thread to its reader."""

from __future__ import annotations

import asyncio
from typing import Any

from suffice.engines.base import Chunk, Finish, GenerationRequest, Usage
from suffice.engines.local.logprobs import LogprobRecorder
from suffice.errors import EngineError
from suffice.watch.streaming_text import IncrementalDecoder

__all__ = ["AnswerStream"]


class AnswerStream:
    """Tokens in, chunks out. Lives in the event loop; only `next` waits.

    Args:
        request: what was asked for.
        decoder: turns tokens into text.
        prompt_tokens: length of the prompt.
        end_tokens: tokens that end the answer, and what to say when one does.
        at_limit: the finish of an answer that no end token ends.
    """

    def __init__(
        self,
        request: GenerationRequest,
        decoder: IncrementalDecoder,
        prompt_tokens: int,
        end_tokens: dict[int, Finish],
        at_limit: Finish,
    ) -> None:
        self.request = request
        self.running = True  # the manager is still working on it
        self.recorder: LogprobRecorder | None = None  # how likely the tokens are, where that is wanted
        self._decoder, self._end_tokens, self._at_limit = decoder, end_tokens, at_limit
        self._prompt_tokens = prompt_tokens
        self._received = 0
        self._waiting: list[int] = []
        self._read = 0
        self._finish: Finish | None = None
        self._error: str | None = None
        self._news = asyncio.Event()

    def receive(self, output: Any) -> None:
        """Take an output of the manager, which holds the whole answer so far."""
        if not self.running:
            return
        if output.error is not None:
            self.fail(output.error)
            return
        tokens = output.generated_tokens
        self._waiting += tokens[self._received :]
        self._received = len(tokens)
        if output.is_finished():
            self.running = False
            self._finish = self._end_tokens.get(tokens[-1]) or self._at_limit
        self._news.set()

    def end(self, finish: Finish) -> None:
        """Finish for a reason that the manager does not know: it has to be told."""
        if self.running:
            self.running = False
            self._finish = finish
            self._news.set()

    def fail(self, error: str) -> None:
        """Raise at the reader, after what has come so far."""
        if self.running:
            self.running = False
            self._error = error
            self._news.set()

    async def next(self) -> Chunk:
        """Wait for tokens, and take all that have come.

        Raises:
            EngineError: generation failed.
        """
        await self._news.wait()
        tokens, self._waiting = tuple(self._waiting), []
        if self._error is not None and not tokens:
            raise EngineError(f"generation failed: {self._error}")
        if self._error is None:
            self._news.clear()
        pieces = ["" if token in self._end_tokens else self._decoder.push(token) for token in tokens]
        text, lengths = "".join(pieces), tuple(map(len, pieces))
        logprobs = () if self.recorder is None else self.recorder.of(tokens, self._read)
        self._read += len(tokens)
        if self._finish is None:
            return Chunk(text, tokens, lengths, logprobs=logprobs)
        usage = Usage(self._prompt_tokens, self._received)
        text += self._decoder.flush()
        return Chunk(text, tokens, lengths, logprobs=logprobs, finish=self._finish, usage=usage)

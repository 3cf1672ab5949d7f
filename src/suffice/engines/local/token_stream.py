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
        recorder: LogprobRecorder | None = None,
    ) -> None:
        self.request = request
        self.running = True  # the manager is still working on it
        self._decoder, self._end_tokens, self._at_limit, self._recorder = decoder, end_tokens, at_limit, recorder
        self._prompt_tokens = prompt_tokens
        self._received = 0
        self._waiting: list[int] = []
        self._read = 0
        self._ended: Finish | str | None = None  # by a finish or an error
        self._news = asyncio.Event()

    def receive(self, output: Any) -> None:
        """Take an output of the manager, which holds the whole answer so far."""
        if not self.running:
            return
        if output.error is not None:
            self.end(output.error)
            return
        tokens = output.generated_tokens
        self._waiting += tokens[self._received :]
        self._received = len(tokens)
        if output.is_finished():
            self.end(self._end_tokens.get(tokens[-1]) or self._at_limit)
        self._news.set()

    def end(self, how: Finish | str) -> None:
        """No more tokens will come: the answer is over, or an error is raised at the reader behind what has come."""
        if self.running:
            self.running, self._ended = False, how
            self._news.set()

    async def next(self) -> Chunk:
        """Wait for tokens, and take all that have come.

        Raises:
            EngineError: generation failed.
        """
        await self._news.wait()
        tokens, self._waiting = tuple(self._waiting), []
        if not isinstance(self._ended, str):
            self._news.clear()
        elif not tokens:
            raise EngineError(f"generation failed: {self._ended}")
        pieces = ["" if token in self._end_tokens else self._decoder.push(token) for token in tokens]
        text, lengths = "".join(pieces), tuple(map(len, pieces))
        logprobs = () if self._recorder is None else self._recorder.of(tokens, self._read)
        self._read += len(tokens)
        if not isinstance(self._ended, Finish):
            return Chunk(text, tokens, lengths, logprobs=logprobs)
        usage = Usage(self._prompt_tokens, self._received)
        text += self._decoder.flush()
        return Chunk(text, tokens, lengths, logprobs=logprobs, finish=self._ended, usage=usage)

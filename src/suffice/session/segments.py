"""One answer from as many runs of an engine as it takes: what a reservation ended is gone on with, unnoticed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from suffice.engines.base import Chunk, Engine, Finish, GenerationRequest, Usage
from suffice.errors import CannotContinueError, PromptTooLongError
from suffice.session.answer_so_far import AnswerSoFar
from suffice.watch import TextJoiner

__all__ = ["Legs", "may_continue"]

# fmt: off
_NOT_CONTINUED = frozenset({
    "tools", "tool_choice", "functions", "function_call", "response_format", "structured_outputs", "guided_json",
    "guided_regex", "guided_choice", "guided_grammar", "json_schema", "grammar", "regex", "ebnf", "logprobs",
    "top_logprobs", "prompt_logprobs", "echo", "presence_penalty", "frequency_penalty", "min_tokens", "n", "best_of",
})
# fmt: on
"""Fields whose meaning a second request would change: a grammar would begin anew, penalties would forget the answer so
far, and half a tool call is none."""


def may_continue(request: GenerationRequest) -> bool:
    """Whether going on with an answer in a second request can give what one request would give."""
    return not (request.prompt.tools or request.logprobs is not None or _NOT_CONTINUED & request.extra.keys())


class Legs:
    """The runs of one answer. On an engine that grows reservations by itself it is one.

    Args:
        engine: who generates.
        request: the whole answer, with its cap and its first reservation.
        prompt_tokens: length of the prompt, for where the engine does not say.
    """

    def __init__(self, engine: Engine, request: GenerationRequest, prompt_tokens: int = 0) -> None:
        self._engine = engine
        self._request = request
        self._written = AnswerSoFar(prompt_tokens)
        self._seam = TextJoiner()
        self._turn: GenerationRequest | None = None
        self._run = request
        self._inside = False  # the next run begins inside thinking that the server took out of the text

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The chunks of the answer, as if one run had written them; the last has `finish`.

        Raises:
            EngineError: as `Engine.submit` does.
        """
        leg: GenerationRequest | None = self._request
        while leg is not None:
            run, leg = leg, None
            self._run = run
            async with aclosing(self._engine.submit(run) if run.prefix is None else self._going_on(run)) as chunks:
                async for chunk in chunks:
                    chunk = self._joined(chunk)
                    self._written.add(chunk)
                    if chunk.finish is not None:
                        leg, chunk = await self._end(run, chunk)
                    yield chunk
                    if self._turn is not None:
                        leg, self._turn = self._turn, None
                        break

    async def go_on_after(self, text: str) -> str:
        """End the current run after the chunk that came last, and go on behind what is written and `text`.

        Returns:
            '' if it will be so, else why it cannot be; the current run then goes on.
        """
        try:
            self._turn = await self._next(self._run, text)
        except CannotContinueError as error:
            return str(error)
        return ""

    @property
    def usage(self) -> Usage:
        """Tokens of all runs: the prompt of the first, and answers without what had to be written twice."""
        return self._written.usage

    async def _going_on(self, run: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """A further run. Where what is written leaves no room for more, the answer is over; that is no error."""
        try:
            async with aclosing(self._engine.submit(run)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except PromptTooLongError as error:
            yield Chunk(finish=Finish("length", "context", str(error.limit)))

    async def _end(self, run: GenerationRequest, last: Chunk) -> tuple[GenerationRequest | None, Chunk]:
        """The run that goes on after this one, if any, and the last chunk of this one as the reader shall see it."""
        finish = last.finish
        if finish is not None and finish.by == "reservation":
            try:
                return await self._next(run), replace(last, finish=None)
            except CannotContinueError as error:
                finish = Finish("length", "reservation", str(error))
        rest = self._seam.flush()
        return None, replace(last, text=last.text + rest, finish=finish) if rest or finish is not last.finish else last

    async def _next(self, run: GenerationRequest, then: str = "") -> GenerationRequest:
        """The request that goes on with the answer; each one doubles what there is.

        Raises:
            CannotContinueError: the engine cannot.
        """
        written = self._written.prefix()
        if then and not may_continue(self._request):
            raise CannotContinueError("tool calls, JSON modes and the like are not continued")
        prefix = await self._engine.resume_point(self._request, written, then)
        self._seam.begin("" if then else written.text.removeprefix(prefix.text))
        self._inside = written.reasoned and not written.text and not then
        self._written.next_leg(prefix, then)
        generated = self.usage.answer_tokens
        left = max(1, self._request.max_new_tokens - generated)
        reservation = None if run.reservation is None else max(generated, run.first_cap)
        return replace(run, prefix=prefix, max_new_tokens=left, reservation=reservation)

    def _joined(self, chunk: Chunk) -> Chunk:
        """The chunk without what was shown already; text whose tokens are known needs no such care."""
        if self._inside:
            chunk, self._inside = replace(chunk, thinking=True), False
        if chunk.lengths or not chunk.text:
            return chunk
        text = self._seam.push(chunk.text)
        return chunk if text == chunk.text else replace(chunk, text=text)

"""How one request is answered: its budget, one engine request or several, reading what comes, and the finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from suffice.budget import Budget, Budgeter, EngineInfo, Limits, RequestInfo, TextRatios
from suffice.engines.base import Capabilities, Engine, Finish, GenerationRequest
from suffice.errors import EngineError, PromptTooLongError
from suffice.prompt import Prompt
from suffice.session.chunk_reader import ChunkReader
from suffice.session.events import Answer, AnswerBuilder, Event, Restarted
from suffice.session.request import Request
from suffice.session.runaway_watch import RunawayPolicy
from suffice.session.segments import Segments, may_continue
from suffice.session.thinking_budget import ThinkingSplit
from suffice.token_ratios import CHINESE_REFERENCE, ENGLISH_REFERENCE
from suffice.watch.thinking import CLOSING

__all__ = ["Session"]


class Session:
    """Joins a budgeter and an engine. One session serves any number of requests at once."""

    def __init__(self, engine: Engine, budgeter: Budgeter | None = None) -> None:
        """Takes an engine that the caller enters (`async with engine`); without a budgeter, the packaged defaults."""
        self.engine = engine
        self.budgeter = budgeter or Budgeter.load()
        self._ratios: TextRatios | None = None
        self._measuring = asyncio.Lock()

    async def decide(self, request: Request, *, tier: str | None = None) -> Budget:
        """The budget for a request, nothing generated; `tier` in place of the request's own.

        Raises:
            PromptTooLongError: the prompt leaves no room for an answer.
            UsageError: a field of the request is wrong.
        """
        request.check()
        capabilities = self.engine.capabilities()
        prompt_tokens = len(request.prompt.ids) or None
        if not prompt_tokens and capabilities.counts_tokens:
            count = await self.engine.count_tokens(request.prompt)
            prompt_tokens = count.tokens if count.exact else None
        return self.budgeter.decide(
            request.prompt,
            Limits(max_new_tokens=request.max_new_tokens, max_length=request.max_length, tier=tier or request.tier),
            RequestInfo(
                client=request.client,
                route=request.route,
                response_format=request.extra.get("response_format"),
                temperature=request.sampling.temperature,
            ),
            EngineInfo(
                model=request.model or self.engine.model_name,
                context_tokens=capabilities.context_tokens,
                default_max_new_tokens=capabilities.default_max_new_tokens,
                ratios=await self._tokenizer_ratios(),
                prompt_tokens=prompt_tokens,
            ),
        )

    async def _tokenizer_ratios(self) -> TextRatios:
        """How many tokens words and characters take on this engine, asked once; Qwen2's where it cannot tell."""
        if self._ratios is not None:
            return self._ratios
        async with self._measuring:
            if self._ratios is None:
                references = (ENGLISH_REFERENCE, CHINESE_REFERENCE)
                counts = {text: await self.engine.count_tokens(Prompt(raw=text)) for text in references}
                known = all(count.exact for count in counts.values())
                self._ratios = TextRatios.measured(lambda text: counts[text].tokens) if known else TextRatios()
        return self._ratios

    async def stream(self, request: Request, budget: Budget | None = None) -> AsyncGenerator[Event, None]:
        """Answer a request, event by event. Closing the generator cancels the generation at once.

        `budget` is what `decide` said, where the caller has asked already. A failure of the engine is the `Finish` with
        reason `error`, after everything that arrived before it.

        Raises:
            PromptTooLongError: before the first event, when the prompt leaves no room for an answer.
            UsageError: before the first event, when a field of the request is wrong.
        """
        budget = budget or await self.decide(request)
        yield budget
        reader, segments = self._begin(request, budget)
        # One turn for each request to the engine, a segment. Most answers take one. Another follows where a reservation
        # is used up, thinking is to be closed, or the engine fails and can be asked again: `segments` has it then.
        while (segment := segments.next()) is not None:
            try:
                async with aclosing(self.engine.submit(segment)) as chunks:
                    async for chunk in chunks:
                        for event in reader.read(segments.join(chunk)):
                            yield event
                        if reader.thinking_is_over or segments.used_up:
                            for event in await _extend(segments, reader):
                                yield event
                        if segments.pending is not None or reader.finish is not None:
                            break  # which closes `chunks`, and so cancels what would still come of this segment
            except PromptTooLongError as error:
                if segment.prefix is None:
                    raise  # there is no answer yet that could end with the context
                for event in reader.read(segments.last(Finish("length", "context", str(error.limit)))):
                    yield event
            except EngineError as error:
                if error.may_retry and not segments.begun:
                    segments.repeat()
                elif error.may_retry and request.may_restart is not None and request.may_restart():
                    reader, segments = self._begin(request, budget)
                    yield Restarted()
                else:
                    reader.finish = Finish("error", "engine", str(error))
        for event in reader.end(segments.usage):
            yield event

    async def answer(self, request: Request, budget: Budget | None = None) -> Answer:
        """Answer a request and return it whole; raises as `stream` does, and a later failure is in `finish`."""
        builder = AnswerBuilder()
        async with aclosing(self.stream(request, budget)) as events:
            async for event in events:
                builder.add(event)
        return builder.answer()

    def first_reservation(self, request: Request, budget: Budget) -> int | None:
        """Tokens that the engine sets aside for the answer at first; None where it sets nothing aside."""
        capabilities = self.engine.capabilities()
        asked = _first_reservation(request, budget, capabilities)
        return budget.max_new_tokens if asked is None and capabilities.charges != "nothing" else asked

    def _begin(self, request: Request, budget: Budget) -> tuple[ChunkReader, Segments]:
        capabilities = self.engine.capabilities()
        split = ThinkingSplit.plan(request, budget)
        policy = RunawayPolicy.of(request, ignores_end_tokens=capabilities.ignores_end_tokens)
        in_text = bool(request.prompt.tools) and capabilities.calls_in_text
        reader = ChunkReader(request, budget, split, policy, self.engine.decode_token, calls_in_text=in_text)
        first = _first_segment(request, budget, budget.max_new_tokens + split.on_top, capabilities)
        return reader, Segments(self.engine, first, budget.prompt_tokens or 0)


def _first_segment(
    request: Request, budget: Budget, max_new_tokens: int, capabilities: Capabilities
) -> GenerationRequest:
    """What the engine is asked for first."""
    return GenerationRequest(
        id=request.id,
        prompt=request.prompt,
        max_new_tokens=max_new_tokens,
        model=request.model,
        logprobs=request.logprobs,
        sampling=request.sampling,
        stop_tokens=request.stop_words,
        reservation=_first_reservation(request, budget, capabilities),
        extra=request.extra,
        on_runaway=request.on_runaway,
        trace_context=request.trace_context,
        attempts=request.attempts,
    )


def _first_reservation(request: Request, budget: Budget, capabilities: Capabilities) -> int | None:
    """In tokens; None is the whole cap."""
    if request.reservation == "full" or not may_continue(request):
        return None
    if request.reservation != "auto":
        return request.reservation
    # where a reservation costs nothing, a smaller one saves nothing and costs requests
    return None if capabilities.charges == "nothing" else budget.reservation


async def _extend(segments: Segments, reader: ChunkReader) -> list[Event]:
    """Close the thinking, or continue an answer whose reservation is used up, with another segment. Where the engine
    cannot do that, the thinking continues, and the answer ends with its reservation."""
    events: list[Event] = []
    if reader.thinking_is_over:
        events += reader.close_thinking(await segments.extend(CLOSING))
    if segments.used_up and segments.pending is None and reader.finish is None:
        refusal = await segments.extend()
        if refusal:
            events += reader.read(segments.last(Finish("length", "reservation", refusal)))
    return events

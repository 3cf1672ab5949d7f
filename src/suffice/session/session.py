"""The way through: budget, generation in as many legs as it takes, reading what comes, finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from suffice.budget import Budget, Budgeter, EngineInfo, Limits, RequestInfo, TextRatios
from suffice.engines.base import Capabilities, Engine, GenerationRequest, TokenCount
from suffice.errors import EngineError
from suffice.prompt import Prompt
from suffice.session.chunk_reader import ChunkReader
from suffice.session.events import Answer, AnswerBuilder, Event
from suffice.session.request import Request
from suffice.session.segments import Legs, may_continue
from suffice.session.thinking_budget import ThinkingSplit
from suffice.token_ratios import CHINESE_REFERENCE, ENGLISH_REFERENCE
from suffice.watch.thinking import CLOSING

__all__ = ["Session"]

_SHARED = ("id", "prompt", "logprobs", "sampling", "extra", "trace_context", "attempts")
"""Fields that a request and what the engine is asked have in common."""


class Session:
    """Joins a budgeter and an engine. One session serves any number of requests at once."""

    def __init__(self, engine: Engine, budgeter: Budgeter | None = None) -> None:
        """
        Args:
            engine: who generates; entered by the caller (`async with engine`).
            budgeter: who decides lengths; the packaged defaults when None.
        """
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
        if request.prompt.ids:
            count = TokenCount(len(request.prompt.ids))
        elif capabilities.counts_tokens:
            count = await self.engine.count_tokens(request.prompt)
        else:
            count = TokenCount(0, exact=False)
        return self.budgeter.decide(
            request.prompt,
            Limits(
                max_new_tokens=request.max_new_tokens,
                max_length=request.max_length,
                tier=tier or request.tier,
            ),
            RequestInfo(
                client=request.client,
                route=request.route,
                response_format=request.extra.get("response_format"),
                temperature=request.sampling.temperature,
            ),
            EngineInfo(
                model=self.engine.model_name,
                context_tokens=capabilities.context_tokens,
                default_max_new_tokens=capabilities.default_max_new_tokens,
                ratios=await self._tokenizer_ratios(),
                prompt_tokens=count.tokens if count.exact else None,
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

        `budget` is what `decide` said, where the caller has asked already.

        A failure of the engine is the `Finish` with reason `error`, after everything that arrived before it.

        Raises:
            PromptTooLongError: before the first event, when the prompt leaves no room for an answer.
            UsageError: before the first event, when a field of the request is wrong.
        """
        budget = budget or await self.decide(request)
        yield budget
        capabilities = self.engine.capabilities()
        caps = ThinkingSplit.plan(request, budget, capabilities.context_tokens)
        legs = Legs(self.engine, self._generation(request, budget, caps, capabilities), budget.prompt_tokens or 0)
        reader = ChunkReader(
            request,
            budget,
            caps,
            self.engine.decode_token,
            calls_in_text=bool(request.prompt.tools) and capabilities.calls_in_text,
        )
        try:
            async with aclosing(legs.chunks()) as chunks:
                async for chunk in chunks:
                    for event in reader.read(chunk):
                        yield event
                    if reader.thinking_is_over:
                        for event in reader.close_thinking(await legs.go_on_after(CLOSING)):
                            yield event
                    if reader.finish is not None:
                        break
        except EngineError as error:
            reader.fail(str(error))
        for event in reader.end(legs.usage):
            yield event

    async def answer(self, request: Request, budget: Budget | None = None) -> Answer:
        """Answer a request and return it whole.

        Raises as `stream` does, before anything is generated; a later failure is in `finish`.
        """
        builder = AnswerBuilder()
        async with aclosing(self.stream(request, budget)) as events:
            async for event in events:
                builder.add(event)
        return builder.answer()

    def _generation(
        self, request: Request, budget: Budget, caps: ThinkingSplit, capabilities: Capabilities
    ) -> GenerationRequest:
        """What the engine is asked for."""
        generation = GenerationRequest(
            max_new_tokens=caps.total,
            stop_tokens=request.stop_words,
            **{name: getattr(request, name) for name in _SHARED},
        )
        if request.reservation == "full" or not may_continue(generation):
            return generation
        if request.reservation != "auto":
            return replace(generation, reservation=request.reservation)
        # Where an engine sets nothing aside, a smaller reservation saves nothing and costs requests.
        return generation if capabilities.charges == "nothing" else replace(generation, reservation=budget.reservation)

"""One request's way through, the same for every engine and every caller: budget, generation, stop words, finish."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from suffice.budget import Budget, Budgeter, TextRatios
from suffice.budget.ratios import CHINESE_REFERENCE, ENGLISH_REFERENCE
from suffice.engines.base import Engine, Finish, GenerationRequest, Message, Sampling, Usage
from suffice.errors import EngineError
from suffice.watch import StopWords

__all__ = ["Answer", "AnswerBuilder", "Event", "Request", "Session", "Text"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants. Exactly one of `messages` and `prompt` is given."""

    messages: tuple[Message, ...] = ()
    """A conversation. If it ends with an assistant's message, that message is continued."""
    prompt: str | None = None
    """Raw text to go on with, without a chat template."""
    max_new_tokens: int | Literal["auto"] = "auto"
    """The most tokens that the answer may have; `auto` lets the budget decide."""
    max_length: int | None = None
    """The most tokens that prompt and answer may have together."""
    tier: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop_words: tuple[str, ...] = ()
    keep_stop_words: bool = False
    """Leave the stop word that ended the answer in the text."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a server's own API, passed on to it as they are."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer: whole characters, and never the beginning of a stop word."""

    text: str


Event = Budget | Text | Usage | Finish
"""What a request yields: one `Budget`, any number of `Text`, one `Usage`, one `Finish`, in this order."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    finish: Finish
    usage: Usage
    budget: Budget
    seconds: float
    """From the request to the last token."""
    first_token_seconds: float | None
    """From the request to the first text; None if there was none."""

    @property
    def tokens_per_second(self) -> float:
        """Answer tokens over the whole time, the prompt's processing included."""
        return self.usage.answer_tokens / self.seconds if self.seconds > 0 else 0.0


class AnswerBuilder:
    """Gathers the events of one request into an `Answer`; what arrived counts, wherever the events stop."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first: float | None = None
        self._pieces: list[str] = []
        self._budget: Budget | None = None
        self._usage: Usage | None = None
        self._finish = Finish("cancelled")

    @property
    def started(self) -> bool:
        """Whether there is anything to make an answer of: the budget has been decided."""
        return self._budget is not None

    def add(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case Text(text):
                self._first = self._first or time.perf_counter() - self._started
                self._pieces.append(text)
            case Budget():
                self._budget = event
            case Usage():
                self._usage = event
            case Finish():
                self._finish = event

    def answer(self) -> Answer:
        """The answer so far; without a `Finish` event it counts as cancelled, and its pieces as its tokens."""
        assert self._budget is not None, "a request yields its budget before anything else"
        usage = self._usage or Usage(self._budget.prompt_tokens or 0, len(self._pieces), exact=False)
        seconds = time.perf_counter() - self._started
        return Answer("".join(self._pieces), self._finish, usage, self._budget, seconds, self._first)


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

    async def decide(self, request: Request) -> Budget:
        """The budget for a request, nothing generated.

        Raises:
            PromptTooLongError: the prompt leaves no room for an answer.
            UsageError: a field of the request is wrong.
        """
        count = await self.engine.count_tokens(request.messages, request.prompt)
        capacity = self.engine.capacity()
        return self.budgeter.decide(
            request.prompt if request.prompt is not None else request.messages,
            max_new_tokens=request.max_new_tokens,
            max_length=request.max_length,
            tier=request.tier,
            context=capacity.context_tokens,
            prompt_tokens=count.tokens if count.exact else None,
            model_default=capacity.default_max_new_tokens,
            ratios=await self._tokenizer_ratios(),
        )

    async def _tokenizer_ratios(self) -> TextRatios:
        """How many tokens words and characters take on this engine, asked once; Qwen2's where it cannot tell."""
        async with self._measuring:
            if self._ratios is None:
                references = (ENGLISH_REFERENCE, CHINESE_REFERENCE)
                counts = {text: await self.engine.count_tokens((), text) for text in references}
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
        stop_words = StopWords(request.stop_words, keep=request.keep_stop_words)
        tokens, counted = 0, True
        finish: Finish | None = None
        usage: Usage | None = None
        try:
            async with aclosing(self.engine.submit(_generation(request, budget))) as chunks:
                async for chunk in chunks:
                    tokens += len(chunk.token_ids) or bool(chunk.text)
                    counted = counted and (bool(chunk.token_ids) or not chunk.text)
                    usage = chunk.usage or usage
                    match = stop_words.push(chunk.text)
                    if match.text:
                        yield Text(match.text)
                    if match.word is not None:
                        finish = Finish("stop", "stop_word", match.word)
                        break
                    if chunk.finish is not None:
                        finish = chunk.finish
        except EngineError as error:
            finish = Finish("error", "engine", str(error))
        if finish is None:
            finish = Finish("error", "engine", "the engine ended the answer without saying why")
        if finish.by != "stop_word" and (rest := stop_words.flush()):
            yield Text(rest)
        yield usage or Usage(budget.prompt_tokens or 0, tokens, exact=counted)
        yield _with_limit(finish, budget)

    async def answer(self, request: Request, budget: Budget | None = None) -> Answer:
        """Answer a request and return it whole.

        Raises as `stream` does, before anything is generated; a later failure is in `finish`.
        """
        builder = AnswerBuilder()
        async with aclosing(self.stream(request, budget)) as events:
            async for event in events:
                builder.add(event)
        return builder.answer()


def _generation(request: Request, budget: Budget) -> GenerationRequest:
    return GenerationRequest(
        id=request.id,
        max_new_tokens=budget.max_new_tokens,
        messages=request.messages,
        prompt=request.prompt,
        sampling=request.sampling,
        stop_tokens=request.stop_words,
        extra=request.extra,
    )


def _with_limit(finish: Finish, budget: Budget) -> Finish:
    """An engine knows its own limits (context, memory); whose limit the cap was, the budget knows."""
    if finish.reason != "length" or finish.by in ("context", "memory"):
        return finish
    return Finish("length", budget.limited_by, f"{budget.max_new_tokens} tokens")

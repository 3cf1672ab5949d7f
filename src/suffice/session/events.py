"""What a request yields, and the answer that is made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from suffice.budget import Budget
from suffice.engines.base import Finish, TokenLogprob, Usage
from suffice.engines.tool_calls import ToolCalls
from suffice.immutable import immutable

__all__ = ["Answer", "AnswerBuilder", "Event", "Progress", "Repetition", "Text", "Thinking", "ToolCallPiece"]


@immutable
class Text:
    """A piece of the answer: whole characters, and never the beginning of a stop word."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens that begin in this piece, where the request wants them."""


@immutable
class ToolCallPiece:
    """A piece of a tool call, in the shape of OpenAI's streams; `engines.tool_calls.ToolCalls` joins them."""

    piece: Mapping[str, Any]


@immutable
class Thinking:
    """A piece of the model's thinking, which is not part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Repetition:
    """The answer has become a loop. What was shown cannot be taken back; `dropped` says how much of it is void."""

    onset: int
    """Where the loop begins, in `unit`."""
    period: int
    """The length of its first turn."""
    unit: Literal["tokens", "characters"]
    dropped: int
    """Characters at the end of the `Text` so far that are no part of the answer: all turns but the first."""
    stopped: bool = True
    """Whether the generation was stopped for it (`on_runaway="stop"`)."""
    thinking: bool = False
    """Whether it is the thinking that loops: its block is closed then, and the answer follows."""
    dropped_logprobs: int = 0
    """Entries at the end of the `Text.logprobs` so far that are void with the text."""


@immutable
class Progress:
    """How far a running answer is."""

    tokens: int
    """Generated so far."""
    remaining_tokens: int
    """Expected to come, from the prediction and from what the answer has become."""
    tokens_per_second: float
    """Since the first token."""

    @property
    def remaining_seconds(self) -> float:
        """At the speed so far; 0 before there is one."""
        return self.remaining_tokens / self.tokens_per_second if self.tokens_per_second > 0 else 0.0


Event = Budget | Text | Thinking | ToolCallPiece | Repetition | Progress | Usage | Finish
"""What a request yields: one `Budget`; any number of `Thinking`, `Text` and `ToolCallPiece`, a `Repetition` if there is
one, `Progress` now and then if the request wants it; one `Usage`; one `Finish`, in this order."""


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
    thinking: str = ""
    """What the model thought before it answered."""
    repetition: Repetition | None = None
    """The loop it fell into; with `on_runaway="stop"`, `text` ends with the loop's first turn."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """What it calls, as a message of the assistant has them."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of `text`, where the request wants them."""

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
        self._thoughts: list[str] = []
        self._calls = ToolCalls()
        self._logprobs: list[TokenLogprob] = []
        self._repetition: Repetition | None = None
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
            case Text(text, logprobs):
                self._first = self._first or time.perf_counter() - self._started
                self._pieces.append(text)
                self._logprobs += logprobs
            case ToolCallPiece(piece):
                self._first = self._first or time.perf_counter() - self._started
                self._calls.add(piece)
            case Thinking(text):
                self._thoughts.append(text)
            case Repetition():
                self._repetition = event
                if event.dropped:
                    self._pieces = ["".join(self._pieces)[: -event.dropped]]
                del self._logprobs[len(self._logprobs) - event.dropped_logprobs :]
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
        return Answer(
            text="".join(self._pieces),
            finish=self._finish,
            usage=usage,
            budget=self._budget,
            seconds=seconds,
            first_token_seconds=self._first,
            thinking="".join(self._thoughts),
            repetition=self._repetition,
            tool_calls=tuple(self._calls.to_list()),
            logprobs=tuple(self._logprobs),
        )

"""What a request yields, and the answer that is made of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from suffice.budget import Budget
from suffice.engines.base import Finish, Repetition, TokenLogprob, Usage
from suffice.engines.tool_calls import ToolCalls
from suffice.immutable import immutable
from suffice.watch import Notice

__all__ = [
    "Answer",
    "AnswerBuilder",
    "Event",
    "Progress",
    "Repetition",
    "Restarted",
    "Text",
    "Thinking",
    "ToolCallPiece",
]


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


@dataclass(frozen=True, slots=True)
class Restarted:
    """The engine failed, and another one begins the answer again: everything behind the `Budget` so far is void."""


Event = Budget | Restarted | Text | Thinking | ToolCallPiece | Repetition | Notice | Progress | Usage | Finish
"""What a request yields: one `Budget`; any number of `Thinking`, `Text` and `ToolCallPiece`, a `Repetition` if there is
one, `Progress` now and then if the request wants it; a `Notice` if there is one; one `Usage`; one `Finish`, in this
order. `Restarted`, which only a request with `may_restart` gets, leads back to behind the `Budget`."""


@dataclass(frozen=True, slots=True)
class Answer:
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
    """The loop it fell into. `text` has all of what was written."""
    notice: Notice | None = None
    """It wrote line after line which differ in numbers only: it advanced, and nothing was stopped for that. `at` counts
    characters."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """What it calls, as a message of the assistant has them."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of `text`, where the request wants them."""

    @property
    def tokens_per_second(self) -> float:
        """Answer tokens over the whole time, the prompt's processing included."""
        return self.usage.answer_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def text_without_copies(self) -> str:
        """`text` without the turns of a loop that only repeat the first one: what a conversation goes on with."""
        begin, end = (self.repetition and self.repetition.copies) or (0, 0)
        return self.text[:begin] + self.text[end:]

    @property
    def runaway_kinds(self) -> tuple[str, ...]:
        """How it repeated itself: `stopped`, `told` (nothing was done about it), `closed` (in its thinking, and an
        answer followed); `advancing` where line after line differed in numbers only. Mostly none."""
        return _runaway_kinds(self.finish, self.repetition, self.notice)


def _runaway_kinds(finish: Finish | None, loop: Repetition | None, notice: Notice | None) -> tuple[str, ...]:
    if finish is not None and finish.looped:
        kinds: tuple[str, ...] = ("stopped",)
    elif loop is not None:
        kinds = ("closed",) if loop.stopped and loop.thinking else ("told",)
    else:
        kinds = ()
    return kinds if notice is None else (*kinds, "advancing")


@dataclass(slots=True, kw_only=True)
class AnswerBuilder:
    """Gathers the events of one request: what has come so far, and an `Answer` of it wherever the events stop."""

    pieces: list[str] = field(default_factory=list)
    """Of the text."""
    thoughts: list[str] = field(default_factory=list)
    """Pieces of the thinking."""
    calls: ToolCalls | None = None
    call_pieces: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    repetition: Repetition | None = None
    notice: Notice | None = None
    usage: Usage | None = None
    finish: Finish | None = None
    began: float = field(default_factory=time.perf_counter)
    """When the request came, by `time.perf_counter()`, as the next two."""
    first_text: float | None = None
    """When the first piece of the answer came (thinking is not part of it)."""
    first_piece: float | None = None
    """When the first piece of all came, thinking included."""
    _budget: Budget | None = None

    @property
    def started(self) -> bool:
        """Whether there is anything to make an answer of: the budget has been decided."""
        return self._budget is not None

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def thinking(self) -> str:
        return "".join(self.thoughts)

    @property
    def tokens(self) -> int:
        """Tokens so far; pieces while the engine has not said."""
        return self.usage.answer_tokens if self.usage else len(self.pieces) + len(self.thoughts) + self.call_pieces

    @property
    def runaway_kinds(self) -> tuple[str, ...]:
        """As `Answer.runaway_kinds`, so far."""
        return _runaway_kinds(self.finish, self.repetition, self.notice)

    @property
    def failed(self) -> bool:
        """Whether the engine ended it without success."""
        return self.finish is not None and self.finish.reason in ("error", "cancelled")

    def add(self, event: Event) -> None:
        match event:
            case Text(text, logprobs):
                self._note_first(answer=True)
                self.pieces.append(text)
                if logprobs:
                    self.logprobs += logprobs
            case Thinking(text):
                self._note_first(answer=False)
                self.thoughts.append(text)
            case ToolCallPiece(piece):
                self._note_first(answer=True)
                self.calls = self.calls or ToolCalls()
                self.calls.add(piece)
                self.call_pieces += 1
            case Repetition():
                self.repetition = event
            case Notice():
                self.notice = event
            case Restarted():
                self._restart()
            case Budget():
                self._budget = event
            case Usage():
                self.usage = event
            case Finish():
                self.finish = event

    def answer(self) -> Answer:
        """The answer so far; without a `Finish` event it counts as cancelled, and its pieces as its tokens."""
        assert self._budget is not None, "a request yields its budget before anything else"
        return Answer(
            text=self.text,
            finish=self.finish or Finish("cancelled"),
            usage=self.usage or Usage(self._budget.prompt_tokens or 0, len(self.pieces), exact=False),
            budget=self._budget,
            seconds=time.perf_counter() - self.began,
            first_token_seconds=None if self.first_text is None else self.first_text - self.began,
            thinking=self.thinking,
            repetition=self.repetition,
            notice=self.notice,
            tool_calls=tuple(self.calls.to_list()) if self.calls is not None else (),
            logprobs=tuple(self.logprobs),
        )

    def _note_first(self, *, answer: bool) -> None:
        if self.first_piece is None:
            self.first_piece = time.perf_counter()
        if answer and self.first_text is None:
            self.first_text = time.perf_counter()

    def _restart(self) -> None:
        self.pieces, self.thoughts, self.logprobs = [], [], []
        self.calls, self.call_pieces, self.repetition, self.notice = None, 0, None, None
        self.first_text = self.first_piece = self.usage = self.finish = None

"""Session events as wire objects: the only place that knows both.

Each reply gathers one answer; `piece` and the like are the events of a stream, `whole` is the answer at once.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from suffice.budget import Budget
from suffice.engines.base import Finish, Usage
from suffice.serve import sse
from suffice.serve.wire import Wanted
from suffice.session import Event, Repetition, Text, Thinking

__all__ = ["ChatReply", "CompletionReply", "InferReply", "Reply"]

_OPENAI_REASONS = {"stop": "stop", "length": "length"}
_CUT = "length"  # the nearest of OpenAI's words for any other end


@dataclass(slots=True)
class Reply:
    """One answer on its way out. Subclasses give it the shape of an API."""

    wanted: Wanted
    model: str
    tier: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    budget: Budget | None = None
    usage: Usage | None = None
    finish: Finish | None = None
    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    repetition: Repetition | None = None
    first_text: float | None = None
    """`time.perf_counter()` of the first piece."""
    _frame: tuple[bytes, bytes] | None = None

    prefix: ClassVar[str] = ""
    whole_object: ClassVar[str] = ""
    chunk_object: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.id = self.prefix + self.wanted.request.id

    def take(self, event: Event) -> None:
        """Note the next event of the session."""
        match event:
            case Text(text):
                if self.first_text is None:
                    self.first_text = time.perf_counter()
                self.pieces.append(text)
            case Thinking(text):
                if self.first_text is None:
                    self.first_text = time.perf_counter()
                self.thoughts.append(text)
            case Repetition():
                self.repetition = event
                if event.dropped:  # in a stream it has been sent already: `suffice.repetition` says how much is void
                    self.pieces = [self.text[: -event.dropped]]
            case Budget():
                self.budget = event
            case Usage():
                self.usage = event
            case Finish():
                self.finish = event

    def piece(self, text: str) -> bytes:
        """The event of a stream that holds a piece of the text."""
        if self._frame is None:  # all of them share it
            before, after = sse.event(self._chunk("\0")).split(b'"\\u0000"')
            self._frame = before, after
        return self._frame[0] + sse.dump(text) + self._frame[1]

    def thought(self, text: str) -> bytes:
        """The event of a stream for a piece of thinking; nothing, where the API has no place for it."""
        return b""

    def opening(self) -> bytes:
        """The first event of a stream, with the budget."""
        return sse.event({**self._chunk(""), "suffice": self.suffice()})

    def closing(self) -> bytes:
        """The last events of a stream: why it ended, what it took, and that nothing follows."""
        last = {**self._chunk(None), "suffice": self.suffice()}
        last["choices"] = [{**last["choices"][0], "finish_reason": self.finish_reason}]
        counts = b""
        if self.wanted.include_usage:
            counts = sse.event({**self._chunk(None), "choices": [], "usage": self.usage_object()})
        return sse.event(last) + counts + sse.DONE

    def failure(self, error: bytes) -> bytes:
        """The events that end a stream which failed: the error, and what was used."""
        used = {**self._chunk(None), "choices": [], "usage": self.usage_object(), "suffice": self.suffice()}
        return sse.event(used) + b"data: %b\n\n" % error + sse.DONE

    def whole(self) -> dict[str, Any]:
        """The answer at once."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    @property
    def failed(self) -> bool:
        """Whether the engine ended the answer, or left it without an end."""
        return self.finish is None or self.finish.reason in ("error", "cancelled")

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, in the words that OpenAI's clients know."""
        return _OPENAI_REASONS.get(self.finish.reason if self.finish else "", _CUT)

    def usage_object(self) -> dict[str, Any]:
        """Token counts; those of pieces while the engine has not said."""
        prompt = self.usage.prompt_tokens if self.usage else (self.budget and self.budget.prompt_tokens) or 0
        answer = self.usage.answer_tokens if self.usage else len(self.pieces) + len(self.thoughts)
        counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        if self.usage is not None and self.usage.thinking_tokens:
            counts["completion_tokens_details"] = {"reasoning_tokens": self.usage.thinking_tokens}
        return counts

    def suffice(self) -> dict[str, Any]:
        """The budget and its reasons, and, at the end, what ended the answer."""
        said: dict[str, Any] = {"tier": self.tier, "budget": self.budget.to_dict() if self.budget else None}
        if self.finish is not None:
            said |= {"finish_detail": self.finish.by or self.finish.reason, "finish_what": self.finish.what}
            said["usage_exact"] = self.usage is not None and self.usage.exact
        if self.repetition is not None:
            said["repetition"] = asdict(self.repetition)
        if self.wanted.ignored:
            said["ignored"] = list(self.wanted.ignored)
        return said

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, text: str | None) -> dict[str, Any]:
        chunk = {**self._head(self.chunk_object), "choices": [self._choice(text)]}
        return {**chunk, "usage": None} if self.wanted.include_usage else chunk

    def _choice(self, text: str | None) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(slots=True)
class ChatReply(Reply):
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def thought(self, text: str) -> bytes:
        """As vLLM and SGLang send it."""
        chunk = self._chunk(None)
        chunk["choices"][0]["delta"] = {"reasoning_content": text}
        return sse.event(chunk)

    def opening(self) -> bytes:
        """OpenAI's first chunk also says whose turn it is."""
        first = self._chunk("")
        first["choices"][0]["delta"] = {"role": "assistant", "content": ""}
        return sse.event({**first, "suffice": self.suffice()})

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.text, "refusal": None}
        if self.thoughts:
            message["reasoning_content"] = "".join(self.thoughts)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        whole = {**self._head(self.whole_object), "choices": [choice]}
        return {**whole, "usage": self.usage_object(), "suffice": self.suffice()}

    def _choice(self, text: str | None) -> dict[str, Any]:
        delta = {} if text is None else {"content": text}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


@dataclass(slots=True)
class CompletionReply(Reply):
    """`/v1/completions`."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def whole(self) -> dict[str, Any]:
        choice = {**self._choice(self.text), "finish_reason": self.finish_reason}
        whole = {**self._head(self.whole_object), "choices": [choice]}
        return {**whole, "usage": self.usage_object(), "suffice": self.suffice()}

    def _choice(self, text: str | None) -> dict[str, Any]:
        return {"index": 0, "text": text or "", "logprobs": None, "finish_reason": None}


@dataclass(slots=True)
class InferReply(Reply):
    """`/infer/TIER`: flat objects, for people who read them with curl."""

    prefix = "infer-"
    whole_object = "suffice.answer"
    chunk_object = "suffice.piece"

    def closing(self) -> bytes:
        return sse.event({**self.whole(), "object": "suffice.end", "text": ""}) + sse.DONE

    def whole(self) -> dict[str, Any]:
        said = {"text": self.text, "finish_reason": self.finish_reason, "usage": self.usage_object()}
        return {**self._head(self.whole_object), **said, "suffice": self.suffice()}

    def _chunk(self, text: str | None) -> dict[str, Any]:
        return {**self._head(self.chunk_object), "text": text or ""}

    def _choice(self, text: str | None) -> dict[str, Any]:
        raise NotImplementedError  # there are no choices here

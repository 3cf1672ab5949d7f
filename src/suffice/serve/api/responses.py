"""Session events as wire objects: the only place that knows both.

Each reply gathers the answers of one request; `piece` and the like are the events of a stream, `whole` is all at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from suffice.budget import Budget
from suffice.engines.base import Finish, TokenLogprob
from suffice.engines.openai.logprobs import chat_logprobs, completion_logprobs
from suffice.json_codec import dump
from suffice.serve.api.choice import Choice
from suffice.serve.api.requests import ApiRequest
from suffice.serve.http import sse
from suffice.session import Text

__all__ = ["ChatReply", "CompletionReply", "InferReply", "Reply"]


@dataclass(slots=True)
class Reply:
    """The answers of one request on their way out. Subclasses give them the shape of an API."""

    wanted: ApiRequest
    model: str
    tier: str
    budgets: tuple[Budget, ...] = ()
    """One for each prompt."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    answers: tuple[Choice, ...] = ()

    prefix: ClassVar[str] = ""
    whole_object: ClassVar[str] = ""
    chunk_object: ClassVar[str] = ""

    def __post_init__(self) -> None:
        self.id = self.prefix + self.wanted.request.id
        self.answers = tuple(Choice(index=index) for index in range(self.wanted.choices))

    @property
    def budget(self) -> Budget | None:
        """Of the first prompt."""
        return self.budgets[0] if self.budgets else None

    def budget_of(self, answer: Choice) -> Budget:
        """Of the prompt that it answers."""
        return self.budgets[answer.index // self.wanted.n]

    @property
    def finish(self) -> Finish | None:
        """Why the request ended: one answer that failed or was cut counts for all; None while one is under way."""
        if len(self.answers) == 1:
            return self.answers[0].finish
        finishes = [answer.finish for answer in self.answers]
        for reason in ("error", "cancelled"):
            if found := next((each for each in finishes if each and each.reason == reason), None):
                return found
        if None in finishes:
            return None
        return next((each for each in finishes if each and each.reason == "length"), finishes[0])

    @property
    def failed(self) -> bool:
        """Whether the engine ended an answer, or left it without an end."""
        finish = self.finish
        return finish is None or finish.reason in ("error", "cancelled")

    @property
    def first_text(self) -> float | None:
        """`time.perf_counter()` of the first piece of any answer."""
        return min((each.first_piece for each in self.answers if each.first_piece is not None), default=None)

    @property
    def thinking_tokens(self) -> int:
        """Of all answers."""
        return sum(each.usage.thinking_tokens for each in self.answers if each.usage)

    def piece(self, answer: Choice, event: Text) -> bytes:
        """The event of a stream that holds a piece of the text."""
        if event.logprobs:
            return self._event(answer, event.text, self._logprobs(event.logprobs, answer))
        if answer.frame is None:  # all pieces share it
            before, after = self._event(answer, "\0").split(b'"\\u0000"')
            answer.frame = before, after
        return answer.frame[0] + dump(event.text) + answer.frame[1]

    def thought(self, answer: Choice, text: str) -> bytes:
        """The event of a stream for a piece of thinking; nothing, where the API has no place for it."""
        return b""

    def call(self, answer: Choice, piece: Mapping[str, Any]) -> bytes:
        """The event of a stream for a piece of a tool call; nothing, where the API has no place for it."""
        return b""

    def opening(self) -> bytes:
        """The first event of a stream, with the budget."""
        return sse.event({**self._chunk([self._choice(self.answers[0], "")]), "suffice": self.suffice()})

    def ending(self, answer: Choice) -> bytes:
        """The event that ends one of several answers; `closing` ends a single one."""
        return b"" if len(self.answers) == 1 else self._last(answer)

    def closing(self) -> bytes:
        """The last events of a stream: why it ended, what it took, and that nothing follows."""
        last = self._last(self.answers[0]) if len(self.answers) == 1 else b""
        counts = b""
        if self.wanted.include_usage:
            counts = sse.event({**self._chunk([]), "usage": self.usage_object()})
        return last + counts + sse.DONE

    def failure(self, error: bytes) -> bytes:
        """The events that end a stream which failed: the error, and what was used."""
        used = {**self._chunk([]), "usage": self.usage_object(), "suffice": self.suffice()}
        return sse.event(used) + b"data: %b\n\n" % error + sse.DONE

    def whole(self) -> dict[str, Any]:
        """The answers at once."""
        whole = {**self._head(self.whole_object), "choices": [self._ended(each) for each in self.answers]}
        return {**whole, "usage": self.usage_object(), "suffice": self.suffice()}

    def usage_object(self) -> dict[str, Any]:
        """Token counts, each prompt's once; those of pieces while the engine has not said."""
        prompt, answer = 0, self.answers[0].tokens
        for number in range(len(self.budgets)):
            prompt += self._prompt_tokens(number)
        if len(self.answers) > 1:
            answer = sum(each.tokens for each in self.answers)
        counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        if thinking := self.thinking_tokens:
            counts["completion_tokens_details"] = {"reasoning_tokens": thinking}
        return counts

    def suffice(self) -> dict[str, Any]:
        """The budget and its reasons, and, at the end, what ended a single answer."""
        said: dict[str, Any] = {"tier": self.tier, "budget": self.budget.to_dict() if self.budget else None}
        if len(self.budgets) > 1:
            said["budgets"] = [each.to_dict() for each in self.budgets]
        if len(self.answers) == 1:
            said |= self.answers[0].ending()
        if self.wanted.ignored:
            said["ignored"] = list(self.wanted.ignored)
        return said

    def _prompt_tokens(self, number: int) -> int:
        """As one of the answers to that prompt says, else as the budget counted."""
        n = self.wanted.n
        for answer in self.answers[number * n : (number + 1) * n]:
            if answer.usage is not None:
                return answer.usage.prompt_tokens
        return self.budgets[number].prompt_tokens or 0

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._head(self.chunk_object), "choices": choices}
        return {**chunk, "usage": None} if self.wanted.include_usage else chunk

    def _event(self, answer: Choice, text: str, logprobs: dict[str, Any] | None = None) -> bytes:
        choice = self._choice(answer, text)
        return sse.event(self._chunk([{**choice, "logprobs": logprobs} if logprobs else choice]))

    def _last(self, answer: Choice) -> bytes:
        choice = {**self._choice(answer, None), "finish_reason": answer.finish_reason}
        if len(self.answers) > 1:
            return sse.event(self._chunk([choice | {"suffice": answer.ending()}]))
        return sse.event({**self._chunk([choice]), "suffice": self.suffice()})

    def _ended(self, answer: Choice) -> dict[str, Any]:
        """An answer as it stands in `whole`."""
        choice = {**self._said(answer), "finish_reason": answer.finish_reason}
        if self.wanted.request.logprobs is not None and answer.logprobs:
            answer.offset = 0
            choice["logprobs"] = self._logprobs(tuple(answer.logprobs), answer)
        return choice if len(self.answers) == 1 else choice | {"suffice": answer.ending()}

    def _logprobs(self, tokens: tuple[TokenLogprob, ...], answer: Choice) -> dict[str, Any]:
        return chat_logprobs(tokens)

    def _said(self, answer: Choice) -> dict[str, Any]:
        """The whole of an answer, without its end."""
        return self._choice(answer, answer.text)

    def _choice(self, answer: Choice, text: str | None) -> dict[str, Any]:
        """A piece of an answer; None for none."""
        raise NotImplementedError


@dataclass(slots=True)
class ChatReply(Reply):
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def thought(self, answer: Choice, text: str) -> bytes:
        """As vLLM and SGLang send it."""
        return self._delta(answer, {"reasoning_content": text})

    def call(self, answer: Choice, piece: Mapping[str, Any]) -> bytes:
        return self._delta(answer, {"tool_calls": [piece]})

    def opening(self) -> bytes:
        """OpenAI's first chunk also says whose turn it is."""
        role = {"role": "assistant", "content": ""}
        first = self._chunk([self._choice(self.answers[0], "") | {"delta": role}])
        others = [self._delta(answer, role) for answer in self.answers[1:]]
        return sse.event({**first, "suffice": self.suffice()}) + b"".join(others)

    def _delta(self, answer: Choice, delta: dict[str, Any]) -> bytes:
        return sse.event(self._chunk([self._choice(answer, None) | {"delta": delta}]))

    def _said(self, answer: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if answer.calls is not None:
            message |= {"content": answer.text or None, "tool_calls": answer.calls.to_list()}
        if answer.thoughts:
            message["reasoning_content"] = "".join(answer.thoughts)
        return {"index": answer.index, "message": message, "logprobs": None}

    def _choice(self, answer: Choice, text: str | None) -> dict[str, Any]:
        delta = {} if text is None else {"content": text}
        return {"index": answer.index, "delta": delta, "logprobs": None, "finish_reason": None}


@dataclass(slots=True)
class CompletionReply(Reply):
    """`/v1/completions`."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _logprobs(self, tokens: tuple[TokenLogprob, ...], answer: Choice) -> dict[str, Any]:
        offset = answer.offset
        answer.offset += sum(len(each.token) for each in tokens)
        return completion_logprobs(tokens, offset)

    def _choice(self, answer: Choice, text: str | None) -> dict[str, Any]:
        return {"index": answer.index, "text": text or "", "logprobs": None, "finish_reason": None}


@dataclass(slots=True)
class InferReply(Reply):
    """`/infer/TIER`: flat objects, for people who read them with curl."""

    prefix = "infer-"
    whole_object = "suffice.answer"
    chunk_object = "suffice.piece"

    def closing(self) -> bytes:
        return sse.event({**self.whole(), "object": "suffice.end", "text": ""}) + sse.DONE

    def whole(self) -> dict[str, Any]:
        answer = self.answers[0]
        said = {"text": answer.text, "finish_reason": answer.finish_reason, "usage": self.usage_object()}
        return {**self._head(self.whole_object), **said, "suffice": self.suffice()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head(self.chunk_object), "text": choices[0]["text"] if choices else ""}

    def _choice(self, answer: Choice, text: str | None) -> dict[str, Any]:
        return {"text": text or ""}

"""The shapes of answers: events of the session in the formats of OpenAI's two APIs and of `/infer`.

The formats have no state of their own; what there is to say is in `Choices`. `piece` and the like are the events of a
stream, `whole` is all at once.
"""

from __future__ import annotations

from typing import Any, ClassVar

from suffice.engines.base import TokenLogprob
from suffice.engines.openai.logprobs import chat_logprobs, completion_logprobs
from suffice.json_codec import dump
from suffice.serve.http import sse
from suffice.serve.request.choices import Choice, Choices
from suffice.serve.request.finish_reason import ending_of, openai_finish_reason
from suffice.session import Event, Text, Thinking, ToolCallPiece

__all__ = ["ChatFormat", "CompletionFormat", "Format", "InferFormat", "suffice_object"]

_Json = dict[str, Any]


class Format:
    prefix: ClassVar[str]
    """Of ids."""
    whole_object: ClassVar[str]
    chunk_object: ClassVar[str]

    def piece(self, choices: Choices, choice: Choice, event: Event) -> bytes:
        """The event of a stream for an event of the session; b"" where the format has no place for it."""
        if not isinstance(event, Text):
            return b""
        if event.logprobs:
            return self._event(choices, choice, event.text, self._logprobs(event.logprobs, choice))
        if choice.frame is None:  # all pieces share it
            before, after = self._event(choices, choice, "\0").split(b'"\\u0000"')
            choice.frame = before, after
        return choice.frame[0] + dump(event.text) + choice.frame[1]

    def opening(self, choices: Choices) -> bytes:
        """The first event of a stream, with the budget."""
        first = self._choice(choices.answers[0], "")
        return sse.event(self._chunk(choices, [first], suffice=suffice_object(choices)))

    def ending(self, choices: Choices, choice: Choice) -> bytes:
        """The event that ends one of several answers; `closing` ends a single one."""
        return sse.event(self._chunk(choices, [self._last(choice) | {"suffice": ending_of(choice)}]))

    def closing(self, choices: Choices) -> bytes:
        """The last events of a stream: why it ended, what it took, and that nothing follows."""
        last = counts = b""
        if len(choices.answers) == 1:
            last = sse.event(self._chunk(choices, [self._last(choices.answers[0])], suffice=suffice_object(choices)))
        if choices.api.include_usage:
            counts = sse.event(self._chunk(choices, [], usage=_usage_object(choices)))
        return last + counts + sse.DONE

    def failure(self, choices: Choices, error: bytes) -> bytes:
        """The events that end a stream which failed: what was used, and the error."""
        used = self._chunk(choices, [], usage=_usage_object(choices), suffice=suffice_object(choices))
        return sse.event(used) + b"data: %b\n\n" % error + sse.DONE

    def whole(self, choices: Choices) -> _Json:
        return {
            **self._head(choices, self.whole_object),
            "choices": [self._ended(choices, each) for each in choices.answers],
            "usage": _usage_object(choices),
            "suffice": suffice_object(choices),
        }

    def _head(self, choices: Choices, kind: str) -> _Json:
        return {"id": choices.id, "object": kind, "created": choices.created, "model": choices.model}

    def _chunk(self, choices: Choices, chosen: list[_Json], **more: _Json) -> _Json:
        usage = {"usage": None} if choices.api.include_usage else {}
        return {**self._head(choices, self.chunk_object), "choices": chosen, **usage, **more}

    def _last(self, choice: Choice) -> _Json:
        return {**self._choice(choice, None), "finish_reason": openai_finish_reason(choice)}

    def _event(self, choices: Choices, choice: Choice, text: str, logprobs: _Json | None = None) -> bytes:
        chosen = self._choice(choice, text)
        return sse.event(self._chunk(choices, [{**chosen, "logprobs": logprobs} if logprobs else chosen]))

    def _ended(self, choices: Choices, choice: Choice) -> _Json:
        """An answer as it stands in `whole`."""
        ended = {**self._said(choice), "finish_reason": openai_finish_reason(choice)}
        if choice.request.logprobs is not None and choice.logprobs:
            choice.offset = 0
            ended["logprobs"] = self._logprobs(tuple(choice.logprobs), choice)
        return ended if len(choices.answers) == 1 else ended | {"suffice": ending_of(choice)}

    def _logprobs(self, tokens: tuple[TokenLogprob, ...], choice: Choice) -> _Json:
        return chat_logprobs(tokens)

    def _said(self, choice: Choice) -> _Json:
        """The whole of an answer, without its end."""
        return self._choice(choice, choice.text)

    def _choice(self, choice: Choice, text: str | None) -> _Json:
        """A piece of an answer; None for none."""
        raise NotImplementedError


class ChatFormat(Format):
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def piece(self, choices: Choices, choice: Choice, event: Event) -> bytes:
        """Thinking is sent as vLLM and SGLang send it."""
        match event:
            case Thinking(text):
                return self._delta(choices, choice, {"reasoning_content": text})
            case ToolCallPiece(piece):
                return self._delta(choices, choice, {"tool_calls": [piece]})
        return Format.piece(self, choices, choice, event)

    def opening(self, choices: Choices) -> bytes:
        """OpenAI's first chunk also says whose turn it is."""
        role = {"role": "assistant", "content": ""}
        first = self._choice(choices.answers[0], "") | {"delta": role}
        others = [self._delta(choices, each, role) for each in choices.answers[1:]]
        return sse.event(self._chunk(choices, [first], suffice=suffice_object(choices))) + b"".join(others)

    def _delta(self, choices: Choices, choice: Choice, delta: _Json) -> bytes:
        return sse.event(self._chunk(choices, [self._choice(choice, None) | {"delta": delta}]))

    def _said(self, choice: Choice) -> _Json:
        message: _Json = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls is not None:
            message |= {"content": choice.text or None, "tool_calls": choice.calls.to_list()}
        if choice.thoughts:
            message["reasoning_content"] = choice.thinking
        return {"index": choice.index, "message": message, "logprobs": None}

    def _choice(self, choice: Choice, text: str | None) -> _Json:
        delta = {} if text is None else {"content": text}
        return {"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}


class CompletionFormat(Format):
    """`/v1/completions`."""

    prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def _logprobs(self, tokens: tuple[TokenLogprob, ...], choice: Choice) -> _Json:
        offset = choice.offset
        choice.offset += sum(len(each.token) for each in tokens)
        return completion_logprobs(tokens, offset)

    def _choice(self, choice: Choice, text: str | None) -> _Json:
        return {"index": choice.index, "text": text or "", "logprobs": None, "finish_reason": None}


class InferFormat(Format):
    """`/infer/TIER`: flat objects, for people who read them with curl."""

    prefix = "infer-"
    whole_object = "suffice.answer"
    chunk_object = "suffice.piece"

    def closing(self, choices: Choices) -> bytes:
        """The last event is the whole without its text."""
        return sse.event({**self.whole(choices), "object": "suffice.end", "text": ""}) + sse.DONE

    def whole(self, choices: Choices) -> _Json:
        choice = choices.answers[0]
        said = {"text": choice.text, "finish_reason": openai_finish_reason(choice), "usage": _usage_object(choices)}
        return {**self._head(choices, self.whole_object), **said, "suffice": suffice_object(choices)}

    def _chunk(self, choices: Choices, chosen: list[_Json], **more: _Json) -> _Json:
        return {**self._head(choices, self.chunk_object), "text": chosen[0]["text"] if chosen else "", **more}

    def _choice(self, choice: Choice, text: str | None) -> _Json:
        return {"text": text or ""}


def suffice_object(choices: Choices) -> _Json:
    """The budget and its reasons, and, at the end, what ended a single answer."""
    said: _Json = {"tier": choices.tier, "budget": choices.budget.to_dict()}
    if len(choices.budgets) > 1:
        said["budgets"] = [each.to_dict() for each in choices.budgets]
    if len(choices.answers) == 1:
        said |= ending_of(choices.answers[0])
    said.update(choices.api.runaway_said)
    if choices.api.ignored:
        said["ignored"] = list(choices.api.ignored)
    return said


def _usage_object(choices: Choices) -> _Json:
    usage = choices.usage
    prompt, answer = usage.prompt_tokens, usage.answer_tokens
    counts: _Json = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    if usage.thinking_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.thinking_tokens}
    return counts

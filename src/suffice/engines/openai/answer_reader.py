"""One answer of an OpenAI-compatible server, event by event, in the words of the engine protocol. No network here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeGuard, get_args

from suffice.engines.base import Chunk, Finish, GenerationRequest, Repetition, Usage
from suffice.engines.openai.logprobs import token_logprobs
from suffice.engines.openai.requests import error_message, one_line
from suffice.engines.tool_calls import ToolCalls
from suffice.errors import EngineError
from suffice.json_codec import load
from suffice.token_ratios import estimate_prompt_tokens
from suffice.watch import Notice, RunawayKind

__all__ = ["AnswerReader"]

_END_TOKEN = frozenset({"stop", "eos", "eos_token", "end_turn"})  # the first is OpenAI's, the others are seen elsewhere
_LENGTH = frozenset({"length", "max_tokens"})
_FAILED = frozenset({"abort", "error"})  # vLLM and SGLang, when they drop a request themselves
_SURROGATE = re.compile("[\ud800-\udfff]")
_CUT_ANYWHERE = ("content", "text", "reasoning_content", "reasoning", "arguments")  # by servers that count in UTF-16


class AnswerReader:
    """Follows one answer through its events: its text, why it ended, what it took.

    Reasoning (`reasoning_content`, `reasoning`) is not part of the text, but apart in its chunk. It is part of the
    usage: servers count it, and where they say nothing, its pieces are counted here.
    """

    def __init__(self, request: GenerationRequest, host: str) -> None:
        self.pieces = 0
        """Pieces of text so far."""
        self.done = False
        """The server said that nothing more will come."""
        self._request, self._host = request, host
        self._tokens = self._reasoning_tokens = 0  # by their ids, else by pieces
        self._finish_reason: str | None = None
        self._stop_reason: Any = None
        self._suffice: Mapping[str, Any] = {}  # what another Suffice says of its answer
        self._usage: Usage | None = None
        self._held: dict[object, str] = {}  # halves of characters: of the text, the reasoning, the arguments of a call
        self._calls = ToolCalls()

    @property
    def complete(self) -> bool:
        return self.done or self._finish_reason is not None

    def read(self, data: str) -> Chunk | None:
        """What one event's data adds to the answer, None if nothing; an event that is not what the API promises is
        an `EngineError`."""
        if data.strip() == "[DONE]":
            self.done = True
            return None
        event = self._decode(data)
        self._usage = _usage(event.get("usage")) or self._usage
        choices = event.get("choices")
        if not choices:
            return None
        try:
            return self._read_choice(choices[0], event)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise self._error(f"malformed event from the server: {one_line(data)}") from None

    def last(self, finish: Finish | None = None) -> Chunk:
        """The chunk that ends the answer, with `finish` where the end is not the server's decision.

        Raises:
            EngineError: the server stopped sending before the answer's end, or gave the request up.
        """
        if finish is None:
            finish = self._finish()
            if self._suffice:
                finish = replace(finish, told=tuple(self._told()))
        tails = ["\ufffd" if where in self._held else "" for where in ("text", "reasoning")]
        usage = self._usage
        if usage is None:
            prompt_tokens = estimate_prompt_tokens(self._request.prompt)
            usage = Usage(prompt_tokens, self._tokens, exact=False, thinking_tokens=self._reasoning_tokens)
        cut_calls = [where for where in self._held if where not in ("text", "reasoning")]
        tool_calls = [self._calls.add({"index": where, "function": {"arguments": "\ufffd"}}) for where in cut_calls]
        return Chunk(tails[0], reasoning=tails[1], tool_calls=tuple(tool_calls), finish=finish, usage=usage)

    def after(self) -> str:
        """How far the answer had come, for the end of an error message."""
        if not self.pieces:
            return "before the first piece"
        return f"after {self.pieces} piece{'s' if self.pieces > 1 else ''}"

    def _decode(self, data: str) -> dict[str, Any]:
        try:
            event = load(data, halves=_CUT_ANYWHERE)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise self._error(f"malformed JSON from the server {self.after()}: {one_line(data)}")
        if event.get("error") or event.get("object") == "error":
            raise self._error(f"the server failed {self.after()}: {error_message(data)}")
        return event

    def _read_choice(self, choice: Mapping[str, Any], event: Mapping[str, Any]) -> Chunk | None:
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason
            said = event.get("suffice") or choice.get("suffice")
            self._suffice = said if isinstance(said, dict) else {}
        if (stop_reason := choice.get("stop_reason", choice.get("matched_stop"))) is not None:  # vLLM's, SGLang's
            self._stop_reason = stop_reason
        message = choice.get("delta") or choice.get("message") or {}
        reasoning = self._whole("reasoning", _text(message.get("reasoning_content") or message.get("reasoning")))
        text = self._whole("text", _text(message.get("content") or choice.get("text")))
        calls = tuple(map(self._read_call, message["tool_calls"])) if message.get("tool_calls") else ()
        self.pieces += bool(text) or bool(calls)
        told = choice.get("logprobs")
        chunk = Chunk(
            text,
            _ids(choice, "token_ids"),
            reasoning=reasoning,
            prompt_ids=_ids(event, "prompt_token_ids") or _ids(choice, "prompt_token_ids"),
            tool_calls=calls,
            logprobs=token_logprobs(told) if told and (text or not (reasoning or calls)) else (),
        )
        tokens = chunk.tokens
        self._tokens += tokens
        self._reasoning_tokens += tokens if reasoning else 0
        return chunk if tokens or chunk.prompt_ids or chunk.logprobs else None

    def _read_call(self, piece: Mapping[str, Any]) -> Mapping[str, Any]:
        function = piece.get("function") or {}
        if isinstance(given := function.get("arguments"), str):
            arguments = self._whole(piece.get("index"), given)
            if arguments != given:
                piece = {**piece, "function": {**function, "arguments": arguments}}
        return self._calls.add(piece)

    def _whole(self, where: object, text: str) -> str:
        """Joins a character beyond U+FFFF that JSON escapes as two surrogates and the server cut between them."""
        if text and self._held:
            text = self._held.pop(where, "") + text
        if not _SURROGATE.search(text):
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._held[where] = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _finish(self) -> Finish:
        reason = self._finish_reason
        if reason is None:
            if not self.done:
                raise self._error(f"connection dropped {self.after()}")
            if self._usage and self._cap_reached():
                return self._length()
            return Finish("stop", what="the server gave no finish_reason")
        if reason in _FAILED:
            raise self._error(f"the server gave the request up ({reason}) {self.after()}")
        if self._looped(reason):
            what = self._suffice.get("finish_what") or "found by the server"
            return Finish("length", "repetition", one_line(str(what)))
        if reason in _LENGTH:
            return self._length()
        if not self._calls.whole and self._cap_reached():
            return self._length()  # some servers say `tool_calls` for a call that the cap has cut
        what = "" if self._stop_reason is None else str(self._stop_reason)
        return Finish("stop", "end_token" if reason in _END_TOKEN else reason, what)

    def _looped(self, reason: str) -> bool:
        """Whether the server stopped a loop: vLLM where the request asked for `repetition_detection`, which with tool
        calls says so in its `stop_reason` alone; another Suffice, whose earlier versions called it `stop`."""
        by = self._suffice.get("finish_detail")
        return "repetition" in (reason, by) or self._stop_reason == "repetition_detected"

    def _told(self) -> Iterator[Repetition | Notice]:
        """What another Suffice tells of loops in its answer; fields that it should not send count as not sent."""
        loop, lines = self._suffice.get("repetition"), self._suffice.get("notice")
        if isinstance(loop, dict) and loop.get("unit") in ("tokens", "characters"):
            onset, period, copies = loop.get("onset"), loop.get("period"), loop.get("copies")
            place = None
            if isinstance(copies, list) and len(copies) == 2 and all(map(_is_count, copies)):
                place = (copies[0], copies[1])
            if self._request.prefix is not None:
                place = None  # they count from where the continuation began
            stopped, thinking = loop.get("stopped") is True, loop.get("thinking") is True
            if _is_count(onset) and _is_count(period):
                kind: RunawayKind = loop["kind"] if loop.get("kind") in get_args(RunawayKind) else "verbatim"
                yield Repetition(onset, period, loop["unit"], place, stopped, thinking, kind)
        if isinstance(lines, dict) and _is_count(lines.get("lines")) and _is_count(lines.get("at")):
            yield Notice(lines["lines"], lines["at"])

    def _cap_reached(self) -> bool:
        return (self._usage.answer_tokens if self._usage else self._tokens) >= self._request.first_cap

    def _length(self) -> Finish:
        return Finish("length", "reservation" if self._request.first_cap < self._request.max_new_tokens else "")

    def _error(self, text: str) -> EngineError:
        return EngineError(text, where=self._host)


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    prompt_tokens, answer_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (_is_count(prompt_tokens) and _is_count(answer_tokens)):
        return None
    details = usage.get("completion_tokens_details")
    thinking = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return Usage(prompt_tokens, answer_tokens, thinking_tokens=thinking if _is_count(thinking) else 0)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < 2**31


def _ids(fields: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Token ids that vLLM sends along when it is asked to."""
    found = fields.get(name)
    return tuple(found) if isinstance(found, list) and all(isinstance(each, int) for each in found) else ()


def _text(content: Any) -> str:
    """The text of a piece of an answer; some servers send parts, which follow each other without a break."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")

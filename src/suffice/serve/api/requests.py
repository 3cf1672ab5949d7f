"""What clients send, in the words of the session: OpenAI's two APIs and `/infer`. Knows nothing about replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from suffice.engines.base import Message, Sampling
from suffice.immutable import immutable
from suffice.prompt import Prompt
from suffice.serve.api.tools import read_calls, read_tools
from suffice.serve.http.body import Fields, wrong
from suffice.serve.http.errors import Problem
from suffice.session import Request

__all__ = ["ApiRequest", "RequestOrigin", "read_chat", "read_completion", "read_infer"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MAX_STOP_WORDS = 16
_SEED = (-(2**63), 2**63 - 1)
_MOST_IDS = 2**31  # tokens of any vocabulary

_TOP_LOGPROBS = 20  # OpenAI's limit for chat

_NEUTRAL: Mapping[str, Callable[[Any], bool]] = {
    "echo": lambda value: value is False,
    "suffix": lambda value: value == "",
    "functions": lambda value: value == [],
    "function_call": lambda value: value in ("none", "auto"),
    "audio": lambda value: False,
    "modalities": lambda value: value == ["text"],
}
"""Fields that would change the shape of the answer, which is not carried, with the values that ask for nothing."""

_ONLY_TEXT: Mapping[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1,
    "logprobs": lambda value: value in (False, 0),
    "top_logprobs": lambda value: value == 0,
    "tools": lambda value: value == [],
    "tool_choice": lambda value: value in ("none", "auto"),
}
"""The same for `/infer`, whose answers are flat."""

_SERVERS_OWN: Mapping[str, Callable[[Any], bool]] = {
    "frequency_penalty": lambda value: value == 0,
    "presence_penalty": lambda value: value == 0,
    "logit_bias": lambda value: value == {},
    "response_format": lambda value: value == {"type": "text"},
    "min_p": lambda value: value == 0,
    "min_tokens": lambda value: value == 0,
    "reasoning_effort": lambda value: False,
    "chat_template_kwargs": lambda value: value == {},
    "guided_json": lambda value: False,
    "guided_regex": lambda value: False,
    "guided_choice": lambda value: False,
    "structured_outputs": lambda value: False,
}
"""Fields that change the answer, known to servers and not to the local engine, with the values that do nothing."""

_HARMLESS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "verbosity",
)
"""Fields that do not change the answer; the local engine has no use for them."""


@immutable
class RequestOrigin:
    """What a request has beside its JSON: its id, who asks, and where."""

    id: str
    client: str | None
    """For the length model."""
    route: str
    trace_context: dict[str, str]
    """Headers that make an upstream's spans part of the caller's trace."""


@immutable
class ApiRequest:
    """One request as it came over the wire."""

    request: Request
    """For the first prompt."""
    model: str | None
    tier: str | None
    stream: bool = False
    include_usage: bool = False
    """End a stream with a chunk of token counts."""
    strict: bool = False
    """Refuse instead of clamping."""
    ignored: tuple[str, ...] = ()
    """Fields that nobody here knows."""
    n: int = 1
    """Answers to each prompt."""
    more: tuple[Request, ...] = ()
    """For further prompts."""

    @property
    def prompts(self) -> tuple[Request, ...]:
        """One request for each prompt."""
        return (self.request, *self.more)

    @property
    def choices(self) -> int:
        """Answers to all prompts."""
        return self.n * (1 + len(self.more))

    @property
    def requests(self) -> list[Request]:
        """One for each answer. Where there are several, each has its own id, and its own seed where one is given, so
        that the answers to one prompt differ, and all of it can be repeated."""
        if self.choices == 1:
            return [self.request]
        return [self._choice(index) for index in range(self.choices)]

    def _choice(self, index: int) -> Request:
        request = self.prompts[index // self.n]
        sampling = request.sampling
        if sampling.seed is not None:
            low, high = _SEED
            seed = low + (sampling.seed + index % self.n - low) % (high - low + 1)
            sampling = replace(sampling, seed=seed)
        return replace(request, id=f"{request.id}/{index}", sampling=sampling)


_MOST_PROMPTS = 2048  # as many as OpenAI takes; `max_choices` allows fewer


def read_chat(body: dict[str, Any], origin: RequestOrigin, *, passes_on: bool) -> ApiRequest:
    """OpenAI's chat completions.

    Args:
        body: the JSON object.
        origin: of the new request.
        passes_on: whether fields that Suffice does not know go on to a server that may.

    Raises:
        Problem: 400, with the field's name.
    """
    fields = Fields(body)
    messages = _messages(fields.take("messages"), passes_on)
    wanted_logprobs, top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, _TOP_LOGPROBS)
    if top and not wanted_logprobs:
        raise Problem(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    logprobs = top or 0 if wanted_logprobs else None
    tools = read_tools(fields, passes_on)
    return _wanted(fields, origin, passes_on, Prompt(messages, tools=tools), logprobs=logprobs)


def read_completion(body: dict[str, Any], origin: RequestOrigin, *, passes_on: bool) -> ApiRequest:
    """OpenAI's completions: raw text to go on with. Arguments as in `read_chat`."""
    fields = Fields(body)
    first, *more = _prompts(fields.take("prompt"))
    if fields.left.get("logprobs") is False:  # a number in this API
        fields.take("logprobs")
    logprobs = fields.integer("logprobs", 0, _TOP_LOGPROBS)
    wanted = _wanted(fields, origin, passes_on, first, logprobs=logprobs)
    return replace(wanted, more=tuple(replace(wanted.request, prompt=each) for each in more)) if more else wanted


def read_infer(body: dict[str, Any], origin: RequestOrigin, *, passes_on: bool) -> ApiRequest:
    """`/infer/TIER`: `prompt` is what the user says; or `messages` as in chat. Arguments as in `read_chat`."""
    fields = Fields(body)
    system, prompt, given = fields.text("system"), fields.text("prompt"), fields.take("messages")
    if (prompt is None) == (given is None):
        raise Problem(400, "give either prompt (a text) or messages (a conversation)", param="prompt")
    if prompt is not None:
        if not prompt.strip():
            raise wrong("prompt", prompt, "a text that is not empty")
        given = [{"role": "user", "content": prompt}]
    messages = _messages(given, passes_on)
    if system is not None:
        messages = ({"role": "system", "content": system}, *messages)
    for name, neutral in _ONLY_TEXT.items():
        if name in fields.left and not neutral(fields.take(name)):
            message = f"{name} is not supported on /infer: ask /v1/chat/completions"
            raise Problem(400, message, param=name, code="unsupported_parameter")
    return _wanted(fields, origin, passes_on, Prompt(messages))


def _wanted(
    fields: Fields, origin: RequestOrigin, passes_on: bool, prompt: Prompt, logprobs: int | None = None
) -> ApiRequest:
    """What all APIs have in common.

    Args:
        fields: what is left of the body.
        origin: as for `read_chat`.
        passes_on: as for `read_chat`.
        prompt: the first prompt.
        logprobs: as the session's `Request` has it.
    """
    options = fields.take("stream_options", {})
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise wrong("stream_options", options, 'an object such as {"include_usage": true}')
    model, tier = fields.text("model"), fields.text("tier")
    stream, strict = fields.flag("stream"), fields.flag("strict")
    cap, max_length = _cap(fields), fields.integer("max_length", 1, 2**31)
    keep = fields.flag("keep_stop_words")
    sampling, stop_words = _sampling(fields), _stop_words(fields)
    n = fields.integer("n", 1, 2**31) or 1
    if (best_of := fields.integer("best_of", 1, 2**31)) not in (None, n):
        message = f"best_of is {best_of}, which is not supported here: leave it out, or make n {best_of} and choose"
        raise Problem(400, message, param="best_of", code="unsupported_parameter")
    extra, ignored = _others(fields, passes_on)
    request = Request(
        prompt,
        logprobs=logprobs,
        max_new_tokens=cap,
        max_length=max_length,
        sampling=sampling,
        stop_words=stop_words,
        keep_stop_words=keep,
        extra=extra,
        client=origin.client,
        route=origin.route,
        trace_context=origin.trace_context,
        id=origin.id,
    )
    return ApiRequest(request, model, tier, stream, bool(options.get("include_usage")), strict, ignored, n)


def _prompts(given: Any) -> list[Prompt]:
    """The prompts of a completion: a text, tokens, or a list of either."""
    several = given if isinstance(given, list) and given and isinstance(given[0], (str, list)) else [given]
    if len(several) > _MOST_PROMPTS:
        raise Problem(400, f"{len(several)} prompts: at most {_MOST_PROMPTS}", param="prompt", code="invalid_value")
    return [_prompt(each) for each in several]


def _prompt(given: Any) -> Prompt:
    if isinstance(given, str) and given:
        return Prompt(raw=given)
    if isinstance(given, list) and given and all(type(each) is int and 0 <= each < _MOST_IDS for each in given):
        return Prompt(ids=tuple(given))
    message = "prompt must be a text that is not empty, a list of token ids, or a list of one of these"
    raise Problem(400, message, param="prompt", code="invalid_value")


def _messages(given: Any, passes_on: bool) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise Problem(400, "messages must be a list with at least one message", param="messages")
    return tuple(_message(each, f"messages[{i}]", passes_on) for i, each in enumerate(given))


def _message(given: Any, where: str, passes_on: bool) -> Message:
    if not isinstance(given, dict):
        raise wrong(where, given, 'an object such as {"role": "user", "content": "..."}')
    role, content = given.get("role"), given.get("content")
    if role not in _ROLES:
        raise wrong(f"{where}.role", role, f"one of {', '.join(_ROLES)}")
    if isinstance(content, list):
        content = _parts(content, where, passes_on)
    elif content is None and role == "assistant":
        content = None if passes_on and given.get("tool_calls") else ""
    elif not isinstance(content, str):
        raise wrong(f"{where}.content", content, "a text, or a list of parts")
    if passes_on:
        return {**given, "content": content}  # type: ignore[typeddict-item]  # what else it has is the server's to read
    message = {"role": "system" if role == "developer" else role, "content": content}
    return message | read_calls(given, where)  # type: ignore[return-value]


def _parts(parts: list[Any], where: str, passes_on: bool) -> Any:
    for each in parts:
        if not isinstance(each, dict) or not isinstance(each.get("type"), str):
            raise wrong(f"{where}.content", each, 'parts such as {"type": "text", "text": "..."}')
        if each["type"] == "text" and not isinstance(each.get("text"), str):
            raise wrong(f"{where}.content", each, 'parts such as {"type": "text", "text": "..."}')
        if each["type"] != "text" and not passes_on:
            raise Problem(
                400, f"this model reads text only, and {where} has a part of type {each['type']!r}", param=where
            )
    return parts if passes_on else "".join(each["text"] for each in parts)


def _cap(fields: Fields) -> int | Literal["auto"]:
    """Several names for one wish: where more than one is given, the ceiling has to hold for the largest."""
    given = [fields.tokens(name) for name in ("max_tokens", "max_completion_tokens", "max_new_tokens")]
    numbers = [value for value in given if isinstance(value, int)]
    return max(numbers, default="auto")


def _sampling(fields: Fields) -> Sampling:
    return Sampling(
        temperature=fields.number("temperature", 0, 2),
        top_p=fields.number("top_p", 0, 1, open_low=True),
        top_k=fields.integer("top_k", 0, 2**31),
        repetition_penalty=fields.number("repetition_penalty", 0, 10, open_low=True),
        seed=fields.integer("seed", *_SEED),
    )


def _stop_words(fields: Fields) -> tuple[str, ...]:
    given = fields.take("stop", [])
    words = [given] if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise wrong("stop", given, "a text that is not empty, or a list of such texts")
    if len(words) > _MAX_STOP_WORDS:
        raise Problem(400, f"stop has {len(words)} texts: at most {_MAX_STOP_WORDS} are allowed", param="stop")
    return tuple(words)


def _others(fields: Fields, passes_on: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What goes on to the server, and the names of what nobody here knows."""
    if "n_predict" in fields.left:  # llama.cpp takes it for the cap, and no tier's limit would hold
        message = "n_predict is not supported here: ask with max_tokens"
        raise Problem(400, message, param="n_predict", code="unsupported_parameter")
    for name, neutral in _NEUTRAL.items():
        if name in fields.left and not neutral(fields.take(name)):
            raise Problem(400, f"{name} is not supported here: leave it out", param=name, code="unsupported_parameter")
    if passes_on:
        return fields.left, ()
    for name, neutral in _SERVERS_OWN.items():
        if name in fields.left and not neutral(fields.take(name)):
            message = f"{name} would change the answer, and the local engine does not have it: leave it out"
            raise Problem(400, message, param=name, code="unsupported_parameter")
    return {}, tuple(name for name in fields.left if name not in _HARMLESS)

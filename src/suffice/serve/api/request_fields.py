"""The request bodies of all APIs: each field once, for reading it and for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from suffice.engines.base import Sampling, SamplingField
from suffice.prompt import Prompt
from suffice.serve.api.messages import MESSAGES
from suffice.serve.api.tools import CHOICE, PARALLEL, TOOLS
from suffice.serve.auth.on_runaway import ON_RUNAWAY
from suffice.serve.http.errors import Problem
from suffice.serve.http.fields import (
    Field,
    RequestBody,
    anything,
    flag,
    integer,
    number,
    one_of,
    refused,
    text,
    tokens,
    wrong,
)

__all__ = ["CHAT", "COMPLETION", "HARMLESS", "INFER"]

HARMLESS = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity"}
)
"""Fields that do not change the answer; the local engine has no use for them."""

_MAX_STOP_WORDS = 16
_MAX_PROMPTS = 2048  # as many as OpenAI takes; `max_choices` allows fewer
_MAX_IDS = 2**31  # tokens of any vocabulary
_TOP_LOGPROBS = 20  # OpenAI's limit for chat
_SOME_TEXT = {"type": "string", "minLength": 1}


def _read_stop(name: str, given: Any) -> tuple[str, ...]:
    words = [given] if isinstance(given, str) else given
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise wrong(name, given, "a text that is not empty, or a list of such texts")
    if len(words) > _MAX_STOP_WORDS:
        raise Problem(400, f"stop has {len(words)} texts: at most {_MAX_STOP_WORDS} are allowed", param=name)
    return tuple(words)


def _read_include_usage(name: str, options: Any) -> bool:
    if not isinstance(options, dict) or not isinstance(options.get("include_usage", False), bool):
        raise wrong(name, options, 'an object such as {"include_usage": true}')
    return bool(options.get("include_usage"))


def _read_prompts(name: str, given: Any) -> list[Prompt]:
    several = given if isinstance(given, list) and given and isinstance(given[0], (str, list)) else [given]
    if len(several) > _MAX_PROMPTS:
        raise Problem(400, f"{len(several)} prompts: at most {_MAX_PROMPTS}", param=name, code="invalid_value")
    return [_read_prompt(name, each) for each in several]


def _read_prompt(name: str, given: Any) -> Prompt:
    if isinstance(given, str) and given:
        return Prompt(raw=given)
    if isinstance(given, list) and given and all(type(each) is int and 0 <= each < _MAX_IDS for each in given):
        return Prompt(ids=tuple(given))
    message = "prompt must be a text that is not empty, a list of token ids, or a list of one of these"
    raise Problem(400, message, param=name, code="invalid_value")


def _read_user_text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise wrong(name, given, "a string")
    if not given.strip():
        raise wrong(name, given, "a text that is not empty")
    return given


def _sampling_field(each: SamplingField) -> Field:
    low, high = each.api_range
    if each.type is int:
        return integer(each.name, int(low), int(high))
    return number(each.name, low, high, above=each.open_low)


_TOP = integer("logprobs", 0, _TOP_LOGPROBS)


def _read_completion_logprobs(name: str, given: Any) -> int | None:
    return None if given is False else _TOP.read(name, given)  # a number in this API


def _refused(because: str, fields: Mapping[str, tuple[Any, ...]]) -> list[Field]:
    """Fields that are not supported, each with the values that ask for nothing."""
    return [refused(name, *neutral, because=because) for name, neutral in fields.items()]


_SHAPING: dict[str, tuple[Any, ...]] = {
    "echo": (False,),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "modalities": (["text"],),
}
"""Fields that would change the shape of the answer, with the values that do nothing."""
_SHARED = (
    text("model"),
    Field("tier", text("tier").read),
    flag("stream", default=False),
    Field(
        "stream_options", _read_include_usage, {"type": "object", "properties": {"include_usage": {"type": "boolean"}}}
    ),
    tokens("max_tokens"),
    tokens("max_completion_tokens"),
    tokens("max_new_tokens"),
    integer("max_length", 1, 2**31, description="Most tokens of prompt and answer together."),
    flag("strict", description="Refuse what would be clamped.", default=False),
    *map(_sampling_field, Sampling.fields()),
    Field(
        "stop", _read_stop, {"anyOf": [_SOME_TEXT, {"type": "array", "items": _SOME_TEXT, "maxItems": _MAX_STOP_WORDS}]}
    ),
    flag("keep_stop_words", default=False),
    one_of(
        "on_runaway", *ON_RUNAWAY, description="When the answer repeats itself: stop it, only tell, or do not look."
    ),
    Field("best_of", integer("best_of", 1, 2**31).read),
    refused("n_predict", because="is not supported here: ask with max_tokens"),  # llama.cpp's cap: no tier would hold
    *_refused("is not supported here: leave it out", _SHAPING),
)
"""What all APIs have."""

_SERVERS_OWN_UNDOCUMENTED = _refused(
    "would change the answer, and the local engine does not have it: leave it out",
    {
        "response_format": ({"type": "text"},),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logit_bias": ({},),
        "min_p": (0,),
        "min_tokens": (0,),
        "reasoning_effort": (),
        "chat_template_kwargs": ({},),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "structured_outputs": (),
    },
)
"""Fields that change the answer, known to servers and not to the local engine, with the values that do nothing."""
_RESPONSE_FORMAT = {"type": "object", "description": "In front of servers; handed on as it is."}
_SERVERS_OWN = [
    replace(each, schema=_RESPONSE_FORMAT) if each.name == "response_format" else each
    for each in _SERVERS_OWN_UNDOCUMENTED
]

_SEVERAL = Field(
    "n",
    integer("n", 1, 2**31).read,
    {"type": "integer", "minimum": 1, "description": "Answers to each prompt; at most `max_choices` in all."},
)
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": _MAX_IDS - 1}, "minItems": 1}
_PROMPTS = [_SOME_TEXT, _IDS, *({"type": "array", "items": each, "minItems": 1} for each in (_SOME_TEXT, _IDS))]
_LOGPROBS = {
    "description": "Say how likely each token was, and so many others.",
    "anyOf": [{"type": "integer", "minimum": 0, "maximum": _TOP_LOGPROBS}, {"const": False}],
}
_CHAT_ONLY: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}

CHAT = RequestBody(
    "Chat",
    (
        *_SHARED,
        anything("messages", **MESSAGES),
        _SEVERAL,
        TOOLS,
        flag("logprobs", default=False, description="Say how likely each token was."),
        integer("top_logprobs", 0, _TOP_LOGPROBS, description="With logprobs: so many others."),
    ),
    (CHOICE, PARALLEL, *_SERVERS_OWN),
    required=("messages",),
)
COMPLETION = RequestBody(
    "Completion",
    (
        *_SHARED,
        Field(
            "prompt",
            _read_prompts,
            {"description": "A text, token ids, or a list of either, each of which is answered.", "anyOf": _PROMPTS},
        ),
        _SEVERAL,
        Field("logprobs", _read_completion_logprobs, _LOGPROBS),
    ),
    _SERVERS_OWN_UNDOCUMENTED,
    required=("prompt",),
)
INFER = RequestBody(
    "Infer",
    (
        *_SHARED,
        Field("prompt", _read_user_text, {**_SOME_TEXT, "pattern": r"\S"}),
        anything("messages", **MESSAGES),
        text("system"),
        *_refused("is not supported on /infer: ask /v1/chat/completions", _CHAT_ONLY),
    ),
    _SERVERS_OWN_UNDOCUMENTED,
    schema={
        "oneOf": [  # one of the two, and not the other
            {"properties": {name: {"not": {"type": "null"}}, other: {"type": "null"}}, "required": [name]}
            for name, other in (("prompt", "messages"), ("messages", "prompt"))
        ]
    },
)

"""The shapes of what is asked, in JSON Schema; `serve/api/requests.py` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice.budget.types import Tier

__all__ = ["schemas"]

_CAP = {"description": "A number of tokens, or auto.", "anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto"]}]}
_TEXT = {"type": "string"}
_SOME_TEXT = {"type": "string", "minLength": 1}
_SHARED: dict[str, Any] = {
    "model": _TEXT,
    "stream": {"type": "boolean", "default": False},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "max_tokens": _CAP,
    "max_completion_tokens": _CAP,
    "max_new_tokens": _CAP,
    "max_length": {
        "type": "integer",
        "minimum": 1,
        "maximum": 2**31,
        "description": "Most tokens of prompt and answer together.",
    },
    "strict": {"type": "boolean", "description": "Refuse what would be clamped.", "default": False},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": 0, "maximum": 2**31},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "stop": {"anyOf": [_SOME_TEXT, {"type": "array", "items": _SOME_TEXT, "maxItems": 16}]},
    "keep_stop_words": {"type": "boolean", "default": False},
}
_SEVERAL = {"type": "integer", "minimum": 1, "description": "Answers to each prompt; at most `max_choices` in all."}
_TOOL = {
    "type": "object",
    "properties": {
        "type": {"enum": ["function"]},
        "function": {
            "type": "object",
            "properties": {"name": _TEXT, "description": _TEXT, "parameters": {"type": "object"}},
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
_CALL = {
    "type": "object",
    "properties": {
        "function": {
            "type": "object",
            "properties": {"name": _TEXT, "arguments": {"type": "string", "description": "JSON in a text."}},
            "required": ["name"],
        },
    },
    "required": ["function"],
}
_CHAT_ONLY: dict[str, Any] = {
    "n": _SEVERAL,
    "tools": {
        "type": "array",
        "items": _TOOL,
        "description": "Functions that the answer may call; on the local engine, where the chat template has tools.",
    },
    "tool_choice": {
        "anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}],
        "description": "On the local engine none or auto.",
    },
    "parallel_tool_calls": {"type": "boolean"},
    "logprobs": {"type": "boolean", "default": False, "description": "Say how likely each token was."},
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20, "description": "With logprobs: so many others."},
    "response_format": {"type": "object", "description": "In front of servers; handed on as it is."},
}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
_COMPLETION_ONLY: dict[str, Any] = {
    "n": _SEVERAL,
    "logprobs": {
        "description": "Say how likely each token was, and so many others.",
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": 20}, {"const": False}],
    },
    "prompt": {
        "description": "A text, token ids, or a list of either, each of which is answered.",
        "anyOf": [
            _SOME_TEXT,
            _IDS,
            {"type": "array", "items": _SOME_TEXT, "minItems": 1},
            {"type": "array", "items": _IDS, "minItems": 1},
        ],
    },
}
_MESSAGES = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}
_NULL = {"type": "null"}


def schemas(tiers: Mapping[str, Tier], remote: bool) -> dict[str, Any]:
    """What the document calls `Message`, `Chat`, `Completion` and `Infer`, with these tiers."""
    tier = {
        "enum": [*tiers, "auto"],
        "description": "A tier's name, or auto: the smallest that holds what is expected.",
    }
    either = {"prompt": {**_SOME_TEXT, "pattern": r"\S"}, "messages": _MESSAGES}
    infer = _object({**_SHARED, **either, "system": _TEXT})  # whose tier is in its path
    infer["oneOf"] = [  # one of the two, and not the other
        {"properties": {name: {"not": _NULL}, other: _NULL}, "required": [name]}
        for name, other in (("prompt", "messages"), ("messages", "prompt"))
    ]
    return {
        "Message": _message(remote),
        "Chat": _object({**_SHARED, **_CHAT_ONLY, "messages": _MESSAGES, "tier": tier}, "messages"),
        "Completion": _object({**_SHARED, **_COMPLETION_ONLY, "tier": tier}, "prompt"),
        "Infer": infer,
    }


def _message(remote: bool) -> dict[str, Any]:
    """Parts other than text are an upstream's to read."""
    part = {"type": "object", "properties": {"type": {"const": "text"}, "text": _TEXT}, "required": ["type", "text"]}
    other = {
        "type": "object",
        "properties": {"type": {"type": "string", "not": {"const": "text"}}},
        "required": ["type"],
    }
    parts = {"type": "array", "items": {"anyOf": [part, other]} if remote else part}
    roles = ["system", "developer", "user", "assistant", "tool", "function"]
    calls = {"type": "array", "items": _CALL, "description": "Of the assistant; its content may then be null."}
    return {
        "type": "object",
        "properties": {
            "role": {"enum": roles},
            "content": {"anyOf": [_TEXT, parts, _NULL]},
            "tool_calls": calls,
            "tool_call_id": {**_TEXT, "description": "Which call a tool's message answers."},
        },
        "required": ["role"],
        "anyOf": [
            {"properties": {"role": {"const": "assistant"}}},
            {"properties": {"content": {"not": _NULL}}, "required": ["content"]},
        ],
    }


def _object(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """An object whose other fields may be `null`, which is the same as leaving them out."""
    found = {name: each if name in required else _optional(each) for name, each in properties.items()}
    return {"type": "object", "properties": found, "required": list(required)}


def _optional(schema: Mapping[str, Any]) -> dict[str, Any]:
    match schema:
        case {"anyOf": choices}:
            return {**schema, "anyOf": [*choices, _NULL]}
        case {"enum": values}:
            return {**schema, "enum": [*values, None]}
    return {**schema, "type": [schema["type"], "null"]}

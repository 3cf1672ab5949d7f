"""The OpenAPI document, written down as data: the server's routes stay free of schema machinery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice import __version__
from suffice.budget.types import Tier

__all__ = ["document"]

_CAP = {"description": "A number of tokens, or auto.", "anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto"]}]}
_TEXT = {"type": "string"}
_SOME_TEXT = {"type": "string", "minLength": 1}
_STREAM = {
    "description": "Server-sent events: JSON in `data`, and at the end [DONE].",
    "type": "object",
    "properties": {"data": _TEXT},
    "required": ["data"],
}
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
_MESSAGES = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}
_OBJECT = {"type": "object"}
_NULL = {"type": "null"}
_NAMED = ("/v1/chat/completions", "/v1/completions", "/v1/budget")
"""Routes whose `model` is one that /v1/models lists."""


def document(tiers: Mapping[str, Tier], *, remote: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these tiers, in front of other servers or not."""
    paths: dict[str, Any] = {
        f"/infer/{tier.name}": _generating(
            f"Answer with at most {tier.max_new_tokens} tokens.", "Infer", needs_key=tier.needs_key
        )
        for tier in tiers.values()
    }
    paths["/infer/auto"] = _generating("Answer; the tier is chosen.", "Infer")
    paths["/v1/chat/completions"] = _generating("OpenAI's chat completions.", "Chat")
    paths["/v1/completions"] = _generating("OpenAI's completions.", "Completion")
    paths["/v1/budget"] = {"post": _post("The length decision and its reasons; nothing is generated.", "Chat")}
    for path, summary, kind, errors in (
        ("/v1/models", "The models that are served.", "application/json", (401,)),
        ("/health", "Whether the process is alive.", "application/json", ()),
        ("/ready", "Whether requests can be taken now.", "application/json", (503,)),
        ("/metrics", "Prometheus metrics.", "text/plain", ()),
    ):
        paths[path] = {"get": {"summary": summary, "responses": _responses(kind, *errors)}}
    for path in _NAMED:
        paths[path]["post"]["operationId"] = path
    paths["/v1/models"]["get"]["responses"]["200"]["links"] = {
        path: {"operationId": path, "requestBody": {"model": "$response.body#/data/0/id"}} for path in _NAMED
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Suffice", "version": __version__, "description": "As many tokens as suffice."},
        "paths": paths,
        "components": {
            "schemas": _schemas(tiers, remote),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _generating(summary: str, schema: str, *, needs_key: bool = False) -> dict[str, Any]:
    operation = _post(summary, schema)
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": _STREAM}
    if needs_key:
        operation["security"] = [{"key": []}]
    return {"post": operation}


def _post(summary: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": reference}}},
        "responses": _responses("application/json", 400, 401, 403, 404, 413, 429, 502, 503, 504),
    }


def _responses(kind: str, *errors: int) -> dict[str, Any]:
    schema = _TEXT if kind == "text/plain" else _OBJECT
    responses: dict[str, Any] = {"200": {"description": "The answer.", "content": {kind: {"schema": schema}}}}
    error = {"description": "A refusal.", "content": {"application/json": {"schema": _OBJECT}}}
    return responses | {str(status): error for status in errors}


def _schemas(tiers: Mapping[str, Tier], remote: bool) -> dict[str, Any]:
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
        "Chat": _object({**_SHARED, "messages": _MESSAGES, "tier": tier}, "messages"),
        "Completion": _object({**_SHARED, "prompt": _SOME_TEXT, "tier": tier}, "prompt"),
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
    return {
        "type": "object",
        "properties": {"role": {"enum": roles}, "content": {"anyOf": [_TEXT, parts]}},
        "required": ["role", "content"],
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

"""The OpenAPI document, written down as data: the server's routes stay free of schema machinery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice import __version__
from suffice.budget.types import Tier

__all__ = ["document"]

_CAP = {"description": "A number of tokens, or auto.", "anyOf": [{"type": "integer", "minimum": 1}, {"enum": ["auto"]}]}
_TEXT = {"type": "string"}
_SHARED: dict[str, Any] = {
    "model": _TEXT,
    "stream": {"type": "boolean", "default": False},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "max_tokens": _CAP,
    "max_completion_tokens": _CAP,
    "max_new_tokens": _CAP,
    "max_length": {"type": "integer", "minimum": 1, "description": "Most tokens of prompt and answer together."},
    "strict": {"type": "boolean", "description": "Refuse what would be clamped.", "default": False},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": 0, "maximum": 2**31},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
    "seed": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 16}]},
    "keep_stop_words": {"type": "boolean", "default": False},
}
_MESSAGES = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}
_TIER = {"type": "string", "description": "A tier's name, or auto: the smallest that holds what is expected."}
_OBJECT = {"type": "object"}


def document(tiers: Mapping[str, Tier]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these tiers."""
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
    for path, summary, kind in (
        ("/v1/models", "The models that are served.", "application/json"),
        ("/health", "Whether the process is alive.", "application/json"),
        ("/ready", "Whether requests can be taken now.", "application/json"),
        ("/metrics", "Prometheus metrics.", "text/plain"),
    ):
        paths[path] = {
            "get": {"summary": summary, "responses": _responses(kind, *((503,) if path == "/ready" else ()))}
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Suffice", "version": __version__, "description": "As many tokens as suffice."},
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _generating(summary: str, schema: str, *, needs_key: bool = False) -> dict[str, Any]:
    operation = _post(summary, schema)
    operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": _TEXT}
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


def _schemas() -> dict[str, Any]:
    roles = ["system", "developer", "user", "assistant", "tool", "function"]
    content = {"anyOf": [_TEXT, {"type": "array", "items": _OBJECT}]}
    message = {"role": {"type": "string", "enum": roles}, "content": content}
    chat = {**_SHARED, "messages": _MESSAGES, "tier": _TIER}
    completion = {**_SHARED, "prompt": {"type": "string", "minLength": 1}, "tier": _TIER}
    infer = {**_SHARED, "prompt": {"type": "string", "minLength": 1}, "messages": _MESSAGES, "system": _TEXT}
    return {
        "Message": {"type": "object", "properties": message, "required": ["role", "content"]},
        "Chat": {"type": "object", "properties": chat, "required": ["messages"]},
        "Completion": {"type": "object", "properties": completion, "required": ["prompt"]},
        "Infer": {
            "type": "object",
            "properties": infer,
            "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        },
    }

"""The OpenAPI document, written down as data: the server's routes stay free of schema machinery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from suffice.budget.types import Tier
from suffice.serve.api.schemas import schemas
from suffice.serve.log.usage_query import GROUPS, MAX_DAYS
from suffice.version import __version__

__all__ = ["document"]

_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_STREAM = {
    "description": "Server-sent events: JSON in `data`, and at the end [DONE].",
    "type": "object",
    "properties": {"data": _TEXT},
    "required": ["data"],
}
_NAMED = ("/v1/chat/completions", "/v1/completions", "/v1/budget")
"""Routes whose `model` is one that /v1/models lists."""


def document(tiers: Mapping[str, Tier], models: Iterable[str], *, remote: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these tiers and models, in front of other servers or not."""
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
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": list(models)}}
    responses = _responses("application/json", 401, 403, 404)
    paths["/v1/models/{model}"] = {"get": {"summary": "One of them.", "parameters": [name], "responses": responses}}
    paths["/v1/usage"] = {"get": _usage()}
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
            "schemas": schemas(tiers, remote),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _usage() -> dict[str, Any]:
    by = {"name": "by", "in": "query", "schema": {"type": "string", "enum": list(GROUPS), "default": "day"}}
    days = {"name": "days", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DAYS}}
    responses = _responses("application/json", 400, 401, 429, 503)
    return {"summary": "What the caller used lately.", "parameters": [by, days], "responses": responses}


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

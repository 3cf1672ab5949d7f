"""The OpenAPI document, made of the routes, the tiers and the model of a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from suffice.budget.types import Tier
from suffice.serve.api.messages import message_schema
from suffice.serve.http.router import Route
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


def document(routes: Sequence[Route], tiers: Mapping[str, Tier], model: str, *, forwards: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server with these tiers and this model, in front of other servers or not."""
    paths: dict[str, dict[str, Any]] = {}
    named = []
    for route in routes:
        if not route.summary:
            continue
        operation = _operation(route, model)
        if route.parameter == "tier":
            for name in (*tiers, "auto"):
                paths[route.template.format(tier=name)] = {"post": operation | _of_tier(tiers.get(name))}
            continue
        if route.body is not None:
            operation["operationId"] = route.template
            named.append(route.template)
        paths.setdefault(route.template, {})[route.method.lower()] = operation
    paths["/v1/models"]["get"]["responses"]["200"]["links"] = {
        path: {"operationId": path, "requestBody": {"model": "$response.body#/data/0/id"}} for path in named
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Suffice", "version": __version__, "description": "As many tokens as suffice."},
        "paths": paths,
        "components": {
            "schemas": _schemas(routes, tiers, forwards),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _schemas(routes: Iterable[Route], tiers: Iterable[str], forwards: bool) -> dict[str, Any]:
    """Those of messages and of all bodies; a tier is named in the path or in the body."""
    said = "A tier's name, or auto: the smallest that holds what is expected."
    tier = {"enum": [*tiers, "auto", None], "description": said}
    found = {"Message": message_schema(forwards)}
    for route in routes:
        if route.body is not None and route.body.name not in found:
            found[route.body.name] = schema = route.body.schema()
            if route.parameter != "tier":
                schema["properties"]["tier"] = tier
    return found


def _of_tier(tier: Tier | None) -> dict[str, Any]:
    """What only the operation of `/infer/TIER` has; `auto` has no tier."""
    if tier is None:
        return {"summary": "Answer; the tier is chosen."}
    own: dict[str, Any] = {"summary": f"Answer with at most {tier.max_new_tokens} tokens."}
    return own | {"security": [{"key": []}]} if tier.needs_key else own


def _operation(route: Route, model: str) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary, "responses": _responses(route)}
    if route.body is not None:
        reference = {"$ref": f"#/components/schemas/{route.body.name}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
    parameters = list(route.parameters)
    if route.parameter == "model":
        schema = {"type": "string", "enum": [model]}
        parameters.append({"name": "model", "in": "path", "required": True, "schema": schema})
    return operation | {"parameters": parameters} if parameters else operation


def _responses(route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {route.content: {"schema": _TEXT if route.content == "text/plain" else _OBJECT}}
    if route.streams:
        content["text/event-stream"] = {"schema": _STREAM}
    error = {"description": "A refusal.", "content": {"application/json": {"schema": _OBJECT}}}
    answer = {"200": {"description": "The answer.", "content": content}}
    return answer | {str(status): error for status in route.errors}

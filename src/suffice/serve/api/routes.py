"""All routes of the server: the router, the labels in metrics and the OpenAPI document are made of this table."""

from __future__ import annotations

from suffice.json_codec import dump
from suffice.serve.api import handlers
from suffice.serve.api.generate import Generate
from suffice.serve.api.openapi import document
from suffice.serve.api.request_fields import CHAT, COMPLETION, INFER
from suffice.serve.api.request_reader import read_chat, read_completion, read_infer
from suffice.serve.api.responses import ChatFormat, CompletionFormat, InferFormat
from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.middleware import send_bytes
from suffice.serve.http.router import Route
from suffice.serve.log.usage_query import GROUPS, MAX_DAYS
from suffice.serve.service import Service

__all__ = ["ROUTES"]

_ASSETS = ("playground.css", "playground.js", "budget.js", "dashboard.js", "markdown.js", "usage.js", "words.js")
_POST_ERRORS = (400, 401, 403, 404, 413, 429, 502, 503, 504)
_USAGE_QUERY = (
    {"name": "by", "in": "query", "schema": {"type": "string", "enum": list(GROUPS), "default": "day"}},
    {"name": "days", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DAYS}},
)


async def _openapi(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /openapi.json`."""
    await send_bytes(send, dump(document(ROUTES, service.tiers, service.models, forwards=service.forwards)))


ROUTES = (
    Route(
        method="POST",
        path="/infer/{tier}",
        handler=Generate(read_infer, InferFormat()),
        summary="Answer.",
        body=INFER,
        streams=True,
        errors=_POST_ERRORS,
    ),
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=Generate(read_chat, ChatFormat()),
        summary="OpenAI's chat completions.",
        body=CHAT,
        streams=True,
        errors=_POST_ERRORS,
    ),
    Route(
        method="POST",
        path="/v1/completions",
        handler=Generate(read_completion, CompletionFormat()),
        summary="OpenAI's completions.",
        body=COMPLETION,
        streams=True,
        errors=_POST_ERRORS,
    ),
    Route(
        method="POST",
        path="/v1/budget",
        handler=handlers.budget,
        summary="The length decision and its reasons; nothing is generated.",
        body=CHAT,
        errors=_POST_ERRORS,
    ),
    Route(
        method="GET",
        path="/v1/models",
        handler=handlers.list_models,
        summary="The models that are served.",
        errors=(401,),
    ),
    Route(
        method="GET",
        path="/v1/models/{model:path}",
        handler=handlers.show_model,
        summary="One of them.",
        errors=(401, 403, 404),
    ),
    Route(
        method="GET",
        path="/v1/usage",
        handler=handlers.usage,
        summary="What the caller used lately.",
        parameters=_USAGE_QUERY,
        errors=(400, 401, 429, 503),
    ),
    Route(method="GET", path="/health", handler=handlers.health, summary="Whether the process is alive."),
    Route(
        method="GET",
        path="/ready",
        handler=handlers.ready,
        summary="Whether requests can be taken now.",
        errors=(503,),
    ),
    Route(method="GET", path="/metrics", handler=handlers.metrics, summary="Prometheus metrics.", content="text/plain"),
    Route(method="GET", path="/openapi.json", handler=_openapi),
    Route(method="GET", path="/docs", handler=handlers.page("docs.html")),
    Route(method="GET", path="/", handler=handlers.page("index.html")),
    *(Route(method="GET", path=f"/{name}", handler=handlers.page(name)) for name in _ASSETS),
)

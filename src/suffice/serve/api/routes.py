"""All routes of the server: the router, the labels in metrics and the OpenAPI document are made of this table."""

from __future__ import annotations

from typing import Any

from suffice.json_codec import dump
from suffice.serve.api import handlers
from suffice.serve.api.generate import Generate, Reader
from suffice.serve.api.openapi import document
from suffice.serve.api.request_fields import CHAT, COMPLETION, INFER
from suffice.serve.api.request_reader import read_chat, read_completion, read_infer
from suffice.serve.api.responses import ChatFormat, CompletionFormat, Format, InferFormat
from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.fields import RequestBody
from suffice.serve.http.middleware import send_bytes
from suffice.serve.http.router import Handler, Route
from suffice.serve.request_log.usage_query import GROUPS, MAX_DAYS
from suffice.serve.service import Service

__all__ = ["ROUTES"]

_ASSETS = ("playground.css", "playground.js", "budget.js", "dashboard.js", "markdown.js", "usage.js", "words.js")
_POST_ERRORS = (400, 401, 403, 404, 413, 429, 502, 503, 504)
_USAGE_QUERY = (
    {"name": "by", "in": "query", "schema": {"type": "string", "enum": list(GROUPS), "default": "day"}},
    {"name": "days", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DAYS}},
)


async def _openapi(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    name = service.model_name
    await send_bytes(send, dump(document(ROUTES, service.tiers, name, forwards=service.forwards)))


def _post(path: str, handler: Handler, summary: str, body: RequestBody, *, streams: bool = False) -> Route:
    return Route(
        method="POST", path=path, handler=handler, summary=summary, body=body, streams=streams, errors=_POST_ERRORS
    )


def _generate(path: str, read: Reader, shape: Format, summary: str, body: RequestBody) -> Route:
    return _post(path, Generate(read, shape), summary, body, streams=True)


def _get(path: str, handler: Handler, summary: str = "", *errors: int, **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, errors=errors, **more)


ROUTES = (
    _generate("/infer/{tier}", read_infer, InferFormat(), "Answer.", INFER),
    _generate("/v1/chat/completions", read_chat, ChatFormat(), "OpenAI's chat completions.", CHAT),
    _generate("/v1/completions", read_completion, CompletionFormat(), "OpenAI's completions.", COMPLETION),
    _post("/v1/budget", handlers.budget, "The length decision and its reasons; nothing is generated.", CHAT),
    _get("/v1/models", handlers.list_models, "The models that are served.", 401),
    _get("/v1/models/{model:path}", handlers.show_model, "One of them.", 401, 403, 404),
    _get("/v1/usage", handlers.usage, "What the caller used lately.", 400, 401, 429, 503, parameters=_USAGE_QUERY),
    _get("/health", handlers.health, "Whether the process is alive."),
    _get("/ready", handlers.ready, "Whether requests can be taken now.", 503),
    _get("/metrics", handlers.metrics, "Prometheus metrics.", content="text/plain"),
    _get("/openapi.json", _openapi),
    _get("/docs", handlers.page("docs.html")),
    _get("/", handlers.page("index.html")),
    *(_get(f"/{name}", handlers.page(name)) for name in _ASSETS),
)

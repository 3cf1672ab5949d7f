"""The handlers of the routes that generate nothing: models, budgets, usage, health, pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suffice.json_codec import dump
from suffice.serve.api.request_reader import read_chat, read_completion
from suffice.serve.auth.tiers import decide, find_tier
from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.body import parse_object, read_body
from suffice.serve.http.errors import Problem
from suffice.serve.http.middleware import send_bytes
from suffice.serve.http.router import Handler
from suffice.serve.request_log.usage_query import read_query
from suffice.serve.service import Service

__all__ = ["budget", "health", "list_models", "metrics", "page", "ready", "show_model", "usage"]

_KINDS = {".html": "html", ".css": "css", ".js": "javascript"}
_PAGES = Path(__file__).parents[1] / "pages"
_ONLY_FROM_HERE = "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'none'"


async def list_models(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    permitted = service.caller(scope).models
    models = [_shown(service, name) for name in service.models if not permitted or name in permitted]
    await send_bytes(send, dump({"object": "list", "data": models}))


async def show_model(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    caller = service.caller(scope)
    name = service.check_model(scope["path_params"]["model"], caller)
    await send_bytes(send, dump(_shown(service, name)))


def _shown(service: Service, name: str) -> dict[str, Any]:
    context = service.pool.capabilities().context_tokens
    return {"id": name, "object": "model", "created": 0, "owned_by": "suffice", "max_model_len": context}


async def usage(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    caller = service.caller(scope)
    by, days = read_query(scope["query_string"])
    rows = await service.usage.of(caller.name, by, days)
    await send_bytes(send, dump({"object": "suffice.usage", "by": by, "days": days, "data": rows}))


async def budget(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """`POST /v1/budget`: the decision for a chat (or, with `prompt`, a completion), nothing generated."""
    caller = service.caller(scope)
    body = parse_object(await read_body(receive, service.settings.max_body_bytes))
    read = read_completion if "prompt" in body and "messages" not in body else read_chat
    path = "/v1/completions" if read is read_completion else "/v1/chat/completions"
    api = read(body, service.origin(scope, caller, path), forwards=service.forwards)
    if len(api.prompts) > 1:
        raise Problem(400, "a budget is for one prompt: ask for each", param="prompt", code="invalid_value")
    api = api.for_model(service.check_model(api.model, caller))
    tier, decided = await decide(service.session, api.request, find_tier(api.tier, service.tiers, caller), caller)
    said = {"model": api.model, "tier": tier.name, "budget": decided.to_dict()}
    await send_bytes(send, dump({"object": "suffice.budget", **said}))


async def health(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    await send_bytes(send, dump({"status": "ok"}))


async def ready(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /ready`: 503 once the server was told to end, or while no engine can take requests."""
    reasons = ["the server is shutting down"] if service.leaving else []
    if not (await service.pool.health()).ok:
        name = service.model_name
        reasons.append(f"{name}: no engine can take requests; `suffice serve --check` says why")
    said = {"ready": not reasons, "reasons": reasons}
    await send_bytes(send, dump(said), status=503 if reasons else 200)


async def metrics(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
    await send_bytes(send, service.metrics.text(), kind="text/plain; version=0.0.4; charset=utf-8")


def page(name: str) -> Handler:
    """The handler that sends a file of the playground."""
    path = _PAGES / name

    async def send_page(service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        scope["exchange"].headers["content-security-policy"] = _ONLY_FROM_HERE
        await send_bytes(send, path.read_bytes(), kind=f"text/{_KINDS[path.suffix]}; charset=utf-8")

    return send_page

"""One row per request: from its state to what the store keeps. No text of prompts or answers."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import TypedDict

from suffice.engines.base import Usage
from suffice.serve.request.state import RequestState

__all__ = ["RequestRow", "row_of"]


class RequestRow(TypedDict):
    """What is known of a request that has ended; metrics, spans and the access log read it too."""

    time: float
    """When it came, in seconds since 1970."""
    day: str
    """Of UTC, as YYYY-MM-DD."""
    request_id: str
    key_id: str | None
    key_name: str | None
    route: str
    model: str | None
    upstream: str | None
    tier: str | None
    stream: bool
    status: int
    """Of HTTP; 499 where the client went away."""
    error: str | None
    prompt_tokens: int
    answer_tokens: int
    thinking_tokens: int
    max_new_tokens: int | None
    p50: int | None
    """Quantiles of the predicted length."""
    p90: int | None
    p95: int | None
    p99: int | None
    limited_by: str | None
    finish: str
    finish_detail: str
    queue_seconds: float
    first_token_seconds: float | None
    seconds: float


@lru_cache(2)
def _day(days: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(days * 86400))


def row_of(state: RequestState) -> RequestRow:
    choices, exchange, problem = state.choices, state.exchange, state.problem
    usage = choices.usage if choices and state.generated else Usage(0, 0)
    finish = choices.finish if choices else None
    first = choices.first_piece if choices else None
    quantiles = {round(p * 100): tokens for p, tokens in choices.budget.quantiles} if choices else {}
    return {
        "time": state.time,
        "day": _day(int(state.time) // 86400),
        "request_id": exchange.request_id,
        "key_id": state.caller.key_id or None,
        "key_name": state.caller.name or None,
        "route": state.route,
        "model": choices.model if choices else None,
        "upstream": state.upstream[:200] or None,
        "tier": choices.tier if choices else None,
        "stream": state.api.stream,
        "status": 499 if exchange.gone else exchange.status or (problem.status if problem else 500),
        "error": problem.code or str(problem.status) if problem else None,
        "prompt_tokens": usage.prompt_tokens,
        "answer_tokens": usage.answer_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "max_new_tokens": choices.budget.max_new_tokens if choices else None,
        "p50": quantiles.get(50),
        "p90": quantiles.get(90),
        "p95": quantiles.get(95),
        "p99": quantiles.get(99),
        "limited_by": choices.budget.limited_by if choices else None,
        "finish": finish.reason if finish else ("error" if problem else "cancelled"),
        "finish_detail": finish.by[:40] if finish else "client_gone" if exchange.gone else "",
        "queue_seconds": choices.waited if choices else 0.0,
        "first_token_seconds": first - exchange.started if first is not None else None,
        "seconds": exchange.seconds,
    }

"""One row per request: from a ticket to what the store keeps. No text of prompts or answers."""

from __future__ import annotations

import time
from typing import Any

from suffice.serve.request_state import RequestState

__all__ = ["row_of"]


def row_of(ticket: RequestState, *, gone: bool) -> dict[str, Any]:
    """The row of a request that has ended, in whatever way."""
    reply, exchange = ticket.reply, ticket.exchange
    budget = reply.budget if reply else None
    usage = reply.usage_object() if reply else {}
    quantiles = {f"p{round(p * 100)}": tokens for p, tokens in budget.quantiles} if budget else {}
    finish = reply.finish if reply else None
    problem = ticket.problem
    reason = finish.reason if finish else ("error" if problem else "cancelled")
    return {
        "time": ticket.time,
        "day": time.strftime("%Y-%m-%d", time.gmtime(ticket.time)),
        "request_id": exchange.request_id,
        "key_id": ticket.caller.key_id or None,
        "key_name": ticket.caller.name or None,
        "route": ticket.route,
        "model": reply.model if reply else None,
        "upstream": ticket.upstream[:200] or None,
        "tier": reply.tier if reply else None,
        "stream": ticket.wanted.stream,
        "status": 499 if gone else exchange.status or (problem.status if problem else 500),
        "error": problem.code or str(problem.status) if problem else None,
        "prompt_tokens": usage["prompt_tokens"] if ticket.generated else 0,
        "answer_tokens": usage["completion_tokens"] if ticket.generated else 0,
        "thinking_tokens": reply.thinking_tokens if reply else 0,
        "max_new_tokens": budget.max_new_tokens if budget else None,
        **{name: quantiles.get(name) for name in ("p50", "p90", "p95", "p99")},
        "limited_by": budget.limited_by if budget else None,
        "finish": reason,
        "finish_detail": finish.by[:40] if finish else "client_gone" if gone else "",
        "queue_seconds": ticket.slot.waited,
        "first_token_seconds": first - exchange.started if (first := reply and reply.first_text) else None,
        "seconds": exchange.seconds,
    }

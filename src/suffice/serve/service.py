"""What all requests share: models, callers, the queue. A request's holdings are taken and given back here alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suffice.budget.types import Tier
from suffice.engines.pool import Pool
from suffice.serve.api.requests import RequestOrigin
from suffice.serve.auth.api_keys import KeyRing
from suffice.serve.auth.permissions import Caller, check_known, check_tier
from suffice.serve.auth.tiers import AUTO, find_tier, load_budgeter
from suffice.serve.config import ServeSettings
from suffice.serve.http.asgi import Scope
from suffice.serve.http.errors import Problem, shutting_down
from suffice.serve.http.router import Route
from suffice.serve.learning.observations import observations_of
from suffice.serve.limits.admission import Admission
from suffice.serve.limits.quotas import Quotas
from suffice.serve.log.rows import row_of
from suffice.serve.log.texts import PromptLog, prompt_rows_of
from suffice.serve.log.usage_query import RecentUsage
from suffice.serve.log.writer import RequestLogWriter
from suffice.serve.observe.access_log import AccessLog
from suffice.serve.observe.metrics import Metrics
from suffice.serve.observe.spans import Spans, trace_context
from suffice.serve.request_state import RequestState
from suffice.session import Session

__all__ = ["ServedModel", "Service"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model, by its name."""

    name: str
    session: Session
    pool: Pool


class Service:
    """The server's state.

    Args:
        settings: what the server does.
        models: by name; the first is the default.
        ring: who may ask.
        ledger: where every request ends as a row.
        quotas: how much each key may take.
        usage: what each key used lately.
        remote: whether requests go on to other servers.
        spans: who traces requests, if anybody does.
        prompts: who keeps texts, if anybody does.
    """

    def __init__(
        self,
        settings: ServeSettings,
        models: Mapping[str, ServedModel],
        ring: KeyRing,
        ledger: RequestLogWriter,
        quotas: Quotas,
        usage: RecentUsage,
        *,
        remote: bool,
        spans: Spans | None = None,
        prompts: PromptLog | None = None,
    ) -> None:
        self.settings, self.models, self.remote = settings, models, remote
        self.spans, self.prompts = spans, prompts
        self.access_log = AccessLog() if settings.access_log else None
        self.admission = Admission(settings.running_limit, settings.max_waiting)
        self.ring, self.ledger, self.quotas, self.usage = ring, ledger, quotas, usage
        pools = {name: model.pool for name, model in models.items()}
        self.metrics = Metrics(self.admission, pools, lambda: ledger.left_out)
        self.leaving = False
        """The server was told to end: `/ready` says so, and connections are closed after their response."""
        self.draining = False
        """No new request is taken."""
        self.tickets: dict[str, RequestState] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """The tiers as they are now."""
        return next(iter(self.models.values())).session.budgeter.tiers

    def check_open(self) -> None:
        """Refuse while the server drains.

        Raises:
            Problem: 503.
        """
        if self.draining:
            raise shutting_down()

    def caller(self, scope: Scope, tier: str | None = None) -> Caller:
        """Who asks, if they may ask at all.

        Args:
            scope: of the request.
            tier: the tier that the path stands for; one that needs a key says itself who may not.

        Raises:
            Problem: 401 or 403.
        """
        caller = self.ring.identify(scope["headers"])
        if tier is not None and tier in self.tiers and self.tiers[tier].needs_key:
            check_tier(caller, self.tiers[tier])
        if not self.settings.no_auth:
            check_known(caller, required=self.ring.configured)
        if tier is not None:
            find_tier(tier, self.tiers, caller)
        return caller

    def route_label(self, scope: Scope) -> str:
        """The route of a request, for metrics and the length model: what a client made up is `other`."""
        route: Route | None = scope.get("route")
        if route is None:
            return "other"
        if route.parameter != "tier":
            return route.template
        known = scope["path_params"]["tier"] in (*self.tiers, AUTO)
        return str(scope["path"]) if known else "other"

    def origin(self, scope: Scope, caller: Caller, route: str) -> RequestOrigin:
        """Who asks, and where.

        All who have no key are no client: their routes and system prompts say more than they have in common.
        """
        context = trace_context(scope["headers"]) if self.remote or self.spans is not None else {}
        return RequestOrigin(scope["exchange"].request_id, caller.key_id or None, route, context)

    def reload(self) -> None:
        """Read tiers and keywords again; requests that are under way keep theirs, and what was learned stays.

        Raises:
            UsageError: the file is wrong; the tiers stay as they are.
        """
        budgeter = load_budgeter(self.settings)
        for model in self.models.values():
            model.session.budgeter = budgeter.with_length_model(model.session.budgeter.learned_length)

    def model(self, name: str | None, caller: Caller) -> ServedModel:
        """The model of that name; the first where none is named.

        Raises:
            Problem: 404 for a name that is not served, 403 for one that the key does not permit.
        """
        found = self.models.get(name) if name else next(iter(self.models.values()))
        if found is None:
            known = ", ".join(self.models)
            raise Problem(404, f"no model {name!r}; there is: {known}", param="model", code="model_not_found")
        if caller.models and found.name not in caller.models:
            raise Problem(
                403, f"this key does not permit the model {found.name}", param="model", code="model_not_permitted"
            )
        return found

    async def enter(self, ticket: RequestState) -> None:
        """Take one request from the caller's limits, before anything is done for it.

        Raises:
            Problem: 429, when there are none left; 400, when a request of the same id is running.
        """
        request_id = ticket.wanted.request.id
        if request_id in self.tickets:
            raise Problem(400, f"a request with the id {request_id} is running: give each its own", code="duplicate_id")
        self.tickets[request_id] = ticket
        self.idle.clear()
        await self.quotas.charge_request(ticket.reservation)
        ticket.exchange.headers |= ticket.reservation.headers

    async def admit(self, ticket: RequestState, tier: Tier) -> None:
        """Take what the request needs, waiting for its turn.

        Raises:
            Problem: 429, when the key has used up a limit.
            QueueFullError: there is no room to wait, or no turn came in time.
        """
        reply = ticket.reply
        assert reply is not None
        n, slot = ticket.wanted.n, ticket.slot
        slot.prompt_tokens = sum([each.prompt_tokens or 0 for each in reply.budgets])
        slot.expected_tokens = n * sum([each.expected_tokens for each in reply.budgets])
        likely_most = [dict(each.quantiles).get(0.9, each.expected_tokens) for each in reply.budgets]
        ticket.room = n * sum(likely_most)
        await self.quotas.charge_tokens(ticket.reservation, slot.prompt_tokens + ticket.room)
        ticket.exchange.headers |= ticket.reservation.headers
        await self.admission.enter(ticket.slot, priority=tier.priority, patience=self.settings.queue_timeout)

    def reserve_more(self, ticket: RequestState) -> None:
        """The answers have outgrown what is reserved for them: what they take counts before they have ended."""
        ticket.room = 2 * ticket.slot.generated
        self.quotas.top_up(ticket.reservation, ticket.slot.prompt_tokens + ticket.room)

    async def released(self) -> None:
        """Wait until no request holds anything, here or in a storage of limits that replicas share."""
        await self.idle.wait()
        await self.quotas.settled()

    def release(self, ticket: RequestState, *, gone: bool) -> None:
        """Give everything back, whatever ended the request. Never waits, and can be called for any ticket once.

        Args:
            ticket: the request.
            gone: its client went away.
        """
        request_id = ticket.wanted.request.id
        if self.tickets.get(request_id) is ticket:
            del self.tickets[request_id]
            if not self.tickets:
                self.idle.set()
        self.admission.leave(ticket.slot)
        if ticket.outbox is not None:
            ticket.outbox.abandon()
        row = row_of(ticket, gone=gone)
        self.quotas.settle(ticket.reservation, row["prompt_tokens"] + row["answer_tokens"])
        self.metrics.request(ticket, row)
        self.ledger.add(row, observations_of(ticket))
        if self.prompts is not None:
            self.prompts.add(prompt_rows_of(ticket))
        if self.spans is not None and ticket.span is not None:
            self.spans.end(ticket.span, ticket, row)
        ticket.exchange.facts |= _facts(ticket, row, gone)


_FACTS = ("model", "tier", "prompt_tokens", "answer_tokens", "max_new_tokens", "finish", "finish_detail")


def _facts(ticket: RequestState, row: Mapping[str, Any], gone: bool) -> dict[str, object]:
    """For the access log: what happened, in numbers and names."""
    facts: dict[str, object] = {"key": row["key_id"]}
    if ticket.reply is not None:
        facts |= {name: row[name] for name in _FACTS}
        facts["waited"] = round(ticket.slot.waited, 4)
    if ticket.attempts:
        facts["upstream"] = ticket.upstream
    if ticket.problem is not None and ticket.problem.where:
        facts["failed_at"] = ticket.problem.where
    if gone:
        facts["gone"] = True
    return facts

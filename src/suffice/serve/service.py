"""What all requests share: the model, callers, the queue. What a request holds is taken and given back here alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from suffice.budget import Budgeter
from suffice.budget.types import Tier
from suffice.engines.pool import Pool
from suffice.serve.auth.api_keys import KeyRing
from suffice.serve.auth.permissions import Caller, check_known, check_tier
from suffice.serve.auth.tiers import AUTO, find_tier, load_budgeter
from suffice.serve.config import ServeSettings
from suffice.serve.http.asgi import Scope
from suffice.serve.http.errors import Problem
from suffice.serve.http.middleware import HttpExchange
from suffice.serve.http.router import Route
from suffice.serve.http.stream_writer import StreamWriter
from suffice.serve.learning.observations import observations_of
from suffice.serve.limits.admission import Admission
from suffice.serve.limits.quotas import Charge, Quotas
from suffice.serve.observe.access_log import AccessLog
from suffice.serve.observe.metrics import Metrics
from suffice.serve.observe.spans import Spans, trace_context
from suffice.serve.request.api_request import ApiRequest, RequestOrigin
from suffice.serve.request.choices import Choices
from suffice.serve.request.state import RequestState
from suffice.serve.request_log.rows import RequestRow, row_of
from suffice.serve.request_log.texts import TextLog, text_rows_of
from suffice.serve.request_log.usage_query import RecentUsage
from suffice.serve.request_log.writer import RequestLogWriter
from suffice.session import Session

__all__ = ["Service"]

_FACTS = ("model", "tier", "prompt_tokens", "answer_tokens", "max_new_tokens", "finish", "finish_detail")


class Service:
    """The server's state. `pool` is entered; `spans` and `texts` are None where they are not configured."""

    def __init__(
        self,
        settings: ServeSettings,
        pool: Pool,
        budgeter: Budgeter,
        ring: KeyRing,
        writer: RequestLogWriter,
        quotas: Quotas,
        usage: RecentUsage,
        spans: Spans | None = None,
        texts: TextLog | None = None,
    ) -> None:
        self.settings, self.pool, self.session = settings, pool, Session(pool, budgeter)
        self.model_name = pool.model_name
        self.forwards = pool.capabilities().forwards_unknown_fields
        """Fields of requests that are not known here are forwarded to other servers."""
        self.ring, self.writer, self.quotas, self.usage = ring, writer, quotas, usage
        self.spans, self.texts = spans, texts
        self.access_log = AccessLog() if settings.access_log else None
        self.admission = Admission(settings.running_limit, settings.max_waiting)
        self.metrics = Metrics(self.admission, pool, lambda: writer.left_out)
        self.leaving = False
        """The server was told to end: `/ready` says so, and connections are closed after their response."""
        self.draining = False
        """No new request is taken."""
        self.requests: dict[str, RequestState] = {}
        """Those under way, by id."""
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """As they are now: the budget file may be read again."""
        return self.session.budgeter.tiers

    def caller(self, scope: Scope, tier: str | None = None) -> Caller:
        """The caller of a request to a path that stands for `tier`. A tier that needs a key refuses in its own words.

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
        if route is not None and route.parameter != "tier":
            return route.template
        known = route is not None and scope["path_params"]["tier"] in (*self.tiers, AUTO)
        return str(scope["path"]) if known else "other"

    def origin(self, scope: Scope, caller: Caller, route: str) -> RequestOrigin:
        """Callers without a key are not one client: routes and system prompts say more of them than that."""
        exchange: HttpExchange = scope["exchange"]
        return {
            "id": exchange.request_id,
            "client": caller.key_id or None,
            "route": route,
            "trace_context": trace_context(scope["headers"]) if self.forwards or self.spans is not None else {},
            "may_restart": exchange.is_pending,
        }

    def accept(
        self, api: ApiRequest, caller: Caller, exchange: HttpExchange, writer: StreamWriter | None
    ) -> RequestState:
        """Begin to follow a request; `release` ends that."""
        state = RequestState(api=api, caller=caller, exchange=exchange, charge=Charge(caller), writer=writer)
        if self.spans is not None:
            state.api = api.with_trace_context(self.spans.begin(state))
        return state

    def reload(self) -> None:
        """Read tiers and keywords again; requests that are under way keep theirs, and what was learned stays.

        Raises:
            UsageError: the file is wrong; the tiers stay as they are.
        """
        learned = self.session.budgeter.learned_length
        self.session.budgeter = load_budgeter(self.settings).with_length_model(learned)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that can be asked, the usual one first: one, or a base and its adapters."""
        return self.pool.capabilities().models or (self.model_name,)

    def check_model(self, name: str | None, caller: Caller) -> str:
        """The model that a request names, or the usual one where it names none, if it may be used.

        Raises:
            Problem: 404 for a name that is not served, 403 for one that the key does not permit.
        """
        served, asked = self.models, name or self.model_name
        if asked not in served:
            message = f"no model {asked!r}; there is: {', '.join(served)}"
            raise Problem(404, message, param="model", code="model_not_found")
        if caller.models and asked not in caller.models:
            message = f"this key does not permit the model {asked}"
            raise Problem(403, message, param="model", code="model_not_permitted")
        return asked

    async def enter(self, state: RequestState) -> None:
        """Take one request from the caller's limits, before anything is done for it.

        Raises:
            Problem: 400, when a request of the same id is running.
            RateLimitError: there are none left.
        """
        if state.id in self.requests:
            raise Problem(400, f"a request with the id {state.id} is running: give each its own", code="duplicate_id")
        self.requests[state.id] = state
        self.idle.clear()
        await self.quotas.charge_request(state.charge)
        state.exchange.headers |= state.charge.headers

    async def admit(self, state: RequestState, choices: Choices) -> None:
        """Take what the request needs, waiting for its turn.

        Raises:
            RateLimitError: the key has used up a limit.
            QueueFullError: there is no room to wait, or no turn came in time.
        """
        await self.quotas.charge_tokens(state.charge, choices.prompt_tokens + choices.charge_tokens)
        state.exchange.headers |= state.charge.headers
        await self.admission.enter(choices, priority=choices.priority, patience=self.settings.queue_timeout)

    def charge_more(self, state: RequestState, choices: Choices) -> None:
        """The answers have outgrown what is charged for them: what they take counts before they have ended."""
        choices.charge_tokens = 2 * choices.generated
        self.quotas.top_up(state.charge, choices.prompt_tokens + choices.charge_tokens)

    async def released(self) -> None:
        """Wait until no request holds anything, here or in a storage of limits that replicas share."""
        await self.idle.wait()
        await self.quotas.settled()

    def release(self, state: RequestState) -> None:
        """Give everything back, whatever ended the request. Never waits, and is called once for each `accept`."""
        if self.requests.get(state.id) is state:
            del self.requests[state.id]
            if not self.requests:
                self.idle.set()
        if state.choices is not None:
            self.admission.leave(state.choices)
        if state.writer is not None:
            state.writer.abandon()
        row = row_of(state)
        self.quotas.settle(state.charge, row["prompt_tokens"] + row["answer_tokens"])
        self.metrics.request(state, row)
        self.writer.add(row, observations_of(state))
        if self.texts is not None:
            self.texts.add(text_rows_of(state))
        if self.spans is not None and state.span is not None:
            self.spans.end(state.span, state, row)
        state.exchange.facts |= _facts(state, row)


def _facts(state: RequestState, row: RequestRow) -> dict[str, object]:
    """For the access log: what happened, in numbers and names."""
    facts: dict[str, object] = {"key": row["key_id"]}
    if state.choices is not None:
        values: Mapping[str, object] = row
        facts |= {name: values[name] for name in _FACTS}
        facts["waited"] = round(row["queue_seconds"], 4)
    if row["upstream"]:
        facts["upstream"] = row["upstream"]
    if state.problem is not None and state.problem.where:
        facts["failed_at"] = state.problem.where
    if state.exchange.gone:
        facts["gone"] = True
    return facts

"""The routes that generate: one way for chat, completions and tiers, streaming or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from starlette.types import Receive, Scope, Send

from suffice.engines.base import Usage
from suffice.errors import EngineError, SufficeError
from suffice.serve import sse
from suffice.serve.exchange import Exchange, UntilGone, send_bytes
from suffice.serve.fields import parse_object, read_body
from suffice.serve.outbox import Outbox
from suffice.serve.problems import Problem, problem_of
from suffice.serve.replies import Reply
from suffice.serve.service import Service, Ticket
from suffice.serve.tiers import decide, find_tier
from suffice.serve.wire import Wanted
from suffice.session import Text, Thinking

__all__ = ["Generate"]


@dataclass(frozen=True, slots=True)
class Generate:
    """An ASGI application for one path."""

    service: Service
    read: Callable[..., Wanted]
    """From the JSON to what is wanted."""
    reply: type[Reply]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, exchange = self.service, scope["exchange"]
        service.check_open()
        tier = scope["path_params"].get("tier")  # of /infer/{tier}
        caller = service.caller(scope, tier)
        body = parse_object(await read_body(receive, service.settings.max_body_bytes))
        wanted = self.read(body, exchange.request_id, passes_on=service.remote)
        if tier is not None:
            if wanted.tier not in (None, tier):
                raise Problem(400, f"this path is the tier {tier}: leave out tier, or ask /infer/{wanted.tier}")
            wanted = replace(wanted, tier=tier)
        ticket = Ticket(wanted, caller, exchange, service.route(scope["path"]))
        service.begin(ticket, scope)
        async with UntilGone(receive) as connection:
            try:
                await self._answer(ticket, send)
            finally:
                service.release(ticket, gone=connection.gone)

    async def _answer(self, ticket: Ticket, send: Send) -> None:
        """Answers, and says what went wrong in the way that is still open: a status, or an event of the stream."""
        try:
            await self._admitted(ticket, send)
        except TimeoutError:
            seconds = self.service.settings.request_timeout
            problem = Problem(504, f"no whole answer within {seconds:g} s", code="timeout")
        except asyncio.CancelledError:
            if not self.service.draining or ticket.outbox is None:
                raise
            problem = Problem(503, "the server is shutting down", code="shutting_down")
        except SufficeError as error:
            problem = problem_of(error)
        else:
            return
        ticket.problem = problem
        if ticket.outbox is None or ticket.reply is None:
            raise problem
        await ticket.outbox.close(ticket.reply.failure(problem.body))

    async def _admitted(self, ticket: Ticket, send: Send) -> None:
        service, wanted = self.service, ticket.wanted
        model = service.model(wanted.model, ticket.caller)
        tier = find_tier(wanted.tier, model.session.budgeter.tiers, ticket.caller)
        tier, budget = await decide(model.session, wanted.request, tier, ticket.caller)
        ticket.reply = self.reply(wanted, model.name, tier.name, budget=budget)
        self._tell(ticket.exchange, ticket.reply)
        if wanted.strict and budget.clamped_from is not None:
            raise Problem(400, f"strict: {'; '.join(budget.reasons)}", param="max_tokens", code="clamped")
        await service.admit(ticket, tier)
        request = replace(wanted.request, tier=tier.name, trace_context=ticket.trace_context)
        async with (
            asyncio.timeout(service.settings.request_timeout),
            aclosing(model.session.stream(request, budget)) as events,
        ):
            async for event in events:
                ticket.reply.take(event)
                if isinstance(event, Text):
                    ticket.slot.generated += 1
                    if wanted.stream:
                        await self._send_piece(ticket, ticket.reply.piece(event.text), send)
                elif isinstance(event, Thinking):
                    ticket.slot.generated += 1
                    if wanted.stream:
                        await self._send_piece(ticket, ticket.reply.thought(event.text), send)
                elif isinstance(event, Usage):
                    ticket.slot.generated = event.answer_tokens
        await self._finish(ticket, send)

    def _tell(self, exchange: Exchange, reply: Reply) -> None:
        budget = reply.budget
        assert budget is not None
        exchange.headers |= {
            "x-suffice-tier": reply.tier,
            "x-suffice-max-new-tokens": str(budget.max_new_tokens),
            "x-suffice-expected-tokens": str(budget.expected_tokens),
            "x-suffice-limited-by": budget.limited_by,
        }
        if budget.clamped_from is not None:
            exchange.headers["x-suffice-clamped-from"] = str(budget.clamped_from)

    async def _send_piece(self, ticket: Ticket, data: bytes, send: Send) -> None:
        """The response begins with the first piece, so that until then a failure still has a status of its own."""
        assert ticket.reply is not None
        if not ticket.exchange.status:
            headers = [(name.encode(), value.encode()) for name, value in sse.HEADERS.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            ticket.outbox = Outbox(send)
            data = ticket.reply.opening() + data
        assert ticket.outbox is not None
        await ticket.outbox.put(data)

    async def _finish(self, ticket: Ticket, send: Send) -> None:
        reply = ticket.reply
        assert reply is not None
        if reply.finish is None or reply.finish.reason in ("error", "cancelled"):
            what = reply.finish.what if reply.finish else ""
            raise ticket.engine_error or EngineError(what or "the engine ended the answer")
        if not ticket.wanted.stream:
            await send_bytes(send, sse.dump(reply.whole()))
            return
        if not ticket.exchange.status:
            await self._send_piece(ticket, b"", send)
        assert ticket.outbox is not None
        await ticket.outbox.close(reply.closing())

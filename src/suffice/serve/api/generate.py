"""The routes that generate: one way for chat, completions and tiers, streaming or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from suffice.engines.base import Usage
from suffice.errors import EngineError, SufficeError
from suffice.json_codec import dump
from suffice.serve.api.choice import Choice
from suffice.serve.api.requests import ApiRequest
from suffice.serve.api.responses import Reply
from suffice.serve.auth.tiers import decide_all, find_tier
from suffice.serve.http import sse
from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.body import parse_object, read_body
from suffice.serve.http.errors import Problem, problem_of, shutting_down
from suffice.serve.http.middleware import CancelOnDisconnect, HttpExchange, send_bytes
from suffice.serve.http.stream_writer import StreamWriter
from suffice.serve.request_state import RequestState
from suffice.serve.service import Service
from suffice.session import Event, Restarted, Session, Text, Thinking, ToolCallPiece, merge_streams

__all__ = ["Generate"]

Stream = AsyncGenerator[Event, None]

_LAST_WORDS = 5.0  # seconds that the end of a stream which failed may take to a slow reader


@dataclass(frozen=True, slots=True)
class Generate:
    """The handler of one path."""

    read: Callable[..., ApiRequest]
    """From the JSON to what is wanted."""
    reply: type[Reply]

    async def __call__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["exchange"]
        service.check_open()
        tier = scope.get("path_params", {}).get("tier")
        caller = service.caller(scope, tier)
        body = parse_object(await read_body(receive, service.settings.max_body_bytes))
        origin = service.origin(scope, caller, service.route_label(scope))
        wanted = self.read(body, origin, passes_on=service.remote)
        if tier is not None:
            if wanted.tier not in (None, tier):
                raise Problem(400, f"this path is the tier {tier}: leave out tier, or ask /infer/{wanted.tier}")
            wanted = replace(wanted, tier=tier)
        if wanted.choices > service.settings.max_choices:
            message = f"{wanted.choices} answers (n times prompts): at most {service.settings.max_choices} to a request"
            raise Problem(400, message, param="prompt" if wanted.more else "n", code="invalid_value")
        ticket = RequestState(wanted, caller, exchange, origin.route)
        if service.spans is not None:
            service.spans.begin(ticket, origin.trace_context)
        with CancelOnDisconnect(scope) as connection:
            try:
                await self._answer(service, ticket, connection, send)
            finally:
                service.release(ticket, gone=connection.gone)
        if ticket.outbox is not None and not ticket.outbox.ended:  # whoever does not read waits for nothing more
            scope["extensions"]["suffice.drop"]()
            await receive()  # until the connection is gone: else the server takes this for a mistake

    async def _answer(self, service: Service, ticket: RequestState, connection: CancelOnDisconnect, send: Send) -> None:
        """Answers, and says what went wrong in the way that is still open: a status, or an event of the stream."""
        try:
            await self._admitted(service, ticket, connection, send)
        except asyncio.CancelledError:
            if connection.late():
                seconds = service.settings.request_timeout
                problem = Problem(504, f"no whole answer within {seconds:g} s", code="timeout")
            elif service.draining and not connection.gone:
                problem = shutting_down()
            else:
                raise
        except SufficeError as error:
            problem = problem_of(error)
        except Exception:  # a mistake of ours: what is written down says so
            ticket.problem = Problem(500, "the server failed", code="internal_error")
            raise
        else:
            return
        ticket.problem = problem
        if ticket.outbox is None or ticket.reply is None:
            raise problem
        with contextlib.suppress(TimeoutError):  # whoever does not read is not waited for
            async with asyncio.timeout(_LAST_WORDS):
                await ticket.outbox.close(ticket.reply.failure(problem.body))

    async def _admitted(
        self, service: Service, ticket: RequestState, connection: CancelOnDisconnect, send: Send
    ) -> None:
        wanted = ticket.wanted
        model = service.model(wanted.model, ticket.caller)
        tier = find_tier(wanted.tier, model.session.budgeter.tiers, ticket.caller)
        await service.enter(ticket)
        tier, budgets = await decide_all(model.session, wanted.prompts, tier, ticket.caller)
        ticket.reply = self.reply(wanted, model.name, tier.name, budgets)
        self._tell(ticket.exchange, ticket.reply)
        for budget in budgets:
            if wanted.strict and budget.clamped_from is not None:
                raise Problem(400, f"strict: {'; '.join(budget.reasons)}", param="max_tokens", code="clamped")
        await service.admit(ticket, tier)
        limit = connection.limit(service.settings.request_timeout)
        try:
            await self._generate(service, ticket, model.session, send)
            await self._finish(ticket, send)
        finally:
            limit.cancel()

    async def _generate(self, service: Service, ticket: RequestState, session: Session, send: Send) -> None:
        reply, wanted = ticket.reply, ticket.wanted
        assert reply is not None
        streams = [
            session.stream(replace(request, may_restart=lambda: not ticket.exchange.status), reply.budget_of(answer))
            for request, answer in zip(wanted.requests, reply.answers, strict=True)
        ]
        if len(streams) == 1:
            await self._one(service, ticket, streams[0], send)
        else:
            await self._several(service, ticket, streams, send)

    async def _one(self, service: Service, ticket: RequestState, stream: Stream, send: Send) -> None:
        assert ticket.reply is not None
        [answer] = ticket.reply.answers
        async with aclosing(stream) as events:
            async for event in events:
                data = self._take(service, ticket, ticket.reply, answer, event)
                if data is not None:
                    await self._send_piece(ticket, data, send)

    async def _several(self, service: Service, ticket: RequestState, streams: list[Stream], send: Send) -> None:
        """Each answer on a way of its own; one that fails ends all."""
        reply = ticket.reply
        assert reply is not None
        async with aclosing(merge_streams(streams)) as events:
            async for index, event in events:
                answer = reply.answers[index]
                data = self._take(service, ticket, reply, answer, event)
                if data is not None:
                    await self._send_piece(ticket, data, send)
                if answer.failed:
                    return
                if ticket.wanted.stream and answer.finish is not None:
                    await self._send_piece(ticket, reply.ending(answer), send)

    def _take(self, service: Service, ticket: RequestState, reply: Reply, answer: Choice, event: Event) -> bytes | None:
        """One event of one answer: noted, counted, and as it is sent where it is a piece of a stream."""
        answer.add(event)
        if isinstance(event, Usage | Restarted):
            ticket.slot.generated = sum(each.tokens for each in reply.answers)
        if not isinstance(event, Text | Thinking | ToolCallPiece):
            return None
        ticket.slot.generated += 1
        if ticket.slot.generated > ticket.room:
            service.reserve_more(ticket)
        if not ticket.wanted.stream:
            return None
        if isinstance(event, Text):
            return reply.piece(answer, event)
        return reply.thought(answer, event.text) if isinstance(event, Thinking) else reply.call(answer, event.piece)

    def _tell(self, exchange: HttpExchange, reply: Reply) -> None:
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

    async def _send_piece(self, ticket: RequestState, data: bytes, send: Send) -> None:
        """The response begins with the first piece, so that until then a failure still has a status of its own."""
        assert ticket.reply is not None
        if not ticket.exchange.status:
            headers = [(name.encode(), value.encode()) for name, value in sse.HEADERS.items()]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            ticket.outbox = StreamWriter(send)
            data = ticket.reply.opening() + data
        assert ticket.outbox is not None
        await ticket.outbox.put(data)

    async def _finish(self, ticket: RequestState, send: Send) -> None:
        reply = ticket.reply
        assert reply is not None
        if reply.failed:
            raise ticket.engine_error or EngineError("the engine ended the answer")
        if not ticket.wanted.stream:
            await send_bytes(send, dump(reply.whole()))
            return
        if not ticket.exchange.status:
            await self._send_piece(ticket, b"", send)
        assert ticket.outbox is not None
        await ticket.outbox.close(reply.closing())

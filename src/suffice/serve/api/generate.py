"""The handler of the routes that generate: one way for chat, completions and tiers, streamed or whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from suffice.errors import EngineError, SufficeError
from suffice.json_codec import dump
from suffice.serve.api.responses import Format
from suffice.serve.auth.on_runaway import choose_on_runaway
from suffice.serve.auth.tiers import decide_all, find_tier
from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.body import parse_object, read_body
from suffice.serve.http.errors import Problem, problem_of, shutting_down
from suffice.serve.http.middleware import HttpExchange, send_bytes
from suffice.serve.http.stream_writer import StreamWriter
from suffice.serve.request.api_request import ApiRequest, RequestOrigin
from suffice.serve.request.choices import Choices
from suffice.serve.request.state import RequestState
from suffice.serve.service import Service
from suffice.session import merge_streams

__all__ = ["Generate", "Reader"]

_LAST_WORDS = 5.0  # seconds that the end of a stream which failed may take to a slow reader


class Reader(Protocol):
    """From the JSON of a body to what is asked; one of `api.request_reader`."""

    def __call__(self, body: dict[str, Any], origin: RequestOrigin, *, forwards: bool) -> ApiRequest: ...


@dataclass(frozen=True, slots=True)
class Generate:
    """The handler for one format."""

    read: Reader
    format: Format

    async def __call__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: HttpExchange = scope["exchange"]
        if service.draining:
            raise shutting_down()
        tier = scope["path_params"]["tier"] if "path_params" in scope else None
        caller = service.caller(scope, tier)
        body = parse_object(await read_body(receive, service.settings.max_body_bytes))
        origin = service.origin(scope, caller, service.route_label(scope))
        api = _checked(self.read(body, origin, forwards=service.forwards), tier, service.settings.max_choices)
        writer = StreamWriter(send) if api.stream else None
        state = service.accept(api, caller, exchange, writer)
        with exchange:
            try:
                await self._answer(service, state, send)
            finally:
                service.release(state)
        if writer is not None and writer.begun and not writer.ended:  # the client does not read: do not wait for it
            scope["extensions"]["suffice.drop"]()
            await receive()  # until the connection is gone: else the server takes this for a mistake

    async def _answer(self, service: Service, state: RequestState, send: Send) -> None:
        """Answer; a failure is told by a status while there is none yet, and then by an event of the stream."""
        try:
            await self._generate(service, state, send)
        except asyncio.CancelledError:
            if state.exchange.late():
                seconds = service.settings.request_timeout
                problem = Problem(504, f"no whole answer within {seconds:g} s", code="timeout")
            elif service.draining and not state.exchange.gone:
                problem = shutting_down()
            else:
                raise
        except SufficeError as error:
            problem = problem_of(error)
        except Exception:  # a mistake of ours: what is written down says so
            state.problem = Problem(500, "the server failed", code="internal_error")
            raise
        else:
            return
        state.problem = problem
        if state.choices is None or state.writer is None or not state.writer.begun:
            raise problem
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await state.writer.close(self.format.failure(state.choices, problem.body))

    async def _generate(self, service: Service, state: RequestState, send: Send) -> None:
        """Decide the length, wait for a turn, and generate until all answers have ended."""
        api = state.api
        model = service.check_model(api.model, state.caller)
        if model != service.model_name:
            api = state.api = api.for_model(model)
        tier = find_tier(api.tier, service.tiers, state.caller)
        await service.enter(state)
        tier, budgets = await decide_all(service.session, api.prompts, tier, state.caller)
        api = choose_on_runaway(api, tier, state.caller, service.settings.on_runaway)
        choices = state.choices = Choices.of(self.format.prefix + state.id, api, model, tier, budgets)
        state.exchange.headers |= _budget_headers(choices)
        for budget in budgets:
            if api.strict and budget.clamped_from is not None:
                raise Problem(400, f"strict: {'; '.join(budget.reasons)}", param="max_tokens", code="clamped")
        await service.admit(state, choices)
        limit = state.exchange.limit(service.settings.request_timeout)
        try:
            await self._events(service, state, choices)
            if choices.failed:
                raise state.engine_error or EngineError("the engine ended the answer")
            if state.writer is None:
                await send_bytes(send, dump(self.format.whole(choices)))
                return
            if not state.writer.begun:
                await self._put(state.writer, choices, b"")
            await state.writer.close(self.format.closing(choices))
        finally:
            limit.cancel()

    async def _events(self, service: Service, state: RequestState, choices: Choices) -> None:
        """Take all events of all answers, and send those of a stream. One answer that fails ends all."""
        streams = [service.session.stream(each.request, each.budget) for each in choices.answers]
        several, writer = len(streams) > 1, state.writer
        joined: AsyncGenerator[Any, None] = merge_streams(streams) if several else streams[0]
        async with aclosing(joined) as events:
            async for each in events:
                index, event = each if several else (0, each)
                choice = choices.answers[index]
                if choices.add(choice, event):
                    if choices.generated > choices.charge_tokens:
                        service.charge_more(state, choices)
                    if writer is not None:
                        await self._put(writer, choices, self.format.piece(choices, choice, event))
                if several and choice.failed:
                    return
                if several and writer is not None and choice.finish is not None:
                    await self._put(writer, choices, self.format.ending(choices, choice))

    async def _put(self, writer: StreamWriter, choices: Choices, data: bytes) -> None:
        """The response begins with the first piece, so that until then a failure still has a status of its own."""
        if not writer.begun:
            await writer.begin()
            data = self.format.opening(choices) + data
        await writer.put(data)


def _checked(api: ApiRequest, tier: str | None, max_choices: int) -> ApiRequest:
    """The request with the tier of its path.

    Raises:
        Problem: it names another tier, or asks for too many answers.
    """
    if tier is not None:
        if api.tier not in (None, tier):
            raise Problem(400, f"this path is the tier {tier}: leave out tier, or ask /infer/{api.tier}")
        api = replace(api, tier=tier)
    if (count := api.n * len(api.prompts)) > max_choices:
        message = f"{count} answers (n times prompts): at most {max_choices} to a request"
        raise Problem(400, message, param="prompt" if len(api.prompts) > 1 else "n", code="invalid_value")
    return api


def _budget_headers(choices: Choices) -> dict[str, str]:
    budget = choices.budget
    headers = {
        "x-suffice-tier": choices.tier,
        "x-suffice-max-new-tokens": str(budget.max_new_tokens),
        "x-suffice-expected-tokens": str(budget.expected_tokens),
        "x-suffice-limited-by": budget.limited_by,
    }
    if budget.clamped_from is not None:
        headers["x-suffice-clamped-from"] = str(budget.clamped_from)
    return headers

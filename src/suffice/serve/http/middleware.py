"""One HTTP exchange: its id, its extra headers, its status, and what happens to errors. Pure ASGI."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from suffice.errors import SufficeError
from suffice.serve.http.asgi import Application, Message, Receive, Scope, Send
from suffice.serve.http.errors import Problem, problem_of, shutting_down

__all__ = ["CancelOnDisconnect", "ExchangeMiddleware", "HttpExchange", "send_bytes"]

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")
_LOG = logging.getLogger("suffice.serve")


@dataclass(slots=True)
class HttpExchange:
    """What is known of one request and its response."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with the response, whatever it turns out to be."""
    status: int = 0
    """0 until the response has begun."""
    facts: dict[str, Any] = field(default_factory=dict)
    """For the access log: key, tier, tokens ... never text."""

    @property
    def seconds(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self.started


class ExchangeMiddleware:
    """Middleware around the whole application.

    Args:
        app: what to run.
        ended: called with the scope and the exchange when it is over.
        taken: whether a request id is in use.
        closing: whether the server shuts down, and clients should not ask again on the same connection.
    """

    def __init__(
        self,
        app: Application,
        ended: Callable[[Scope, HttpExchange], None],
        taken: Callable[[str], bool] = lambda _: False,
        closing: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app, self.ended, self.taken, self.closing = app, ended, taken, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["exchange"] = HttpExchange(self._request_id(scope))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                if self.closing():
                    exchange.headers["connection"] = "close"
                message["headers"] = [*message.get("headers", ()), *_headers(exchange)]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except SufficeError as error:
            await _refuse(problem_of(error), exchange, send_with_headers)
        except asyncio.CancelledError:
            if exchange.status or not self.closing():
                raise
            await _refuse(shutting_down(), exchange, send_with_headers)  # a request whose body was not whole in time
        except Exception:
            _LOG.exception("request %s failed", exchange.request_id)
            if exchange.status:
                raise  # the response has begun: the connection must be cut
            message = f"an error in the server, logged under {exchange.request_id}"
            await _refuse(Problem(500, message, code="internal_error"), exchange, send_with_headers)
        finally:
            self.ended(scope, exchange)

    def _request_id(self, scope: Scope) -> str:
        """The caller's own id if it is a decent one, else a new one."""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ID.fullmatch(value) and not self.taken(value.decode()):
                return str(value.decode())
        return f"{random.getrandbits(128):032x}"


def _headers(exchange: HttpExchange) -> list[tuple[bytes, bytes]]:
    headers = {
        "x-request-id": exchange.request_id,
        "openai-processing-ms": str(round(exchange.seconds * 1000)),
        **exchange.headers,
    }
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]


async def _refuse(problem: Problem, exchange: HttpExchange, send: Send) -> None:
    exchange.headers |= problem.headers
    exchange.facts["error"] = problem.code or problem.status
    if problem.where:  # not what it said, which may repeat what it was asked
        exchange.facts["failed_at"] = problem.where
    await send_bytes(send, problem.body, status=problem.status)


async def send_bytes(send: Send, body: bytes, *, status: int = 200, kind: str = "application/json") -> None:
    """A whole response."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class CancelOnDisconnect:
    """Runs its block only while the client is there: when it goes, the block is cancelled at once, and `gone` is set.

    `limit` also cancels it after some seconds. (`asyncio.timeout` beside this would be a second of the same.)

    Args:
        scope: of the request, from `protocol.Connection`; its body must have been read.
    """

    def __init__(self, scope: Scope) -> None:
        self._watchers: set[Callable[[], None]] = scope["extensions"]["suffice.gone"]
        self._task: asyncio.Task[Any] | None = None
        self._late = False
        self.gone = False

    def limit(self, seconds: float) -> asyncio.TimerHandle:
        """Cancels the block in so many seconds, unless this is cancelled before; whoever catches that asks `late`."""
        return asyncio.get_running_loop().call_later(seconds, self._expire)

    def late(self) -> bool:
        """Whether a `CancelledError` that was caught is this limit's, and nobody else's."""
        return self._late and not self.gone and self._task is not None and self._task.uncancel() == 0

    def __enter__(self) -> CancelOnDisconnect:
        self._task = asyncio.current_task()
        self._watchers.add(self._tell)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._watchers.discard(self._tell)
        if self.gone and self._task is not None and kind is asyncio.CancelledError:
            self._task.uncancel()
            return True
        return False

    def _expire(self) -> None:
        self._late = True
        if self._task is not None:
            self._task.cancel()

    def _tell(self) -> None:
        self.gone = True
        if self._task is not None:
            self._task.cancel()

"""One HTTP exchange: its id, its extra headers, its status, its connection, and what becomes of errors. Pure ASGI."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from suffice.errors import SufficeError
from suffice.serve.http.asgi import Application, Message, Receive, Scope, Send
from suffice.serve.http.errors import Problem, problem_of, shutting_down

__all__ = ["ExchangeMiddleware", "HttpExchange", "send_bytes"]

_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")
_LOG = logging.getLogger("suffice.serve")


class HttpExchange:
    """One request and its response, and the connection between them.

    `with exchange:` runs its block only while the client is there: when the client goes, the block is cancelled at once
    and `gone` is set. `limit` also cancels the block after some seconds. (`asyncio.timeout` would be a second watcher.)

    `watchers`, from `protocol.Connection`, are called when the client goes.
    """

    __slots__ = ("_late", "_task", "_watchers", "facts", "gone", "headers", "request_id", "started", "status")

    def __init__(self, request_id: str, watchers: set[Callable[[], None]]) -> None:
        self.request_id = request_id
        self.started = time.perf_counter()
        self.headers: dict[str, str] = {}
        """Sent with any response, a refusal too."""
        self.status = 0
        """0 until the response has begun."""
        self.facts: dict[str, Any] = {}
        """For the access log: key, tier, tokens ... never text."""
        self.gone = False
        self._watchers = watchers
        self._task: asyncio.Task[Any] | None = None
        self._late = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def is_pending(self) -> bool:
        return not self.status

    def limit(self, seconds: float) -> asyncio.TimerHandle:
        """Cancel the block after `seconds`, unless the handle is cancelled before."""
        return asyncio.get_running_loop().call_later(seconds, self.expire)

    def late(self) -> bool:
        """Whether a `CancelledError` that was caught comes from `limit` and from nothing else."""
        return self._late and not self.gone and self._task is not None and self._task.uncancel() == 0

    def __enter__(self) -> HttpExchange:
        self._task = asyncio.current_task()
        self._watchers.add(self._disconnected)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._watchers.discard(self._disconnected)
        if self.gone and self._task is not None and kind is asyncio.CancelledError:
            self._task.uncancel()
            return True
        return False

    def _disconnected(self) -> None:
        self.gone = True
        self._cancel()

    def expire(self) -> None:
        self._late = True
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


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
        watchers = scope.get("extensions", {}).get("suffice.gone", set())  # none on another server than ours
        exchange = scope["exchange"] = HttpExchange(self._request_id(scope), watchers)

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
        """The client's own id where it is well formed and free, else a new one."""
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
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

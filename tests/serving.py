"""A real server on loopback, in a thread of its own, for tests of everything under `suffice.serve`."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from random import Random
from typing import Any

import uvicorn

from suffice.engines.base import Engine
from suffice.serve.app import build_app, open_service
from suffice.serve.auth.permissions import Caller
from suffice.serve.config import ServeSettings
from suffice.serve.http.protocol import Connection
from suffice.serve.limits.quotas import Charge, Quotas
from suffice.serve.request_log.tables import request_rows
from suffice.serve.service import Service

LONG = "".join(Random(7).choices("abcdefghijklmnopqrstuvwxyz", k=5000))
"""An answer that would go on for ever without repeating itself."""


@dataclass
class Reply:
    """One response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event of a stream; the last must be [DONE]."""
        blocks = self.body.decode().split("\n\n")
        assert blocks[-2:] == ["data: [DONE]", ""]
        return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]


@dataclass
class Server:
    """A running server, and the service inside it."""

    port: int
    service: Service
    loop: asyncio.AbstractEventLoop
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[HTTPConnection, HTTPResponse]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, data, {**self.headers, **named})
        return connection, connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        connection, response = self.open(method, path, body, **headers)
        reply = Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return reply

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.ask("POST", path, body, **headers)

    def chat(self, text: str = "hi", **fields: Any) -> Reply:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    def run(self, coroutine: Any) -> Any:
        """Run something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)


def request_row(**fields: Any) -> dict[str, Any]:
    """A row of the table `requests`: an answer that ended by itself, but for `fields`."""
    empty: dict[str, Any] = {column.name: None for column in request_rows.columns if column.name != "row"}
    counts = dict.fromkeys(("prompt_tokens", "answer_tokens", "thinking_tokens"), 1)
    times = dict.fromkeys(("time", "queue_seconds", "seconds"), 0.5)
    said = {"day": "2026-01-01", "request_id": "", "route": "/", "stream": False, "status": 200}
    return {**empty, **counts, **times, **said, "finish": "stop", "finish_detail": "", **fields}


async def charged(quotas: Quotas, caller: Caller, tokens: int) -> Charge:
    """One request and its tokens, taken from the caller's limits."""
    charge = Charge(caller)
    await quotas.charge_request(charge)
    await quotas.charge_tokens(charge, tokens)
    return charge


@contextmanager
def serving(engines: Engine | Sequence[Engine], **settings: Any) -> Iterator[Server]:
    """Serve `engines` while the block runs."""
    folder = tempfile.TemporaryDirectory()
    settings.setdefault("database", f"sqlite:///{folder.name}/serve.db")
    several = list(engines) if isinstance(engines, Sequence) else [engines]
    started: Any = threading.Event()
    box: dict[str, Any] = {}

    async def main() -> None:
        async with open_service(ServeSettings(port=0, **{"access_log": False} | settings), several) as service:
            config = uvicorn.Config(build_app(service), http=Connection, port=0, lifespan="off", log_level="error")
            server = uvicorn.Server(config)
            box.update(service=service, server=server, loop=asyncio.get_running_loop())
            task = asyncio.create_task(server.serve())
            while not server.started and not task.done():  # noqa: ASYNC110
                await asyncio.sleep(0.005)  # uvicorn has no event for it
            box["port"] = server.servers[0].sockets[0].getsockname()[1]
            started.set()
            await task

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            box["error"] = error
        finally:
            started.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait(60)
    if "port" not in box:
        raise box.get("error") or RuntimeError("the server did not start")
    try:
        yield Server(box["port"], box["service"], box["loop"])
    finally:
        box["server"].should_exit = True
        thread.join(30)
        folder.cleanup()
        if "error" in box:
            raise box["error"]

"""What was not taken, measured beside what was: the figures of docs/decisions.md. No socket but in `client`.

    python benchmarks/alternatives.py [asgi] [bodies] [client] [imports]

It needs httpx, starlette, fastapi, msgspec, pydantic-settings and typer too. CPU time, medians of several rounds.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from statistics import median
from types import GenericAlias
from typing import Annotated, Any, Literal

import aiohttp

from suffice.json_codec import dump
from suffice.serve.api.messages import read_messages
from suffice.serve.api.request_fields import CHAT
from suffice.serve.http.body import parse_object, read_body
from suffice.serve.http.middleware import ExchangeMiddleware, send_bytes
from suffice.serve.http.router import Route, Router

PATHS = [*(f"/v1/route{number}" for number in range(19)), "/v1/chat/completions"]
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Count from 1 to 5, please. " * 5}]
BODY = json.dumps(
    {"model": "m", "messages": QUESTION, "temperature": 0.7, "top_p": 0.9, "max_tokens": 100, "stream": False}
    | {"stop": ["</a>"], "seed": 7, "min_p": 0.1, "user": "u"}
).encode()
REPLY = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "1, 2, 3"}, "finish_reason": "stop"}]}
HEADERS = {"content-type": "application/json", "authorization": "Bearer k", "user-agent": "t", "accept": "*/*"}
IMPORTS = (
    "import suffice.serve.http.asgi",
    "import starlette.applications, starlette.routing",
    "import fastapi",
    "import suffice.serve.config",
    "import pydantic_settings",
    "import aiohttp",
    "import httpx",
    "import click",
    "import typer",
)


def cpu_of(run: Callable[[int], None], count: int = 1000) -> float:
    """Microseconds of one of `count` operations."""
    run(count // 5)
    rounds = []
    for _ in range(7):
        start = time.process_time()
        run(count)
        rounds.append((time.process_time() - start) / count * 1e6)
    return median(rounds)


def asgi() -> None:
    """The same request and response through each application, called as uvicorn calls it."""
    for name, make in (
        ("own", own_application),
        ("starlette", starlette_application),
        ("fastapi", fastapi_application),
    ):
        app = make()

        def run(count: int, app: Any = app) -> None:
            asyncio.run(drive(app, count))

        print(f"asgi: {name}: {cpu_of(run):.0f} µs of CPU a request")


async def drive(app: Callable[..., Awaitable[None]], count: int) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY, "more_body": False}

    async def send(message: Any) -> None:
        pass

    headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    fixed: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": PATHS[-1],
        "raw_path": PATHS[-1].encode(),
        "root_path": "",
    }
    fixed |= {"query_string": b"", "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"}}
    for _ in range(count):
        scope = {"headers": headers, "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 1), "extensions": {}}
        await app({**fixed, **scope, "state": {}}, receive, send)


def own_application() -> Any:
    async def chat(service: Any, scope: Any, receive: Any, send: Any) -> None:
        assert parse_object(await read_body(receive, 1 << 22))["messages"]
        await send_bytes(send, dump(REPLY))

    routes = [Route(method="POST", path=path, handler=chat) for path in PATHS]
    return ExchangeMiddleware(Router(routes, None), lambda scope, exchange: None)


def starlette_application() -> Any:
    async def chat(request: Any) -> Any:
        assert json_loads(await request.body())["messages"]
        return response(dump(REPLY), media_type="application/json")

    response = import_module("starlette.responses").Response
    json_loads = import_module("orjson").loads
    route = import_module("starlette.routing").Route
    app = import_module("starlette.applications").Starlette(routes=[route(p, chat, methods=["POST"]) for p in PATHS])

    async def with_id(scope: Any, receive: Any, send: Any) -> None:
        async def send_id(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", b"1")]
            await send(message)

        await app(scope, receive, send_id)

    return with_id


def fastapi_application() -> Any:
    chat_body = pydantic_model()

    async def chat(body: Any) -> Any:
        return REPLY

    chat.__annotations__["body"] = chat_body
    app = import_module("fastapi").FastAPI()
    for path in PATHS:
        app.post(path)(chat)
    return app


def pydantic_model() -> Any:
    pydantic = import_module("pydantic")
    roles = Literal["system", "user", "assistant", "tool", "developer"]
    message = pydantic.create_model("Message", role=(roles, ...), content=(str | list[dict[str, Any]] | None, None))
    fields: dict[str, Any] = dict.fromkeys(("model", "tier"), (str | None, None))
    fields |= dict.fromkeys(("max_tokens", "seed", "n"), (int | None, None))
    fields |= {"temperature": (Annotated[float, pydantic.Field(ge=0, le=2)] | None, None)}
    fields |= {"top_p": (Annotated[float, pydantic.Field(gt=0, le=1)] | None, None), "stream": (bool | None, None)}
    fields |= {"messages": (GenericAlias(list, (message,)), ...), "stop": (str | list[str] | None, None)}
    return pydantic.create_model("Chat", __config__={"extra": "allow"}, **fields)


def msgspec_struct() -> Any:
    msgspec = import_module("msgspec")
    roles = Literal["system", "user", "assistant", "tool", "developer"]
    message = msgspec.defstruct("Message", [("role", roles), ("content", str | list[dict[str, Any]] | None, None)])
    texts = [(name, str | None, None) for name in ("model", "tier")]
    numbers = [(name, int | None, None) for name in ("max_tokens", "seed", "n")]
    ranges = [
        ("temperature", Annotated[float, msgspec.Meta(ge=0, le=2)] | None, None),
        ("top_p", Annotated[float, msgspec.Meta(gt=0, le=1)] | None, None),
    ]
    others = [("stream", bool | None, None), ("stop", str | list[str] | None, None)]
    return msgspec.defstruct("Chat", [("messages", GenericAlias(list, (message,))), *texts, *numbers, *ranges, *others])


def bodies() -> None:
    """One chat request of a few hundred bytes, decoded and checked."""
    msgspec = import_module("msgspec")
    struct, model = msgspec_struct(), pydantic_model()
    decoder, known = msgspec.json.Decoder(struct), set(struct.__struct_fields__)

    def own() -> None:
        values, _ = CHAT.read(parse_object(BODY), forwards=True)
        read_messages(values["messages"], True)

    def struct_and_others() -> Any:
        decoder.decode(BODY)
        return {name: value for name, value in msgspec.json.decode(BODY).items() if name not in known}

    arms: dict[str, Callable[[], Any]] = {
        "own table": own,
        "msgspec": lambda: decoder.decode(BODY),
        "msgspec, unknown fields kept": struct_and_others,
        "pydantic": lambda: model.model_validate_json(BODY),
    }
    for name, once in arms.items():

        def run(count: int, once: Callable[[], Any] = once) -> None:
            for _ in range(count):
                once()

        print(f"bodies: {name}: {cpu_of(run):.1f} µs of {len(BODY)} bytes")


class Tiny(asyncio.Protocol):
    """An HTTP server that reads nothing but lengths."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = int(self.buffer[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            body = dump(REPLY)
            assert isinstance(self.transport, asyncio.Transport)
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def serve(port: int) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Tiny, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(main())


async def post_many(post: Callable[[], Awaitable[None]], total: int = 1500, at_once: int = 32) -> float:
    """CPU time of a request, in microseconds, of all tasks together."""
    left = iter(range(total))

    async def work() -> None:
        for _ in left:
            await post()

    start = time.process_time()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return (time.process_time() - start) / total * 1e6


async def with_aiohttp(url: str) -> float:
    async with aiohttp.ClientSession() as session:

        async def post() -> None:
            async with session.post(url, data=BODY, headers=HEADERS) as response:
                await response.read()

        return await post_many(post)


async def with_httpx(url: str) -> float:
    async with import_module("httpx").AsyncClient() as client:

        async def post() -> None:
            await client.post(url, content=BODY, headers=HEADERS)

        return await post_many(post)


def client() -> None:
    """Small requests to a trivial server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    server.start()
    time.sleep(1)
    for name, ask in (("aiohttp", with_aiohttp), ("httpx", with_httpx)):
        took = median(asyncio.run(ask(f"http://127.0.0.1:{port}/")) for _ in range(5))
        print(f"client: {name}: {took:.0f} µs of CPU a request")
    server.terminate()


def imports() -> None:
    """CPU time of an import in a fresh process, beyond that of an empty one."""
    empty = median(import_seconds("pass") for _ in range(9))
    for code in IMPORTS:
        print(f"imports: {code}: {median(import_seconds(code) for _ in range(9)) - empty:.2f} s of CPU")


def import_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


PARTS = {"asgi": asgi, "bodies": bodies, "client": client, "imports": imports}

if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()

"""What the gateway benchmark runs: a trivial upstream, a minimal pass-through, and a client that counts."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

CHUNKS = 50
"""Events of text in a streamed answer."""
MODEL = "trivial"
_MARK = "@"  # in a prompt: where its number goes
_NUMBERS = itertools.count()

_PIECE = {"object": "chat.completion.chunk", "model": MODEL, "choices": [{"index": 0, "delta": {"content": "word "}}]}
_END = {**_PIECE, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}


def plain(value: object) -> bytes:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _stream(pieces: int) -> bytes:
    """A whole stream as it goes over the wire, one HTTP chunk per event."""
    events = [event({"id": "x", **_PIECE})] * pieces
    events += [event({"id": "x", **_END}), event({"choices": [], "usage": usage(pieces)}), b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events) + b"0\r\n\r\n"


_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "word"}, "finish_reason": "stop"}
_FIXED = plain({"id": "x", "object": "chat.completion", "model": MODEL, "choices": [_CHOICE], "usage": usage(1)})
_MODELS = plain({"object": "list", "data": [{"id": MODEL, "object": "model", "max_model_len": 8192}]})
_ONE, _MANY = _stream(1), _stream(CHUNKS)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers at once with bytes that are ready: a fixed completion, or `CHUNKS` events where the prompt says so."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            at = head.lower().find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.write(self.answer(head, body))

    def answer(self, head: bytes, body: bytes) -> bytes:
        path = head.split(b" ", 2)[1]
        if path in (b"/v1/models", b"/health"):
            return _MODELS
        if path != b"/v1/chat/completions":
            return _NOT_FOUND
        if b'"stream":true' not in body.replace(b" ", b""):
            return _FIXED
        return _MANY if b"chunks" in body else _ONE


async def run_upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


def run_passthrough(port: int, upstream: str) -> None:
    """The least that a gateway in Python can do: Starlette in front, aiohttp behind, bytes passed on."""
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    import aiohttp
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            app.state.session = session
            yield

    async def chat(request: Request) -> Response:
        answer = await request.app.state.session.post(
            f"{upstream}/v1/chat/completions",
            data=await request.body(),
            headers={"content-type": "application/json"},
        )
        if answer.content_type != "text/event-stream":
            async with answer:
                return Response(await answer.read(), media_type="application/json")

        async def pieces() -> AsyncIterator[bytes]:
            async with answer:
                async for line in answer.content:
                    if line != b"\n":
                        yield line + b"\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def health(request: Request) -> Response:
        return Response("ok")

    routes = [Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)]
    app = Starlette(routes=routes, lifespan=lifespan)
    uvicorn.run(app, port=port, log_level="error", access_log=False)


@dataclass
class Load:
    """What some connections got in some time."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    errors: int = 0
    cpu_seconds: float = 0.0
    """Processor time that the gateway took meanwhile."""

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def cpu_per_answer(self) -> float:
        """Milliseconds."""
        return 1000 * self.cpu_seconds / len(self.latencies)

    def quantile(self, p: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(int(p * len(ordered)), len(ordered) - 1)]


async def measure(
    port: int, *, connections: int, seconds: float, stream: bool = False, fresh: bool = False, key: str = ""
) -> Load:
    """Ask over kept-alive connections, one request after another on each, for some seconds.

    Args:
        port: of the gateway on loopback.
        connections: how many ask at once.
        seconds: for how long.
        stream: ask for the 50-chunk stream in place of the fixed completion.
        fresh: no prompt comes twice, so that nothing can be remembered from one to the next.
        key: bearer token.
    """
    text = "chunks" if stream else "fixed"
    wanted = {"model": MODEL, "messages": [{"role": "user", "content": f"give me {text}{_MARK}"}], "max_tokens": 100}
    body = json.dumps({**wanted, "stream": stream})
    requests = (
        _request(body.replace(_MARK, f" {next(_NUMBERS):09d}" if fresh else ""), key) for _ in itertools.count()
    )
    load = Load()
    ends = time.perf_counter() + seconds
    started = time.perf_counter()
    await asyncio.gather(*(_ask_until(ends, port, requests, stream, load) for _ in range(connections)))
    load.seconds = time.perf_counter() - started
    return load


def _request(body: str, key: str) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def _ask_until(ends: float, port: int, requests: Iterator[bytes], stream: bool, load: Load) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < ends:
        request = next(requests)
        started = time.perf_counter()
        writer.write(request)
        ok = await _read_response(reader, stream)
        load.latencies.append(time.perf_counter() - started)
        load.errors += not ok
    writer.close()


async def _read_response(reader: asyncio.StreamReader, stream: bool) -> bool:
    """Whether it was a whole answer: status 200, and for a stream its end."""
    head = await reader.readuntil(b"\r\n\r\n")
    at = head.lower().find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(head[at + 15 :].split(b"\r\n", 1)[0]))
        return head.startswith(b"HTTP/1.1 200") and not stream
    tail = b""
    pieces = 0
    while not tail.endswith(b"0\r\n\r\n"):
        block = await reader.read(1 << 16)
        if not block:
            return False
        pieces += block.count(b"word ")
        tail = (tail + block)[-64:]
    return head.startswith(b"HTTP/1.1 200") and pieces >= CHUNKS - 2 and b"[DONE]" in tail


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        asyncio.run(run_upstream(int(sys.argv[2])))
    else:
        run_passthrough(int(sys.argv[2]), sys.argv[3])

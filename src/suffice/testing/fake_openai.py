"""A small OpenAI-compatible server on loopback, whose every answer can be scripted down to the bytes and the pauses.

    import asyncio
    from suffice import Request, Session
    from suffice.engines import open_engine
    from suffice.testing import FakeOpenAI, Reply

    async def main():
        async with FakeOpenAI() as server:
            server.script(Reply(pieces=("你", "好"), piece_delay=0.01), Reply.refusal(503, "overloaded"))
            async with open_engine(upstream=server.url) as engine:
                session = Session(engine)
                first, second = [await session.answer(Request("hello", max_new_tokens=9)) for _ in range(2)]
            assert (first.text, second.finish.reason) == ("你好", "error")
            assert server.generations[0].body["max_tokens"] == 9

    asyncio.run(main())

Unscripted, it repeats the last message word by word, cut at the request's cap with a true `finish_reason`; where there
are tools it calls the first one with what the user said.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

__all__ = ["FakeOpenAI", "Received", "Reply"]


@dataclass(frozen=True)
class Reply:
    """What the server does with one request to generate. Delays are seconds."""

    pieces: Sequence[str] = ("Hello", ",", " world")
    finish_reason: str | None = "stop"
    stop_reason: int | str | None = None
    usage: tuple[int, int] | None = (7, 3)
    """Prompt and answer tokens; sent only when the request asks for them."""
    reasoning: Sequence[str] = ()
    """Pieces of `reasoning_content` before the text."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """Pieces of tool calls after the text, each an event."""
    error_event: Any = None
    """Sent in the stream after the pieces, instead of the end."""
    done: bool = True
    """Whether the stream ends with `[DONE]`."""
    header_delay: float = 0.0
    piece_delay: float = 0.0
    drop_after: int | None = None
    """Close the connection after this many events, in the middle of the response."""
    hang_after: int | None = None
    """Send nothing more after this many events, until the client goes."""
    raw: Sequence[bytes] | None = None
    """The body as it is, one TCP packet each, instead of all the above."""
    status: int = 200
    body: Any = None
    """A whole body (text, or an object sent as JSON) instead of a stream."""
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def refusal(cls, status: int, message: str, **headers: str) -> Reply:
        """An error in OpenAI's shape."""
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}
        return cls(status=status, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def events(self, body: Mapping[str, Any], chat: bool) -> list[str]:
        """The data of each event of the stream."""
        events = [_event(chat, reasoning=piece) for piece in self.reasoning]
        events += [_event(chat, text=piece, logprobs=_logprobs(body, chat, [piece])) for piece in self.pieces]
        events += [_event(chat, tool_call=piece) for piece in self.tool_calls]
        if self.error_event is not None:
            return [*events, json.dumps(self.error_event)]
        if self.finish_reason is not None:
            events.append(_event(chat, finish_reason=self.finish_reason, stop_reason=self.stop_reason))
        if self.usage is not None and (body.get("stream_options") or {}).get("include_usage"):
            events.append(json.dumps({"choices": [], "usage": _usage(self.usage)}))
        return [*events, "[DONE]"] if self.done else events


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    path: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    peer: tuple[str, int]
    """The client's end of the TCP connection: the same one means that the connection was used again."""


class FakeOpenAI:
    """The server. Attributes may be changed while it runs.

    Args:
        models: what /v1/models lists; `None` removes the route.
        tokenize: tokens that /tokenize counts, or a whole body to answer with; `None` removes the route.
        health: status of /health; `None` removes the route.
        key: the bearer token that requests must carry.
        unknown: parameters that are refused by name, as a hosted API refuses them.
        port: of loopback, on which to listen; 0 for one that is free.
    """

    def __init__(
        self,
        *,
        models: Sequence[Mapping[str, Any]] | None = ({"id": "fake-model", "max_model_len": 4096},),
        tokenize: int | Any | None = None,
        health: int | None = 200,
        key: str | None = None,
        unknown: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        self.models, self.tokenize, self.health, self.key, self.unknown = models, tokenize, health, key, unknown
        self.port = port
        self.routes: dict[str, Callable[[dict[str, Any]], Any]] = {}
        """More POST routes: path to what answers a body with JSON."""
        self.requests: list[Received] = []
        self.running = 0
        """Requests to generate that are being answered now."""
        self.busy = asyncio.Event()
        """Set while there are any."""
        self.idle = asyncio.Event()
        """Set while there are none."""
        self.idle.set()
        self.abandoned = asyncio.Event()
        """Set when a client went before its answer's end."""
        self._replies: deque[Reply] = deque()

    @property
    def url(self) -> str:
        """Without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def generations(self) -> list[Received]:
        """The requests to generate among `requests`."""
        return [request for request in self.requests if request.path.endswith("/completions")]

    def script(self, *replies: Reply) -> None:
        """Answer the next requests to generate with these, the last one for all that follow."""
        self._replies = deque(replies)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._route)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

    async def _route(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        assert request.transport is not None
        peer = request.transport.get_extra_info("peername")
        self.requests.append(Received(request.path, body, dict(request.headers), peer))
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.key is not None and given != self.key:
            return _refuse(401, f"Incorrect API key provided: {given}")  # careless, as some servers are
        if request.path in self.routes:
            return web.json_response(self.routes[request.path](body))
        match request.method, request.path:
            case "GET", "/v1/models" if self.models is not None:
                return web.json_response({"object": "list", "data": list(self.models)})
            case "GET", "/health" if self.health is not None:
                return web.Response(status=self.health, text="" if self.health == 200 else "loading the model")
            case "POST", "/tokenize" if self.tokenize is not None:
                counted = {"count": self.tokenize} if isinstance(self.tokenize, int) else self.tokenize
                return web.json_response(counted)
            case "POST", "/v1/chat/completions" | "/v1/completions":
                return await self._generate(request, body)
        return _refuse(404, f"no route {request.method} {request.path}")

    async def _generate(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        for name in self.unknown:
            if name in body:
                return _refuse(400, f"Unrecognized request argument supplied: {name}")
        reply = self._next_reply(body)
        self._count(+1)
        try:
            await asyncio.sleep(reply.header_delay)
            if reply.body is not None:
                return _body(reply)
            if not body.get("stream"):
                return _whole(reply, body, request.path.endswith("chat/completions"))
            return await self._stream(request, reply, body)
        except (asyncio.CancelledError, ConnectionError):
            self.abandoned.set()
            raise
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self.running += change
        now, before = (self.busy, self.idle) if self.running else (self.idle, self.busy)
        now.set()
        before.clear()

    async def _stream(self, request: web.Request, reply: Reply, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": reply.content_type, **reply.headers})
        await response.prepare(request)
        blocks = reply.raw
        if blocks is None:
            chat = request.path.endswith("chat/completions")
            blocks = [f"data: {data}\n\n".encode() for data in reply.events(body, chat)]
        pause = reply.piece_delay or (0.005 if reply.raw is not None else 0.0)
        for sent, block in enumerate([*blocks, None]):
            if sent == reply.hang_after:
                await asyncio.Event().wait()
            if sent == reply.drop_after and request.transport is not None:
                request.transport.close()
                break
            if block is not None:
                await response.write(block)
                await asyncio.sleep(pause)
        return response

    def _next_reply(self, body: dict[str, Any]) -> Reply:
        if len(self._replies) > 1:
            return self._replies.popleft()
        return self._replies[0] if self._replies else _echo(body)


def _echo(body: Mapping[str, Any]) -> Reply:
    text = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    if isinstance(text, list):
        text = " ".join(map(str, text))
    if body.get("tools") and body["messages"][-1]["role"] == "user":
        return _call(body["tools"][0]["function"]["name"], text)
    words = re.findall(r"\s*\S+", text)
    cap = body.get("max_tokens", body.get("max_completion_tokens", len(words)))
    return Reply(
        pieces=words[:cap],
        finish_reason="length" if len(words) > cap else "stop",
        usage=(len(words), min(len(words), cap)),
    )


def _call(name: str, text: str) -> Reply:
    """A call whose arguments come in pieces."""
    arguments = json.dumps({"said": text})
    pieces: list[dict[str, Any]] = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}},
        {"index": 0, "function": {"arguments": arguments[:9]}},
        {"index": 0, "function": {"arguments": arguments[9:]}},
    ]
    return Reply(pieces=(), tool_calls=pieces, finish_reason="tool_calls", usage=(9, 12))


def _event(
    chat: bool,
    text: str | None = None,
    reasoning: str | None = None,
    finish_reason: str | None = None,
    stop_reason: int | str | None = None,
    tool_call: Mapping[str, Any] | None = None,
    logprobs: Any = None,
) -> str:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "stop_reason": stop_reason}
    choice["logprobs"] = logprobs
    if chat:
        choice["delta"] = {"content": text} | ({"reasoning_content": reasoning} if reasoning else {})
        choice["delta"] |= {"tool_calls": [tool_call]} if tool_call else {}
    else:
        choice["text"] = text or ""
    return json.dumps({"object": "chunk", "choices": [choice], "usage": None})


def _logprobs(body: Mapping[str, Any], chat: bool, pieces: Sequence[str]) -> Any:
    """As vLLM says it where it is asked: each piece one token, likelier the longer it is."""
    if body.get("logprobs") is None or body["logprobs"] is False:  # 0 is a number of alternatives
        return None
    values = [-1.0 / len(piece) for piece in pieces]
    others = range(body.get("top_logprobs") or 0 if chat else body["logprobs"])
    if not chat:
        tops, offsets = [{f"other{i}": -2.0 - i for i in others} for _ in pieces], [0] * len(pieces)
        return {"tokens": list(pieces), "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}
    top = [{"token": f"other{i}", "logprob": -2.0 - i, "bytes": list(f"other{i}".encode())} for i in others]
    entries = [
        {"token": piece, "logprob": value, "bytes": list(piece.encode()), "top_logprobs": top}
        for piece, value in zip(pieces, values, strict=True)
    ]
    return {"content": entries}


def _body(reply: Reply) -> web.Response:
    if not isinstance(reply.body, str):
        return web.json_response(reply.body, status=reply.status, headers=reply.headers)
    kind = "text/html" if reply.body.startswith("<") else "text/plain"
    return web.Response(text=reply.body, content_type=kind, status=reply.status, headers=reply.headers)


def _whole(reply: Reply, body: Mapping[str, Any], chat: bool) -> web.Response:
    text = "".join(reply.pieces)
    choice: dict[str, Any] = {"index": 0, "finish_reason": reply.finish_reason}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    choice["logprobs"] = _logprobs(body, chat, reply.pieces)
    return web.json_response({"choices": [choice], "usage": _usage(reply.usage) if reply.usage else None})


def _usage(usage: tuple[int, int]) -> dict[str, int]:
    return {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "error", "code": None}}, status=status)

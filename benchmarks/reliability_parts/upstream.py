"""A trivial upstream that streams at a fixed pace, and counts what becomes of its answers.

python benchmarks/reliability_parts/upstream.py PORT PIECES SECONDS_BETWEEN
"""

from __future__ import annotations

import asyncio
import sys
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # it runs as a program of its own
from gateway_parts import MODEL, Upstream, event, plain, usage

__all__ = ["words"]

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@cache
def words(pieces: int) -> tuple[str, ...]:
    """The pieces of an answer: no two alike, so that it does not read as a loop (Knuth's multiplicative hashing)."""
    return tuple(f"{(number + 1) * 2654435761 % 2**32:08x} " for number in range(pieces))


@cache
def _parts(pieces: int) -> tuple[bytes, ...]:
    """The HTTP chunks of an answer, the last of them its end."""
    base = {"id": "x", "object": "chat.completion.chunk", "model": MODEL}

    def choice(delta: dict[str, str], reason: str | None = None) -> bytes:
        return event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    end = choice({}, "stop") + event({"choices": [], "usage": usage(pieces)}) + b"data: [DONE]\n\n"
    parts = [*(choice({"content": word}) for word in words(pieces)), end]
    return tuple(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


class Paced(Upstream):
    """One connection. The pace is of the class, and so are the counts, which `GET /counts` tells."""

    pieces = 30
    seconds = 0.05
    counts = {"running": 0, "whole": 0, "abandoned": 0}  # noqa: RUF012  # of the process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.answering: asyncio.Task[None] | None = None

    def answer(self, head: bytes, body: bytes) -> bytes:
        path = head.split(b" ", 2)[1]
        if path == b"/counts":
            return plain(self.counts)
        if path == b"/v1/chat/completions":
            self.answering = asyncio.create_task(self._stream())
            return b""
        return super().answer(head, body)

    def connection_lost(self, error: Exception | None) -> None:
        if self.answering is not None:
            self.answering.cancel()

    async def _stream(self) -> None:
        assert isinstance(self.transport, asyncio.WriteTransport)
        self.counts["running"] += 1
        ended = "abandoned"
        try:
            head, *parts = _parts(self.pieces)
            self.transport.write(_HEAD + head)
            for part in parts:
                await asyncio.sleep(self.seconds)
                self.transport.write(part)
            self.transport.write(b"0\r\n\r\n")
            ended = "whole"
        finally:
            self.counts["running"] -= 1
            self.counts[ended] += 1


async def _run(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Paced, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    Paced.pieces, Paced.seconds = int(sys.argv[2]), float(sys.argv[3])
    asyncio.run(_run(int(sys.argv[1])))

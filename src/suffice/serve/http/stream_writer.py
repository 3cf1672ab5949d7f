"""The body of a streamed response: pieces that come in one go leave in one write."""

from __future__ import annotations

import asyncio

from suffice.serve.http import sse
from suffice.serve.http.asgi import Send

__all__ = ["StreamWriter"]

_AHEAD = 1 << 16  # bytes that may wait for a slow reader before the answer waits with them


class StreamWriter:
    """One streamed response.

    A write is a system call, and an upstream often delivers many pieces at once. So a piece is written when the task
    that brings the pieces has to wait for the next one, not before: nothing is held back from a reader.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._parts: list[bytes] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None
        self.begun = False
        """The status has been sent: a failure can no longer have one of its own."""
        self.ended = False

    @property
    def blocked(self) -> bool:
        """Whether the reader is so far behind that the answer waits for it."""
        return self._size > _AHEAD and self._writing is not None and not self._writing.done()

    async def begin(self) -> None:
        self.begun = True
        headers = [(name.encode(), value.encode()) for name, value in sse.HEADERS.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def put(self, data: bytes) -> None:
        """Send a piece soon; waits only while the reader is far behind."""
        self._parts.append(data)
        self._size += len(data)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        if self._size > _AHEAD:
            await asyncio.shield(self._writing)  # a task that stops waiting for a slow reader may still `close`

    async def close(self, data: bytes) -> None:
        """Send what is left and `data`, which ends the response."""
        if self._writing is not None:
            await self._writing
        await self._send({"type": "http.response.body", "body": data})
        self.ended = True

    def abandon(self) -> None:
        """Send nothing more: the client has gone, or the response has ended."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self) -> None:
        while self._parts:
            body = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            await self._send({"type": "http.response.body", "body": body, "more_body": True})

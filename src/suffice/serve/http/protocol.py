"""uvicorn's HTTP protocol, with two things more: an end to how long the head of a request may be, and word at once when
a client goes, without a task for each request that waits for it."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

_MAX_HEAD = 64 << 10  # bytes, as in uvicorn's other protocol
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"  # RFC 6585, 5
)


class Connection(HttpToolsProtocol):
    """A connection. One that sends a head without an end is answered with 431 and closed.

    `scope["extensions"]` of each request has "suffice.gone", a set of functions, which are called when the client goes,
    and "suffice.drop", a function that ends the connection whether or not the client has read what was sent.
    """

    _in_head = True
    _head = 0
    _gone: set[Callable[[], None]] | None = None

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head = True, 0
        super().on_message_begin()
        if self._gone is None:
            self._gone = set()
        self.scope["extensions"] = {"suffice.gone": self._gone, "suffice.drop": self._drop}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        """Its body is whole; uvicorn may have stopped reading for it, and nobody would see the client go."""
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def _drop(self) -> None:
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went, or was closed."""
        super().connection_lost(exc)
        for tell in tuple(self._gone or ()):
            tell()

    def on_headers_complete(self) -> None:
        """Its head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """The next bytes of the connection."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > _MAX_HEAD and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

"""uvicorn's httptools protocol, plus a limit on the size of a request's head and an immediate callback when the client
disconnects, without a watcher task for each request."""

from __future__ import annotations

from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]

_MAX_HEAD = 64 << 10  # bytes, as in uvicorn's other protocol
# RFC 6585, 5
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Connection(HttpToolsProtocol):
    """A connection. A head that does not end is answered with 431, and the connection is closed.

    `scope["extensions"]` of each request has "suffice.gone", a set of functions that are called when the client
    disconnects, and "suffice.drop", a function that ends the connection even if the client has not read what was sent.
    """

    _in_head = True
    _head = 0
    _gone: set[Callable[[], None]] | None = None

    def on_message_begin(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_begin()
        if self._gone is None:
            self._gone = set()
        self.scope["extensions"] = {"suffice.gone": self._gone, "suffice.drop": self.transport.abort}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.pipeline:  # uvicorn may have paused reading, and a disconnect would go unnoticed
            self.flow.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for tell in tuple(self._gone or ()):
            tell()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > _MAX_HEAD and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

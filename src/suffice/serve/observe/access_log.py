"""The access log: one line of JSON for each request, on standard output. It holds no text of prompts or answers."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from suffice.json_codec import dump
from suffice.serve.http.asgi import Scope
from suffice.serve.http.middleware import HttpExchange

__all__ = ["AccessLog"]

_SOON = 0.1  # seconds: under load, many lines leave in one write


class AccessLog:
    """Collects lines for a moment and writes them together."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def add(self, scope: Scope, exchange: HttpExchange) -> None:
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "id": exchange.request_id,
            "method": scope["method"],
            "path": scope["path"],
            "status": exchange.status,
            "seconds": round(exchange.seconds, 4),
            **exchange.facts,
        }
        if not self._lines:
            asyncio.get_running_loop().call_later(_SOON, self.write)
        self._lines.append(dump(line))

    def write(self) -> None:
        if self._lines:
            sys.stdout.write(b"\n".join([*self._lines, b""]).decode())
            sys.stdout.flush()
            self._lines.clear()

"""An ASGI middleware that vLLM loads by its flag `--middleware`: no request without the key.

vLLM's own check leaves open what does not begin with /v1 (/tokenize, /invocations, /pause ...), and loopback is open to
every user of the machine. This file is all that vLLM's environment sees of Suffice, so it imports nothing of it.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["KeyGuard"]

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Scope]]
_Send = Callable[[_Scope], Awaitable[None]]


class KeyGuard:
    """Answers 401 to what does not carry the key in VLLM_API_KEY as a bearer token."""

    def __init__(self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "http" and not self._permits(scope):
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"this server is for the program that started it"})
        elif scope["type"] != "websocket" or self._permits(scope):
            await self._app(scope, receive, send)

    def _permits(self, scope: _Scope) -> bool:
        return any(
            name == b"authorization" and hmac.compare_digest(value, self._expected) for name, value in scope["headers"]
        )

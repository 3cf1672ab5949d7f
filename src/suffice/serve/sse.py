"""Server-sent events, as they are written (HTML standard, section 9.2). Knows nothing about language models."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["DONE", "HEADERS", "dump", "event"]

DONE = b"data: [DONE]\n\n"
"""The end of a stream, as OpenAI's clients look for it."""

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
"""Nothing between here and the reader may hold events back."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dump(value: Any) -> bytes:
    """Compact JSON."""
    return _encode(value).encode()


def event(value: Any) -> bytes:
    """One event with JSON in it."""
    return b"data: %b\n\n" % dump(value)

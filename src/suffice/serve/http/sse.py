"""Server-sent events, as they are written (HTML standard, section 9.2). Knows nothing about language models."""

from __future__ import annotations

from typing import Any

from suffice.json_codec import dump

__all__ = ["DONE", "HEADERS", "event"]

DONE = b"data: [DONE]\n\n"
"""The end of a stream, as OpenAI's clients look for it."""

HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache", "x-accel-buffering": "no"}
"""Nothing between here and the reader may hold events back."""


def event(value: Any) -> bytes:
    return b"data: %b\n\n" % dump(value)

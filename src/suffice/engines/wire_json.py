"""JSON as it goes over the wire: by orjson, or by the standard library where orjson is too strict for servers."""

from __future__ import annotations

import json
from typing import Any

import orjson

__all__ = ["dump", "load"]


def dump(value: Any) -> bytes:
    """Compact JSON in UTF-8; NaN and infinity, which JSON has not, are null.

    Raises:
        TypeError: the value has a type that JSON has not.
        UnicodeEncodeError: it holds half a character (a lone surrogate).
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # a number beyond 64 bits, half a character
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def load(text: str | bytes) -> Any:
    """What JSON says; also with NaN, halves of characters and numbers without bounds, which some servers send.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        return json.loads(text)

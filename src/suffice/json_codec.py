"""JSON as it goes over the wire: by orjson, or by the standard library where orjson is too strict for servers."""

from __future__ import annotations

import json
from collections.abc import Collection
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


def load(text: str | bytes, halves: Collection[str] = ()) -> Any:
    """What JSON says; also with NaN, numbers without bounds, and halves of characters, which some servers send.

    Args:
        text: the JSON.
        halves: names of fields in which half a character (a lone surrogate) stays, because the other half may be in the
            next event; elsewhere it is replaced.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return _whole(json.loads(text), halves)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole(value: Any, halves: Collection[str], name: str = "") -> Any:
    if isinstance(value, str) and name not in halves:
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_whole(each, halves, name) for each in value]
    if isinstance(value, dict):
        return {_whole(key, ()): _whole(each, halves, key) for key, each in value.items()}
    return value

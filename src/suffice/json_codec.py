"""Encodes and decodes JSON with orjson, or with the standard library where orjson is too strict for real servers."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import orjson

__all__ = ["dump", "load"]


def dump(value: Any) -> bytes:
    """Compact JSON in UTF-8; NaN and infinity, which JSON does not have, become null.

    Raises:
        TypeError: the value has a type that JSON does not have.
        UnicodeEncodeError: it holds half a character (a lone surrogate).
    """
    try:
        return orjson.dumps(value)
    except TypeError:  # a number beyond 64 bits, half a character
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def load(text: str | bytes, halves: Collection[str] = ()) -> Any:
    """The value of a JSON text, which may have NaN, numbers of any size and halves of characters: some servers do.

    Args:
        text: the JSON.
        halves: names of fields in which half a character (a lone surrogate) stays, because the other half may be in the
            next event; elsewhere it is replaced.

    Raises:
        ValueError: it is not JSON.
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

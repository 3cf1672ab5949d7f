"""Writes the lines of a result file, and reads them back after a crash."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["MAX_INDEX", "BrokenLine", "ResultLine", "encode_line", "scan"]

MAX_INDEX = 1 << 30
"""Largest row index: a damaged line may not make us reserve memory for more."""


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A good line and where it lies, in bytes."""

    index: int
    failed: bool
    start: int
    end: int
    content: bytes


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line that was not finished, or that another program wrote."""

    number: int
    reason: str


def encode_line(result: Mapping[str, Any]) -> bytes:
    """One line of UTF-8 JSON. NaN and infinity become null, and what JSON does not know (dates) becomes text."""
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_without_nan(result), ensure_ascii=False, default=str)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a character (a lone surrogate) can only be written escaped
        return json.dumps(_without_nan(result), default=str).encode() + b"\n"


def scan(path: Path) -> Iterator[ResultLine | BrokenLine]:
    """Every line of the file that is not blank."""
    end = 0
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            start, end = end, end + len(content)
            if content.isspace():
                continue
            try:
                result = json.loads(content)
                index = result["index"]
                if type(index) is not int or not 0 <= index <= MAX_INDEX:
                    raise ValueError(f"index {index!r}")
            except (ValueError, KeyError, TypeError, RecursionError):
                yield BrokenLine(number, "not a JSON object with a row's index")
            else:
                yield ResultLine(index, result.get("error") is not None, start, end, content)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value

"""Tool calls out of the pieces in which they stream. Knows nothing about models or servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["ToolCalls"]


class ToolCalls:
    """Joins pieces in the shape of OpenAI's streams: the first of a call has its id and name, all have arguments."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}

    def add(self, piece: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the next piece, and return it with its `index`, which some servers leave out.

        Raises:
            AttributeError, TypeError: it has another shape.
        """
        if not isinstance(piece.get("index"), int):
            last = max(self._calls, default=-1)
            piece = {**piece, "index": last + 1 if piece.get("id") or last < 0 else last}
        function = piece.get("function") or {}
        call = self._calls.setdefault(piece["index"], {"id": "", "type": "function", "function": {"name": ""}})
        call |= {name: value for name, value in piece.items() if value and name not in ("index", "function")}
        call["function"] |= {name: value for name, value in function.items() if value and name != "arguments"}
        pieces = self._arguments.setdefault(piece["index"], [])
        if arguments := function.get("arguments"):
            pieces.append(arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))
        return piece

    @property
    def whole(self) -> bool:
        """Whether every call's arguments are JSON, which half a call's are not."""
        return all(_is_json("".join(pieces)) for pieces in self._arguments.values())

    def to_list(self) -> list[dict[str, Any]]:
        """The calls, as a message of the assistant has them."""
        return [
            {**call, "function": {**call["function"], "arguments": "".join(self._arguments[index])}}
            for index, call in sorted(self._calls.items())
        ]


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "{}")
    except ValueError:
        return False
    return True

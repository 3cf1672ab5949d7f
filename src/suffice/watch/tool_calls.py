"""Separates tool calls from an answer's text, as models of the Hermes and Qwen families write them:
`<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

__all__ = ["CallSplitter"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class CallSplitter:
    """Splits streamed text into text and calls, wherever the pieces are cut.

    A call comes whole. A block that holds something else, or that the answer's end cuts, stays text: nothing is lost.
    White space around calls is left out.
    """

    def __init__(self) -> None:
        self._held = ""
        self._count = 0
        self._space = ""  # before the block
        self._inside = False
        self._after_call = False

    def push(self, piece: str) -> Iterator[str | dict[str, Any]]:
        """Text, and calls as whole pieces in OpenAI's shape, in the order in which they come."""
        text, self._held = self._held + piece, ""
        while text:
            if self._inside:
                block, closed, rest = text.partition(_CLOSE)
                if not closed:
                    self._held = text
                    return
                call = self._call(block.removeprefix(_OPEN))
                yield self._space + block + closed if call is None else call
                self._inside, self._after_call, text = False, call is not None, rest
                continue
            before, opened, rest = text.partition(_OPEN)
            kept = before.rstrip()
            self._space = before[len(kept) :]
            if not opened:
                kept = before[: len(before) - _held_length(before)]
                self._held = before[len(kept) :]
            if self._after_call:
                kept = kept.lstrip()
                self._after_call = not kept
            if kept:
                yield kept
            self._inside, text = bool(opened), _OPEN + rest if opened else ""

    def flush(self) -> str:
        """What was held back, when everything has come."""
        held, self._held = self._held, ""
        if self._inside:
            self._inside = False
            return self._space + held
        return held.lstrip() if self._after_call else held

    def _call(self, block: str) -> dict[str, Any] | None:
        try:
            found = json.loads(block)
        except ValueError:
            return None
        if not isinstance(found, dict) or not isinstance(found.get("name"), str):
            return None
        arguments = found.get("arguments", found.get("parameters", {}))
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        index, self._count = self._count, self._count + 1
        function = {"name": found["name"], "arguments": arguments}
        return {"index": index, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _held_length(text: str) -> int:
    """Length of the end of `text` that could begin a call, the white space before it included."""
    tag = next((n for n in range(min(len(_OPEN) - 1, len(text)), 0, -1) if _OPEN.startswith(text[-n:])), 0)
    rest = text[: len(text) - tag]
    return tag + len(rest) - len(rest.rstrip())

"""Tools in what clients send: the functions that an answer may call, and calls in the conversation so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice.serve.http.body import Fields, wrong
from suffice.serve.http.errors import Problem

__all__ = ["read_calls", "read_tools"]

_EXAMPLE = 'objects such as {"type": "function", "function": {"name": "...", "parameters": {...}}}'
_CALL = 'calls such as {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}'


def read_tools(fields: Fields, passes_on: bool) -> tuple[Mapping[str, Any], ...]:
    """`tools`, with `tool_choice` and `parallel_tool_calls`, which servers read themselves.

    Raises:
        Problem: they have another shape, or ask for what the local engine cannot do.
    """
    if passes_on and "tools" not in fields.left:
        return ()
    tools = fields.take("tools", [])
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise wrong("tools", tools, f"a list of {_EXAMPLE}")
    if passes_on:
        return tuple(tools)
    choice, parallel = fields.take("tool_choice", "auto"), fields.flag("parallel_tool_calls", True)
    if choice == "none":
        return ()
    if choice != "auto":
        message = "the local engine cannot be made to call a tool: tool_choice must be auto or none"
        raise Problem(400, message, param="tool_choice", code="unsupported_parameter")
    if tools and not parallel:
        message = "the local engine cannot be held to one call: leave out parallel_tool_calls"
        raise Problem(400, message, param="parallel_tool_calls", code="unsupported_parameter")
    return tuple(tools)


def read_calls(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a message has of tools, for the chat template: its calls, or which call it answers.

    Raises:
        Problem: it has another shape.
    """
    found: dict[str, Any] = {}
    for name in ("name", "tool_call_id"):
        if (value := message.get(name)) is not None:
            if not isinstance(value, str):
                raise wrong(f"{where}.{name}", value, "a string")
            found[name] = value
    if (calls := message.get("tool_calls")) is not None:
        if not isinstance(calls, list) or not all(map(_is_call, calls)):
            raise wrong(f"{where}.tool_calls", calls, f"a list of {_CALL}")
        if calls:
            found["tool_calls"] = calls
    return found


def _is_tool(tool: Any) -> bool:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        return False
    function = tool.get("function")
    named = isinstance(function, dict) and isinstance(function.get("name"), str)
    return named or tool["type"] != "function"


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return False
    return isinstance(function.get("name"), str) and isinstance(function.get("arguments", ""), str)

"""Tools in what clients send: the functions that an answer may call, and calls in the conversation so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice.serve.http.errors import Problem
from suffice.serve.http.fields import Field, flag, wrong

__all__ = ["CALLS", "CHOICE", "PARALLEL", "TOOLS", "read_calls", "usable_tools"]

_TEXT = {"type": "string"}
_EXAMPLE = 'objects such as {"type": "function", "function": {"name": "...", "parameters": {...}}}'
_CALL_EXAMPLE = 'calls such as {"id": "...", "type": "function", "function": {"name": "...", "arguments": "{...}"}}'


def _read_tools(name: str, tools: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise wrong(name, tools, f"a list of {_EXAMPLE}")
    return tuple(tools)


def _is_tool(tool: Any) -> bool:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        return False
    function = tool.get("function")
    named = isinstance(function, dict) and isinstance(function.get("name"), str)
    return named or tool["type"] != "function"


def _read_choice(name: str, choice: Any) -> str:
    if choice not in ("none", "auto"):
        message = "the local engine cannot be made to call a tool: tool_choice must be auto or none"
        raise Problem(400, message, param=name, code="unsupported_parameter")
    return str(choice)


def _function(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"name": _TEXT, **properties}, "required": ["name"]}


_TOOL = {
    "type": "object",
    "properties": {
        "type": {"enum": ["function"]},
        "function": _function(description=_TEXT, parameters={"type": "object"}),
    },
    "required": ["type", "function"],
}
_CALL = {
    "type": "object",
    "properties": {"function": _function(arguments={"type": "string", "description": "JSON in a text."})},
    "required": ["function"],
}
_TOOLS_SAID = "Functions that the answer may call; on the local engine, where the chat template has tools."
_CHOICES = [{"enum": ["none", "auto", "required"]}, {"type": "object"}]

TOOLS = Field("tools", _read_tools, {"type": "array", "items": _TOOL, "description": _TOOLS_SAID})
CHOICE = Field("tool_choice", _read_choice, {"anyOf": _CHOICES, "description": "On the local engine none or auto."})
PARALLEL = flag("parallel_tool_calls")
CALLS = {"type": "array", "items": _CALL, "description": "Of the assistant; its content may then be null."}
"""The schema of `tool_calls` in a message."""


def usable_tools(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools that an answer may call. Servers read the other two fields themselves: then `values` has neither.

    Raises:
        Problem: they ask for what the local engine cannot do.
    """
    tools: tuple[Mapping[str, Any], ...] = values.get("tools", ())
    if values.get("tool_choice") == "none":
        return ()
    if tools and not values.get("parallel_tool_calls", True):
        message = "the local engine cannot be held to one call: leave out parallel_tool_calls"
        raise Problem(400, message, param="parallel_tool_calls", code="unsupported_parameter")
    return tools


def read_calls(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a message has of tools, for the chat template: its calls, or which call it answers."""
    found: dict[str, Any] = {}
    for name in ("name", "tool_call_id"):
        if (value := message.get(name)) is not None:
            if not isinstance(value, str):
                raise wrong(f"{where}.{name}", value, "a string")
            found[name] = value
    if (calls := message.get("tool_calls")) is not None:
        if not isinstance(calls, list) or not all(map(_is_call, calls)):
            raise wrong(f"{where}.tool_calls", calls, f"a list of {_CALL_EXAMPLE}")
        if calls:
            found["tool_calls"] = calls
    return found


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return False
    return isinstance(function.get("name"), str) and isinstance(function.get("arguments", ""), str)

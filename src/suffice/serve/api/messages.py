"""The messages of a conversation, as clients send them and as JSON Schema describes them."""

from __future__ import annotations

from typing import Any

from suffice.prompt import Message
from suffice.serve.api.tools import CALLS, read_calls
from suffice.serve.http.errors import Problem
from suffice.serve.http.fields import wrong

__all__ = ["MESSAGES", "message_schema", "read_messages"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXT = {"type": "string"}
_NULL = {"type": "null"}
_PART_EXAMPLE = 'parts such as {"type": "text", "text": "..."}'

MESSAGES = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Message"}}
"""The schema of a conversation."""


def message_schema(forwards: bool) -> dict[str, Any]:
    """The schema of a message. Parts that are not text are for a server to read, where there is one."""
    part = {"type": "object", "properties": {"type": {"const": "text"}, "text": _TEXT}, "required": ["type", "text"]}
    kind = {"type": "string", "not": {"const": "text"}}
    other = {"type": "object", "properties": {"type": kind}, "required": ["type"]}
    parts = {"type": "array", "items": {"anyOf": [part, other]} if forwards else part}
    return {
        "type": "object",
        "properties": {
            "role": {"enum": list(_ROLES)},
            "content": {"anyOf": [_TEXT, parts, _NULL]},
            "tool_calls": CALLS,
            "tool_call_id": {**_TEXT, "description": "Which call a tool's message answers."},
        },
        "required": ["role"],
        "anyOf": [
            {"properties": {"role": {"const": "assistant"}}},
            {"properties": {"content": {"not": _NULL}}, "required": ["content"]},
        ],
    }


def read_messages(given: Any, forwards: bool) -> tuple[Message, ...]:
    """A conversation. A message that is forwarded keeps all that it has; another keeps what a chat template reads.

    Raises:
        Problem: it is not a conversation, or has parts that the local engine cannot read.
    """
    if not isinstance(given, list) or not given:
        raise Problem(400, "messages must be a list with at least one message", param="messages")
    return tuple([_message(each, index, forwards) for index, each in enumerate(given)])


def _message(given: Any, index: int, forwards: bool) -> Message:
    if not isinstance(given, dict):
        raise wrong(f"messages[{index}]", given, 'an object such as {"role": "user", "content": "..."}')
    role, content = given.get("role"), given.get("content")
    if role not in _ROLES:
        raise wrong(f"messages[{index}].role", role, f"one of {', '.join(_ROLES)}")
    if isinstance(content, list):
        content = _parts(content, f"messages[{index}]", forwards)
    elif content is None and role == "assistant":
        content = None if forwards and given.get("tool_calls") else ""
    elif not isinstance(content, str):
        raise wrong(f"messages[{index}].content", content, "a text, or a list of parts")
    if forwards:
        return {**given, "content": content}  # type: ignore[typeddict-item]
    message = {"role": "system" if role == "developer" else role, "content": content}
    if len(given) == 2 and "content" in given:  # nothing else
        return message  # type: ignore[return-value]
    return message | read_calls(given, f"messages[{index}]")  # type: ignore[return-value]


def _parts(parts: list[Any], where: str, forwards: bool) -> Any:
    for each in parts:
        kind = each.get("type") if isinstance(each, dict) else None
        if not isinstance(kind, str) or (kind == "text" and not isinstance(each.get("text"), str)):
            raise wrong(f"{where}.content", each, _PART_EXAMPLE)
        if kind != "text" and not forwards:
            message = f"this model reads text only, and {where} has a part of type {kind!r}"
            raise Problem(400, message, param=where)
    return parts if forwards else "".join(each["text"] for each in parts)

"""The fields of a JSON object, each declared once: how its value is read, and its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from suffice.serve.http.errors import Problem

__all__ = [
    "Field",
    "RequestBody",
    "anything",
    "flag",
    "integer",
    "number",
    "one_of",
    "refused",
    "text",
    "tokens",
    "wrong",
]

_NULL = {"type": "null"}


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    read: Callable[[str, Any], Any]
    """From its name and its value in JSON, which is not null, to what it means; raises `Problem`."""
    schema: Mapping[str, Any] | None = None
    """None keeps it out of the OpenAPI document."""


class RequestBody:
    """A JSON object of which some fields are known. `null` is the same as leaving a field out.

    `fields` are always read, `local` ones only where no server could: elsewhere they are forwarded as they are. That
    `required` fields are there is for the caller to check.
    """

    def __init__(
        self,
        name: str,
        fields: Iterable[Field],
        local: Iterable[Field] = (),
        required: tuple[str, ...] = (),
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        fields, local = tuple(fields), tuple(local)
        self._fields, self._required, self._schema = (*fields, *local), required, schema or {}
        self._forwarding = {each.name: each.read for each in fields}
        self._reading_all = {each.name: each.read for each in self._fields}

    def read(self, body: Mapping[str, Any], *, forwards: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of fields that are known, and the other fields as they are, which `forwards` sends to a server.

        Raises:
            Problem: a field has a value that it may not have.
        """
        readers = self._forwarding if forwards else self._reading_all
        values, others = {}, {}
        for name, value in body.items():
            if value is None:
                continue
            read = readers.get(name)
            if read is None:
                others[name] = value
            else:
                values[name] = read(name, value)
        return values, others

    def schema(self) -> dict[str, Any]:
        shown = {each.name: each.schema for each in self._fields if each.schema is not None}
        properties = {name: each if name in self._required else _nullable(each) for name, each in shown.items()}
        return {"type": "object", "properties": properties, "required": list(self._required), **self._schema}


def text(name: str, **schema: Any) -> Field:
    return Field(name, _of_type(str, "a string"), {"type": "string", **schema})


def flag(name: str, **schema: Any) -> Field:
    return Field(name, _of_type(bool, "true or false"), {"type": "boolean", **schema})


def one_of(name: str, *words: str, **schema: Any) -> Field:
    """One of a few words."""

    def read(name: str, value: Any) -> str:
        if value not in words:
            raise wrong(name, value, f"{', '.join(words[:-1])} or {words[-1]}")
        return str(value)

    return Field(name, read, {"enum": list(words), **schema})


def _of_type(kind: type, wanted: str) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise wrong(name, value, wanted)
        return value

    return read


def integer(name: str, low: int, high: int, **schema: Any) -> Field:
    """A whole number from `low` to `high`."""

    def read(name: str, value: Any) -> int:
        value = _whole(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise wrong(name, value, f"a whole number from {low} to {high}")
        return value

    return Field(name, read, {"type": "integer", "minimum": low, "maximum": high, **schema})


def number(name: str, low: float, high: float, *, above: bool = False) -> Field:
    """A number from `low` (with `above`, just above it) to `high`."""

    def read(name: str, value: Any) -> float:
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        if not fits or (above and value == low):
            raise wrong(name, value, f"a number {'above' if above else 'from'} {low:g} to {high:g}")
        return float(value)

    return Field(name, read, {"type": "number", "exclusiveMinimum" if above else "minimum": low, "maximum": high})


def tokens(name: str) -> Field:
    """A number of tokens, or "auto"."""

    def read(name: str, value: Any) -> int | str:
        value = _whole(value)
        if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise wrong(name, value, 'a whole number of tokens from 1, or "auto"')
        return value

    choices = [{"type": "integer", "minimum": 1}, {"enum": ["auto"]}]
    return Field(name, read, {"description": "A number of tokens, or auto.", "anyOf": choices})


def anything(name: str, **schema: Any) -> Field:
    """A value that is read later."""
    return Field(name, lambda _, value: value, schema)


def refused(name: str, *neutral: Any, because: str) -> Field:
    """A field that is not supported, except for `neutral` values, which ask for nothing. `because` follows its name in
    the refusal: what is wrong, and what to do."""

    def read(name: str, value: Any) -> None:
        if value not in neutral:
            raise Problem(400, f"{name} {because}", param=name, code="unsupported_parameter")

    return Field(name, read)


def wrong(name: str, value: Any, wanted: str) -> Problem:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else shown[:79] + "…"
    return Problem(400, f"{name} is {shown}: it must be {wanted}", param=name, code="invalid_value")


def _whole(value: Any) -> Any:
    """JSON has one kind of numbers: 5.0 is a whole one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    match schema:
        case {"anyOf": choices}:
            return {**schema, "anyOf": [*choices, _NULL]}
        case {"enum": values}:
            return {**schema, "enum": [*values, None]}
    return {**schema, "type": [schema["type"], "null"]}

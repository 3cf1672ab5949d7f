"""Reads one row, in any of the known formats, as a prompt and the answer to it. Knows nothing about files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from suffice.data.types import BATCH_FORMAT, ParsedRow, RowFormat, RowProblem, Turn
from suffice.errors import UsageError

__all__ = ["COLUMNS", "check_columns", "field_asked", "parse_columns", "read_row"]

COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "instruction": ("instruction",),
    "query": ("query", "prompt", "question", "problem", "input"),
    "response": ("response", "answer", "output", "completion", "target", "solution"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
}
"""Our name of a column, and the names under which it is found, first match first."""

ROLES: dict[str, str] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "model", "ai", "function_call"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "tool_response"), "tool"),
}
"""Role names of OpenAI's messages and of ShareGPT, and ours. `function_call` is what the assistant asks of a tool."""

_CANONICAL = {alias: column for column, aliases in COLUMNS.items() for alias in aliases}
_URLS = {"": None, "/chat/completions": "messages", "/completions": "prompt"}
_ROLE_KEYS = ("role", "from")
_CONTENT_KEYS = ("content", "value")
_KEPT_KEYS = ("name", "tool_calls", "tool_call_id", "reasoning_content")


def parse_columns(pairs: Iterable[str]) -> dict[str, str]:
    """What `--columns NAME=OURS` says: the user's column names mapped to ours.

    Raises:
        UsageError: a pair without an equals sign, or with nothing on one of its sides.
    """
    columns = {}
    for pair in pairs:
        name, equals, ours = pair.partition("=")
        if not (name and equals and ours):
            raise UsageError(f"--columns takes NAME=OURS, for example ask=query, and not {pair!r}")
        columns[name] = ours
    return columns


def check_columns(columns: Mapping[str, str]) -> str | None:
    """What is wrong with a mapping from the user's column names to ours, or None."""
    for theirs, ours in columns.items():
        if ours not in _CANONICAL:
            known = ", ".join((*COLUMNS, "input", "output"))
            return f'"{theirs}={ours}": no column is called "{ours}" here, choose one of {known}'
    return None


def read_row(row: object, columns: Mapping[str, str] | None = None) -> ParsedRow:
    """The prompt and the answer of one row.

    Args:
        row: a mapping, or a string (which is a user turn by itself).
        columns: the user's column names mapped to ours ({"ask": "query"}).

    Raises:
        RowProblem: the row cannot be used; says why, with the columns it has and what is expected.
    """
    if isinstance(row, str):
        return _checked([_turn("user", row)], None, "text")
    if not isinstance(row, Mapping):
        raise RowProblem(f"expected an object with named columns, found {_kind(row)}")
    cells = _Cells(row, columns or {})
    if isinstance(row.get("body"), Mapping) and ("custom_id" in row or {"method", "url"} <= row.keys()):
        return _from_request(row, row["body"], cells)
    if (listed := cells.get("messages")) is not None:
        return _from_messages(listed, cells.name_of("messages"), cells)
    query = cells.get("query")
    if isinstance(query, list):  # TRL's conversational prompt/completion
        return _from_messages(query, cells.name_of("query"), cells)
    if (instruction := cells.get("instruction")) is not None:
        # Alpaca: the instruction, and below it the input where there is one
        parts = [_text(instruction, "instruction"), "" if query is None else _text(query, "input")]
        return _from_query("\n".join(part for part in parts if part.strip()), cells, "alpaca")
    if query is not None:
        return _from_query(_text(query, cells.name_of("query")), cells, "query/response")
    if empty := cells.empty("messages", "instruction", "query"):
        raise RowProblem(f'column "{empty}" is empty, expected the prompt')
    raise RowProblem(_nothing_known(row))


def _from_request(row: Mapping[str, Any], body: Mapping[str, Any], cells: _Cells) -> ParsedRow:
    """A line of OpenAI's batch files: a request of its API, and perhaps the reference beside it."""
    url = _url(row)
    if url not in _URLS or row.get("method", "POST") != "POST":
        asked = f"{row.get('method', 'POST')} {row.get('url')}"
        raise RowProblem(f"{_shown(asked)} is not answered here: POST /v1/chat/completions or /v1/completions")
    needed = field_asked(row, body)
    if needed not in body:
        raise RowProblem(f"body has {_names(body) or 'nothing'}, expected {needed}")
    if needed == "prompt":
        prompt = _turn("user", _text(body["prompt"], "prompt of body", column=False))
        return _checked([prompt], _answer(cells), BATCH_FORMAT)
    listed = body["messages"]
    if not isinstance(listed, list):
        raise RowProblem(f"messages of body is {_kind(listed)}, expected a list of turns with role and content")
    turns = [_read_turn(turn, f"turn {number} of messages") for number, turn in enumerate(listed, 1)]
    if turns and turns[-1]["role"] == "assistant":
        turns.pop()  # the begin of an answer that is to be continued
    return _checked(turns, _answer(cells), BATCH_FORMAT)


def field_asked(row: Mapping[str, Any], body: Mapping[str, Any]) -> str:
    """What a request of a batch file has to hold: `messages` for a chat, `prompt` for text to be continued.

    Raises:
        KeyError: its URL is not answered here.
    """
    return _URLS[_url(row)] or ("prompt" if "prompt" in body else "messages")


def _url(row: Mapping[str, Any]) -> str:
    return str(row.get("url") or "").rstrip("/").removeprefix("/v1")


class _Cells:
    """The row's values by our column names; empty lists and missing values are None."""

    def __init__(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> None:
        self._row = {str(key).strip().lower(): value for key, value in row.items() if key not in columns}
        self._names = {str(key).strip().lower(): str(key) for key in row if key not in columns}
        for theirs, ours in columns.items():
            if theirs in row:
                column = _CANONICAL[ours]
                self._row[column] = row[theirs]
                self._names[column] = theirs

    def name_of(self, column: str) -> str:
        found = self._find(column)
        return self._names[found] if found else column

    def get(self, column: str) -> Any:
        found = self._find(column)
        value = self._row[found] if found else None
        if isinstance(value, str) and column in ("messages", "history") and value.strip():
            return _parsed_list(value, self.name_of(column))  # CSV cells hold lists as JSON
        return None if value == "" and column not in ("instruction", "query") else value

    def empty(self, *columns: str) -> str | None:
        """The name of one of these columns that is there without a value."""
        found = (name for column in columns for name in COLUMNS[column] if name in self._row)
        return next((self._names[name] for name in found if self._row[name] is None), None)

    def _find(self, column: str) -> str | None:
        """An empty cell does not hide a later alias that has a value."""
        present = [name for name in COLUMNS[column] if self._row.get(name) is not None]
        return next((name for name in present if self._row[name] != ""), present[0] if present else None)


def _from_messages(listed: object, name: str, cells: _Cells) -> ParsedRow:
    if not isinstance(listed, list | tuple):
        raise RowProblem(f'column "{name}" is {_kind(listed)}, expected a list of turns with role and content')
    turns = [_read_turn(turn, f"turn {number} of {name}") for number, turn in enumerate(listed, 1)]
    answer = _answer(cells)
    if turns and turns[-1]["role"] == "assistant":
        *turns, last = turns
        answer = last if last["content"] or last.get("tool_calls") else answer
    system = cells.get("system")
    if system is not None and not any(turn["role"] == "system" for turn in turns):
        turns.insert(0, _turn("system", _text(system, cells.name_of("system"))))
    from_value = bool(listed) and isinstance(listed[0], Mapping) and "from" in listed[0]
    return _checked(turns, answer, "sharegpt" if from_value else "messages")


def _from_query(query: str, cells: _Cells, row_format: RowFormat) -> ParsedRow:
    turns: list[Turn] = []
    if (system := cells.get("system")) is not None:
        turns.append(_turn("system", _text(system, cells.name_of("system"))))
    turns += _history(cells.get("history"))
    turns.append(_turn("user", query))
    return _checked(turns, _answer(cells), row_format)


def _checked(turns: list[Turn], answer: Turn | None, row_format: RowFormat) -> ParsedRow:
    """The row, if a model can answer its prompt."""
    roles = [turn["role"] for turn in turns]
    if "user" not in roles:
        raise RowProblem(f"no user turn to answer (turns before the answer: {', '.join(roles) or 'none'})")
    if roles[-1] not in ("user", "tool"):
        raise RowProblem(f'the turn to answer must be from user or tool, and it is from "{roles[-1]}"')
    for turn in turns:
        if turn["role"] == "user" and not turn["content"].strip():
            raise RowProblem("the prompt is empty" if turn is turns[-1] else "a user turn in the history is empty")
    for turn in turns if answer is None else (*turns, answer):
        _check_unicode(turn)
    return ParsedRow(messages=tuple(turns), answer=answer, format=row_format)


def _read_turn(turn: object, where: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise RowProblem(f"{where} is {_kind(turn)}, expected an object with role and content (or from and value)")
    role = next((turn[key] for key in _ROLE_KEYS if key in turn), None)
    content_key = next((key for key in _CONTENT_KEYS if key in turn), None)
    if role is None or (content_key is None and not turn.get("tool_calls")):
        raise RowProblem(f"{where} has {_names(turn)}, expected role and content (or from and value)")
    ours = ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if ours is None:
        raise RowProblem(f"{where} has the unknown role {_shown(role)}, expected user, assistant, system or tool")
    content = turn[content_key] if content_key else None
    if content is None and ours == "assistant":
        content = ""  # OpenAI's shape for one that only calls tools, and what others leave where there is no answer yet
    return _turn(ours, _content(content, where), {key: turn[key] for key in _KEPT_KEYS if turn.get(key)})


def _content(content: object, where: str) -> str:
    """The text of a turn: a string, or OpenAI's list of parts as long as all of them are text."""
    if not isinstance(content, list):
        return _text(content, f"content of {where}", column=False)
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, Mapping) else None
            raise RowProblem(f"{where} has a part of type {_shown(kind)}, only text is read")
    return "".join(part["text"] for part in content)


def _history(history: object) -> Iterable[Turn]:
    """Earlier turns: [[question, answer], ...], or a list of messages."""
    if history is None:
        return
    if not isinstance(history, list | tuple):
        raise RowProblem(f"history is {_kind(history)}, expected a list of [question, answer] pairs")
    for number, item in enumerate(history, 1):
        if isinstance(item, Mapping):
            yield _read_turn(item, f"turn {number} of history")
        elif isinstance(item, list | tuple) and len(item) == 2:
            yield _turn("user", _text(item[0], f"question {number} of history", column=False))
            yield _turn("assistant", _text(item[1], f"answer {number} of history", column=False))
        else:
            raise RowProblem(f"item {number} of history is {_shown(item)}, expected a [question, answer] pair")


def _answer(cells: _Cells) -> Turn | None:
    """The answer in a column of its own: text, a label or a number, or a list of turns, of which it is the last."""
    value, name = cells.get("response"), cells.name_of("response")
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        return {**_read_turn(value[-1], f"turn {len(value)} of {name}"), "role": "assistant"}
    if isinstance(value, int | float):
        value = str(value)
    return None if value is None else _turn("assistant", _text(value, name))


def _turn(role: str, content: str, kept: Mapping[str, Any] | None = None) -> Turn:
    return cast(Turn, {"role": role, "content": content, **(kept or {})})


def _text(value: object, name: str, *, column: bool = True) -> str:
    if isinstance(value, str):
        return value
    what = f'column "{name}"' if column else name
    raise RowProblem(f"{what} is {_kind(value)}, expected text")


def _parsed_list(value: str, name: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RowProblem(f'column "{name}" is {_shown(value)}, expected a list (as JSON)') from None


def _check_unicode(turn: Turn) -> None:
    """A lone surrogate cannot be tokenized, nor sent, nor written."""
    text = turn["content"]
    if len(turn) > 2:  # with tool calls or reasoning
        text = json.dumps(turn, ensure_ascii=False, default=str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RowProblem(f"the text has half a character ({text!r:.40}, position {error.start})") from None


def _nothing_known(row: Mapping[str, Any]) -> str:
    if not row:
        return "the row has no columns"
    expected = "messages, conversations, instruction, query, prompt or question"
    return f"none of its columns is known: it has {_names(row)}, expected {expected} (with text in it)"


def _names(row: Mapping[str, Any], most: int = 8) -> str:
    names = [str(name) for name in row]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return "empty" if value is None else f"{kinds.get(type(value), type(value).__name__)} ({_shown(value)})"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else text[:37] + "..."

"""Conversations in files: one row of JSON Lines each, in the messages format that datasets have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from suffice.cli.infer.chat.dialogue import Dialogue
from suffice.data import Conversation, UnusableRow, read_dataset
from suffice.errors import UsageError

if TYPE_CHECKING:
    from suffice.prompt import Message

__all__ = ["load", "save"]


def save(path: Path, dialogue: Dialogue, model: str) -> tuple[Path, int]:
    """Add a conversation to a file, which is made where it is not there; nothing in it is replaced.

    Returns:
        The file, and the row's number in it, from 1.

    Raises:
        UsageError: the file cannot be written, or its name is that of another format.
    """
    path = path if path.suffix else path.with_suffix(".jsonl")
    if path.suffix not in (".jsonl", ".ndjson"):
        raise UsageError(f"conversations are saved as JSON Lines: name the file {path.with_suffix('.jsonl').name}")
    system: list[Message] = [{"role": "system", "content": dialogue.system}] if dialogue.system else []
    row: dict[str, Any] = {"messages": [*system, *dialogue.messages], "model": model}
    if dialogue.unfinished:
        row["finish_reason"] = "length"
    try:
        with path.open("a+b") as file:
            file.seek(0)
            before = file.read()
            if before and not before.endswith(b"\n"):
                file.write(b"\n")
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None
    return path, len(before.splitlines()) + 1


def load(spec: str, number: int | None = None) -> tuple[Dialogue, int, int]:
    """A conversation of a dataset, in any format that is read; without a number, the last one.

    Returns:
        The conversation, its number, and how many the file has.

    Raises:
        UsageError: there is no such file or row, or the row cannot be used.
    """
    found: Conversation | UnusableRow | None = None
    rows = 0
    for rows, row in enumerate(read_dataset(spec), 1):
        if number in (None, rows):
            found = row
    at = number or rows
    if found is None:
        raise UsageError(f"{spec} has {rows} rows, and no row {at}")
    if isinstance(found, UnusableRow):
        raise UsageError(str(found))
    return _dialogue(found), at, rows


def _dialogue(row: Conversation) -> Dialogue:
    messages = cast("tuple[Message, ...]", row.messages if row.answer is None else (*row.messages, row.answer))
    system = None
    if messages[0]["role"] == "system":
        system, messages = str(messages[0]["content"]), messages[1:]
    unfinished = row.row.get("finish_reason") not in (None, "stop")
    return Dialogue(system=system, messages=messages, unfinished=unfinished and row.answer is not None)

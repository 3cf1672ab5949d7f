"""What a finished request teaches the length model: its own, and those that other replicas or earlier runs wrote down.

A cap, a client that went away, or a failure ended an answer that would have been longer. A loop's length says when the
detector stopped it, and a refusal has none: they teach nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suffice.budget.model import Asked
    from suffice.data import AnswerSummary
    from suffice.serve.service import Ticket

__all__ = ["Lesson", "lessons_of", "read_log", "record_of"]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One answer's length, and what was asked; without any text."""

    asked: Asked
    tokens: int
    cut: bool
    """Something ended it, so that its own length is at least this."""


def lessons_of(ticket: Ticket, row: Mapping[str, Any]) -> tuple[Lesson, ...]:
    """What this replica's own request teaches; nothing where there is no length model."""
    budget = ticket.reply.budget if ticket.reply is not None else None
    if budget is None or budget.asked is None or (cut := _cut(row)) is None:
        return ()
    return (Lesson(budget.asked, row["answer_tokens"], cut),)


def record_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of the store as a record for `LengthModel`; None where it teaches nothing."""
    cut = _cut(row)
    if cut is None:
        return None
    who = {"model": row["model"], "route": row["route"], "client": row["key_id"]}
    return {**who, "output_tokens": row["answer_tokens"], "finish": "length" if cut else "stop"}


def read_log(url: str, most: int, summary: AnswerSummary) -> list[dict[str, Any]]:
    """The newest answers of a server's own log as records for `LengthModel`, in order of time.

    Args:
        url: of the database, as `suffice serve --database` takes it; it must be there.
        most: requests that are read.
        summary: counts what was found, and what was left out and why.

    Raises:
        UsageError: there is no such database, or it cannot be opened.
    """
    from suffice.serve.store import Store

    store = Store(url, must_exist=True)
    try:
        rows = store.newest_rows(most)
        if (left := store.last_row() - most) > 0:
            summary.notes.append(
                f"notice: only the newest {most} requests are read, of about {left + most}; --rows: more"
            )
    finally:
        store.close()
    records = []
    for row in rows:
        summary.rows += 1
        if (record := record_of(row)) is None:
            looped = "repetition" in (row["finish"], row["finish_detail"])
            summary.problems["looped" if looped else "nothing generated"] += 1
            continue
        summary.counted += 1
        summary.cut += record["finish"] == "length"
        records.append(record)
    return records


def _cut(row: Mapping[str, Any]) -> bool | None:
    """Whether the answer was ended before its own end; None where the row says nothing about lengths."""
    looped = "repetition" in (row["finish"], row["finish_detail"])
    cut = row["finish"] != "stop"
    return None if looped or row["answer_tokens"] < 1 else cut

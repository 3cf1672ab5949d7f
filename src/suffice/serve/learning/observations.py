"""What a finished request teaches the length model: in this replica, in others, and in later runs.

An answer that a cap, a departed client or a failure ended would have been longer. The length of a loop only says when
the detector stopped it, and a refusal has no length: neither is learned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from suffice.budget.length_key import LengthKey
from suffice.immutable import immutable

if TYPE_CHECKING:
    from suffice.data import AnswerSummary
    from suffice.serve.request.state import RequestState

__all__ = ["Observation", "observations_of", "read_log", "records_of"]


@immutable
class Observation:
    """The length of one answer, and under which key the model learns it; without any text."""

    key: LengthKey
    tokens: int
    cut: bool
    """Something ended it, so that its own length is at least this."""

    def to_json(self) -> dict[str, Any]:
        return {"asked": self.key.to_json(), "tokens": self.tokens, "cut": self.cut}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Observation:
        """Raises `DataError`, `KeyError` or `TypeError` for what another release wrote."""
        return cls(key=LengthKey.from_json(said["asked"]), tokens=said["tokens"], cut=said["cut"])


def observations_of(state: RequestState) -> tuple[Observation, ...]:
    """What each answer of this replica's own request teaches; nothing where there is no length model."""
    found: list[Observation] = []
    answers = state.choices.answers if state.choices is not None else ()
    for answer in answers:
        key, cut = answer.budget.length_key, _cut(*answer.end, answer.tokens)
        if key is not None and cut is not None:
            found.append(Observation(key=key, tokens=answer.tokens, cut=cut))
    return tuple(found)


def records_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row of the store as records for `LengthModel`, one for each answer: who asked, and how long it was.

    Raises:
        KeyError, TypeError: a later release wrote the row.
    """
    who = {"model": row["model"], "route": row["route"], "client": row["key_id"]}
    if row["lessons"] is not None:
        found = [(each["tokens"], each["cut"]) for each in row["lessons"]]
    else:
        cut = _cut(row["finish"], row["finish_detail"], row["answer_tokens"])
        found = [] if cut is None else [(row["answer_tokens"], cut)]
    return [{**who, "output_tokens": tokens, "finish": "length" if cut else "stop"} for tokens, cut in found]


def read_log(url: str, most: int, summary: AnswerSummary) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The newest answers of a server's own log as records for `LengthModel`, in order of time.

    Args:
        url: of the database, as `suffice serve --database` takes it; it must be there.
        most: requests that are read.
        summary: counts what was found, and what was left out and why.

    Returns:
        The records, and what a card says of them as `traffic`: a server that starts with the model continues there.

    Raises:
        UsageError: there is no such database, or it cannot be opened.
    """
    from suffice.serve.request_log.store import Store

    store = Store(url, must_exist=True)
    try:
        rows = store.newest_rows(most)
        learned: dict[str, Any] = {"database": store.identity(), "row": rows[-1]["row"] if rows else 0, "missing": []}
        if (left := store.last_row() - most) > 0:
            said = f"notice: only the newest {most} requests are read, of about {left + most}; --rows: more"
            summary.notes.append(said)
    finally:
        store.close()
    records = []
    for row in rows:
        summary.rows += 1
        try:
            found = records_of(row)
        except (KeyError, TypeError):
            summary.problems["written by a later release"] += 1
            continue
        if not found:
            looped = "repetition" in (row["finish"], row["finish_detail"])
            summary.problems["looped" if looped else "nothing generated"] += 1
        summary.counted += len(found)
        summary.cut += sum(record["finish"] == "length" for record in found)
        records += found
    return records, learned


def _cut(finish: str, detail: str, tokens: int) -> bool | None:
    """Whether the answer was ended before its own end; None where it says nothing about lengths."""
    if "repetition" in (finish, detail) or tokens < 1:
        return None
    return finish != "stop" or detail == "stop_word"

"""Reads answers with their lengths from datasets, result files and logs: what a length model learns from.

Knows nothing about tokenizers: the caller says how the tokens of a text without a token count are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from suffice.data.dataset import read_raw
from suffice.data.rows import read_row
from suffice.data.token_columns import RowLengths
from suffice.data.types import RowProblem

__all__ = ["AnswerSummary", "read_answers"]

_MODELS = ("model", "model_name")
_WHO: Mapping[str, tuple[str, ...]] = {
    "client": ("client", "client_id", "user", "key"),
    "route": ("route", "path", "tier"),
}
_KEPT = ("tools", "response_format", "sampling", "prompt_tokens")


@dataclass(slots=True)
class AnswerSummary:
    rows: int = 0
    counted: int = 0
    """Answers whose tokens the file gives."""
    estimated: int = 0
    """Answers whose tokens were estimated from their text."""
    cut: int = 0
    """Answers that a limit ended."""
    problems: Counter[str] = field(default_factory=Counter)
    """Rows that cannot be used, by why."""
    notes: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """One line, such as "500 rows: 480 with token counts, 20 without an answer"."""
        parts = [f"{self.counted} with token counts"] if self.counted else []
        parts += [f"{self.estimated} counted from their text"] if self.estimated else []
        parts += [f"{self.cut} of them cut by a limit"] if self.cut else []
        parts += [f"{count} left out ({why})" for why, count in self.problems.most_common()]
        return f"{self.rows} rows: {', '.join(parts)}" if parts else "no rows"


def read_answers(
    spec: str, count_tokens: Callable[[str], int], summary: AnswerSummary, *, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """The rows of a dataset that carry an answer, or the number of its tokens, as records for a length model.

    A row may count tokens for several models ({"output_tokens": {"gpt-4": 120, ...}}): each is a record.

    Args:
        spec: a dataset as `read_dataset` takes it, `path` or `path#N`.
        count_tokens: for answers without a token count.
        summary: counts what was found, and what was left out and why.
        seed: of a sample.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    for row in read_raw(spec, summary.notes, seed=seed):
        summary.rows += 1
        if isinstance(row, RowProblem):
            summary.problems[str(row).partition(":")[0]] += 1
        elif row.get("error"):
            summary.problems["failed"] += 1
        else:
            yield from _records(row, count_tokens, summary)


def _records(
    row: Mapping[str, Any], count_tokens: Callable[[str], int], summary: AnswerSummary
) -> Iterator[dict[str, Any]]:
    record: dict[str, Any] = {name: row[name] for name in _KEPT if row.get(name) is not None}
    record |= {ours: value for ours, names in _WHO.items() if (value := _first(row, names)) is not None}
    reference = None
    try:
        parsed = read_row(row)
        record["messages"], reference = list(parsed.messages), parsed.reference
    except RowProblem:  # a result line has the answer's length and not the prompt: history can use it
        pass
    lengths = RowLengths.of(row)
    counts, exact = lengths.answers, bool(lengths.answers)
    if not counts and reference:
        counts = {None: count_tokens(reference)}
    if not counts:
        summary.problems["no answer and no token count"] += 1
    for model, tokens in counts.items():
        finish = lengths.finish(model)
        if finish == "repetition":  # its length only says when the loop was noticed
            summary.problems["looped"] += 1
            continue
        summary.counted += exact
        summary.estimated += not exact
        summary.cut += finish == "length"
        yield {**record, "model": model or _first(row, _MODELS), "finish": finish, "output_tokens": tokens}


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)

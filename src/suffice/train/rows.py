"""The rows to learn from: reads them, fills in names, checks them, and accounts for every row that is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from suffice.data import Conversation, Turn, UnusableRow, dataset_fingerprint, read_dataset
from suffice.data.rows import parse_columns
from suffice.errors import DataError, UsageError
from suffice.train.placeholders import Names, language_of
from suffice.train.recipe import Recipe

__all__ = ["Dropped", "RowSet", "TrainingRow", "fingerprints", "places", "read_rows"]

_BUNDLED = ("self_cognition", "self-cognition")
_SHOWN_LINES = 8


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prompt with the answer to learn."""

    messages: tuple[Turn, ...]
    """The prompt: system, history, last user (or tool) turn."""
    answer: Turn
    """The answer, with its tool calls and its reasoning where it has some."""
    source: str
    """The dataset, as it was named."""
    line: int
    """1-based line (or row) in its file."""

    @property
    def turns(self) -> tuple[Turn, ...]:
        return *self.messages, self.answer

    @property
    def prompt(self) -> str:
        """The last user (or tool) turn."""
        return self.messages[-1]["content"]

    @property
    def place(self) -> str:
        return f"{self.source} line {self.line}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is not learned from."""

    source: str
    line: int
    reason: str
    """A class of reasons, such as "no answer"."""
    detail: str = ""


@dataclass(slots=True)
class RowSet:
    rows: list[TrainingRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    """Rows read per dataset."""
    filled: int = 0
    """Rows in which a placeholder was filled."""
    notes: list[str] = field(default_factory=list)

    def duplicates(self) -> list[TrainingRow]:
        """Rows that repeat an earlier one, word for word."""
        first: dict[str, TrainingRow] = {}
        return [row for row in self.rows if first.setdefault(repr(row.turns), row) is not row]


def read_rows(recipe: Recipe) -> RowSet:
    """
    Raises:
        DataError: a file is missing or broken, or no row is left.
        UsageError: a placeholder has no value.
    """
    found, names, columns = RowSet(), Names(recipe.model_name, recipe.model_author), parse_columns(recipe.columns)
    for spec in recipe.dataset:
        rows = read_dataset(_located(spec), seed=recipe.seed, columns=columns)
        for row in rows:
            found.read[spec] += 1
            _add(found, row, spec, recipe.system, names)
        found.notes += rows.summary.notes
    if not recipe.keep_placeholders:
        _refuse_placeholders(found.rows)
    if not found.rows:
        reasons, first = Counter(each.reason for each in found.dropped), found.dropped[0]
        shown = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        raise DataError(f"no row can be learned from ({shown}); {first.source} line {first.line}: {first.detail}")
    return found


def _add(found: RowSet, row: Conversation | UnusableRow, spec: str, system: str | None, names: Names) -> None:
    if isinstance(row, UnusableRow):
        found.dropped.append(Dropped(spec, row.line, "cannot be read", row.reason))
        return
    if row.answer is None or not (row.answer["content"].strip() or row.answer.get("tool_calls")):
        found.dropped.append(Dropped(spec, row.line, "no answer", "there is a prompt, and no answer to learn"))
        return
    turns = [*row.messages, row.answer]
    if system and turns[0]["role"] != "system":
        turns.insert(0, Turn(role="system", content=system))
    filled = names.fill(turns, language_of(row.row, "\n".join(turn["content"] for turn in turns)))
    found.filled += filled != turns
    *messages, answer = filled
    found.rows.append(TrainingRow(tuple(messages), answer, spec, row.line))


def places(rows: Sequence[Dropped] | Sequence[TrainingRow]) -> str:
    """Where rows are: `a.jsonl lines 3, 7 and 2 more; b.jsonl line 1`."""
    by_file: dict[str, list[int]] = {}
    for row in rows:
        by_file.setdefault(row.source, []).append(row.line)
    parts = []
    for source, numbers in by_file.items():
        more = f" and {len(numbers) - _SHOWN_LINES} more" if len(numbers) > _SHOWN_LINES else ""
        shown = ", ".join(map(str, numbers[:_SHOWN_LINES]))
        parts.append(f"{source} line{'s' if len(numbers) > 1 else ''} {shown}{more}")
    return "; ".join(parts)


def fingerprints(recipe: Recipe) -> list[dict[str, object]]:
    """What tells these datasets from changed ones."""
    columns = parse_columns(recipe.columns)
    return [dataset_fingerprint(_located(spec), seed=recipe.seed, columns=columns) for spec in recipe.dataset]


def _located(spec: str) -> str:
    """The bundled dataset by its name, unless there is a file that is called so."""
    name, mark, count = spec.partition("#")
    if name in _BUNDLED and not Path(name).exists():
        return str(files("suffice.train") / "self_cognition.jsonl") + mark + count
    return spec


def _refuse_placeholders(rows: list[TrainingRow]) -> None:
    unfilled = [(row, left) for row in rows if (left := Names.left(row.turns))]
    if not unfilled:
        return
    shown = "; ".join(f"{row.place} has {placeholder}" for row, placeholder in unfilled[:3])
    more = f" (and {len(unfilled) - 3} more rows)" if len(unfilled) > 3 else ""
    raise UsageError(
        f"a model would learn to say a placeholder: {shown}{more}. Give --model_name and --model_author (in Chinese, "
        "in English), or --keep_placeholders if the data means them literally"
    )

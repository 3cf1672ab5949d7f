"""The rows to learn from: read, names filled in, checked, and every row that is left out accounted for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import cast

from suffice.data import Conversation, Turn, UnusableRow, dataset_fingerprint, read_dataset
from suffice.errors import DataError, UsageError
from suffice.train.placeholders import Names, language_of
from suffice.train.recipe import Recipe

__all__ = ["Dropped", "RowSet", "TrainingRow", "fingerprints", "read_rows"]

_BUNDLED = ("self_cognition", "self-cognition")


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One conversation that ends with the answer to learn."""

    messages: tuple[Turn, ...]
    source: str
    """The dataset, as it was named."""
    line: int
    """1-based line (or row) in its file."""

    @property
    def prompt(self) -> str:
        """The last user (or tool) turn."""
        return str(self.messages[-2]["content"])

    @property
    def place(self) -> str:
        """Where the row is, for a person."""
        return f"{self.source} line {self.line}"


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is not learnt from."""

    source: str
    line: int
    reason: str
    """A class of reasons, such as "no answer"."""
    detail: str = ""


@dataclass(slots=True)
class RowSet:
    """What the datasets hold."""

    rows: list[TrainingRow] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    read: Counter[str] = field(default_factory=Counter)
    """Rows read per dataset."""
    filled: int = 0
    """Rows in which a placeholder was filled."""
    notes: list[str] = field(default_factory=list)

    def duplicates(self) -> list[TrainingRow]:
        """Rows that are there before, word for word."""
        seen: set[str] = set()
        again = []
        for row in self.rows:
            key = repr(row.messages)
            if key in seen:
                again.append(row)
            seen.add(key)
        return again


def read_rows(recipe: Recipe) -> RowSet:
    """Read every dataset of a recipe.

    Raises:
        DataError: a file is missing or broken, or no row is left.
        UsageError: a placeholder has no value.
    """
    found, names = RowSet(), Names(recipe.model_name, recipe.model_author)
    columns = _columns(recipe.columns)
    unfilled: list[tuple[TrainingRow, str]] = []
    for spec in recipe.dataset:
        rows = read_dataset(_located(spec), seed=recipe.seed, columns=columns)
        for row in rows:
            found.read[spec] += 1
            made = _training_row(row, spec, recipe.system)
            if isinstance(made, Dropped):
                found.dropped.append(made)
                continue
            assert isinstance(row, Conversation)
            done = _filled(made, names, language_of(row.row, _text(made)))
            found.filled += done is not made
            found.rows.append(done)
            if not recipe.keep_placeholders and (left := Names.left(_text(done))):
                unfilled.append((done, left))
        found.notes += rows.summary.notes
    if unfilled:
        raise UsageError(_unfilled(unfilled))
    if not found.rows:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(d.reason for d in found.dropped).items())
        first = found.dropped[0]
        raise DataError(f"no row can be learnt from ({reasons}); {first.source} line {first.line}: {first.detail}")
    return found


def fingerprints(recipe: Recipe) -> list[dict[str, object]]:
    """What tells these datasets from changed ones."""
    columns = _columns(recipe.columns)
    return [dataset_fingerprint(_located(spec), seed=recipe.seed, columns=columns) for spec in recipe.dataset]


def _located(spec: str) -> str:
    """The bundled dataset by its name, unless there is a file that is called so."""
    name, mark, count = spec.partition("#")
    if name in _BUNDLED and not Path(name).exists():
        return str(files("suffice.train") / "self_cognition.jsonl") + mark + count
    return spec


def _columns(pairs: tuple[str, ...]) -> dict[str, str]:
    split = [pair.partition("=") for pair in pairs]
    for (name, equals, ours), pair in zip(split, pairs, strict=True):
        if not (name and equals and ours):
            raise UsageError(f"--columns takes NAME=OURS, for example ask=query, and not {pair!r}")
    return {name: ours for name, _, ours in split}


def _training_row(row: Conversation | UnusableRow, spec: str, system: str | None) -> TrainingRow | Dropped:
    if isinstance(row, UnusableRow):
        return Dropped(spec, row.line, "cannot be read", row.reason)
    if row.reference is None or not row.reference.strip():
        return Dropped(spec, row.line, "no answer", "there is a prompt, and no answer to learn")
    messages = (*row.messages, Turn(role="assistant", content=row.reference))
    if system and messages[0]["role"] != "system":
        messages = (Turn(role="system", content=system), *messages)
    return TrainingRow(messages, spec, row.line)


def _filled(row: TrainingRow, names: Names, language: str) -> TrainingRow:
    """The row with its names; the same object where there is nothing to fill."""
    contents = [names.fill(turn["content"], language) for turn in row.messages]
    if all(new == turn["content"] for new, turn in zip(contents, row.messages, strict=True)):
        return row
    turns = [cast(Turn, {**turn, "content": new}) for new, turn in zip(contents, row.messages, strict=True)]
    return replace(row, messages=tuple(turns))


def _text(row: TrainingRow) -> str:
    return "\n".join(str(turn["content"]) for turn in row.messages)


def _unfilled(rows: list[tuple[TrainingRow, str]]) -> str:
    shown = "; ".join(f"{row.place} has {placeholder}" for row, placeholder in rows[:3])
    more = f" (and {len(rows) - 3} more rows)" if len(rows) > 3 else ""
    return (
        f"a model would learn to say a placeholder: {shown}{more}. Give --model_name and --model_author (in Chinese, "
        "in English), or --keep_placeholders if the data means them literally"
    )

"""What reading a dataset yields: conversations, rows that cannot be used, and a summary of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NotRequired, TypedDict

__all__ = [
    "BATCH_FORMAT",
    "Conversation",
    "DatasetSummary",
    "ParsedRow",
    "RowFormat",
    "RowProblem",
    "Turn",
    "Unit",
    "UnusableRow",
]

RowFormat = Literal["messages", "sharegpt", "alpaca", "query/response", "text", "openai batch"]
BATCH_FORMAT: Final = "openai batch"
"""The format of OpenAI's batch files: a request of its API on each line."""
Unit = Literal["line", "row"]


class Turn(TypedDict):
    """One turn of a conversation, in OpenAI's shape."""

    role: str
    content: str
    name: NotRequired[str]
    tool_calls: NotRequired[list[Any]]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRow:
    """What a row says once its format is understood."""

    messages: tuple[Turn, ...]
    """The prompt: system, history, last user (or tool) turn."""
    answer: Turn | None = None
    """The answer that the data gives, whole: its text, its tool calls, its reasoning. None where there is none."""
    format: RowFormat

    @property
    def reference(self) -> str | None:
        """The text of the answer; None where it has none, as an answer that only calls tools."""
        return self.answer["content"] or None if self.answer else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation(ParsedRow):
    """One row of a dataset that can be sent to a model."""

    index: int
    """0-based position in the dataset as it is read (after sampling); rows with errors have one too."""
    line: int
    """1-based line (or row) number in the file, for messages to people."""
    row: Mapping[str, Any]
    """The row as the file has it, so that extra columns can be passed through."""
    source: str
    """The file the row is from."""
    unit: Unit = "line"
    """What `line` counts: lines of a text file, or rows of a JSON array or a parquet file."""


@dataclass(frozen=True, slots=True)
class UnusableRow:
    """A row that cannot be used, in the place where its conversation would have been."""

    index: int
    line: int
    reason: str
    """One line: what is wrong, with what value, and what is expected."""
    source: str = ""
    unit: Unit = "line"
    """As in `Conversation`."""
    row: Mapping[str, Any] | None = None
    """The row as the file has it, where it could be parsed."""

    def __str__(self) -> str:
        where = f"{self.unit} {self.line}"
        return f"{self.source}, {where}: {self.reason}" if self.source else f"{where}: {self.reason}"


class RowProblem(ValueError):  # noqa: N818 - a reason on its way to an UnusableRow, not an error that a user sees
    """Why a row cannot be used. Raised by the readers, and always caught."""


@dataclass(slots=True)
class DatasetSummary:
    """Counts what was read so far; complete when the rows are exhausted."""

    formats: Counter[RowFormat] = field(default_factory=Counter)
    """Usable rows per format."""
    errors: int = 0
    notes: list[str] = field(default_factory=list)
    """Notices for the user, one line each (a sample larger than the file, a column that no row has)."""

    @property
    def rows(self) -> int:
        """Rows read, those with errors included."""
        return self.formats.total() + self.errors

    def add(self, row: Conversation | UnusableRow) -> None:
        if isinstance(row, UnusableRow):
            self.errors += 1
        else:
            self.formats[row.format] += 1

    def describe(self) -> str:
        """One line, such as "13 rows: alpaca 10, messages 2, errors 1"."""
        parts = [f"{name} {count}" for name, count in self.formats.most_common()]
        if self.errors:
            parts.append(f"errors {self.errors}")
        noun = "row" if self.rows == 1 else "rows"
        return f"{self.rows} {noun}: {', '.join(parts)}" if parts else "no rows"

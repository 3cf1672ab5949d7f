"""One small record for each answer: what every source of lengths gives, and all that is measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["LengthRecord", "SourceSummary"]


class LengthRecord(NamedTuple):
    """One answer (or a prompt by itself), wherever it was found."""

    prompt_tokens: int | None
    answer_tokens: int | None
    finish: str | None = None
    """One of `FINISH_REASONS`, or the source's own word; None where it is not known."""
    groups: tuple[str | None, ...] = ()
    """The record's values in the columns that the measurement is split by."""
    prompt: str = ""
    """The last user turn, for its words and its language; '' where there is none."""


@dataclass(slots=True)
class SourceSummary:
    """What reading found, complete when the records are exhausted."""

    rows: int = 0
    """Rows read, unusable ones included."""
    errors: Counter[str] = field(default_factory=Counter)
    """Rows that could not be used, by file."""
    examples: list[str] = field(default_factory=list)
    """The first few of them, each with its place and the reason."""
    given: int = 0
    """Lengths that the rows give."""
    counted: int = 0
    """Lengths counted with a tokenizer."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, one line each."""

    def error(self, source: str, reason: str, most: int = 5) -> None:
        self.errors[source] += 1
        if len(self.examples) < most:
            self.examples.append(reason)

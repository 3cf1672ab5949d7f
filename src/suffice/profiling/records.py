"""The seam between where lengths come from and what is made of them: one small record for each answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["FINISHES", "LengthRecord", "SourceSummary", "finish_of"]

FINISHES = ("stop", "length", "repetition", "cancelled", "error")
"""Why answers end: by themselves, by a limit, in a loop, because the caller left, because generation failed."""

_FINISHES = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos", "eos_token", "end_token", "stop_word"), "stop"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call", "completed", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_new_tokens", "max_length", "max_output_tokens"), "length"),
    **dict.fromkeys(("model_length", "model_context_window_exceeded", "truncated", "incomplete"), "length"),
    **dict.fromkeys(("repetition", "runaway", "loop"), "repetition"),
    **dict.fromkeys(("cancelled", "canceled", "abort", "aborted"), "cancelled"),
    **dict.fromkeys(("error", "failed"), "error"),
}


class LengthRecord(NamedTuple):
    """One answer (or a prompt by itself), wherever it was found."""

    prompt_tokens: int | None
    answer_tokens: int | None
    finish: str | None = None
    """One of `FINISHES`, or the source's own word; None where it is not known."""
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
        """One row that cannot be used."""
        self.errors[source] += 1
        if len(self.examples) < most:
            self.examples.append(reason)


def finish_of(value: object) -> str | None:
    """A finish reason in our words; other reasons stay as they are, None and '' are not known."""
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    return _FINISHES.get(word, word) or None

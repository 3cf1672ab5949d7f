"""Which columns of a row hold its lengths, its finish reason, its prompt and the groups that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suffice.data.token_columns import ANSWER_TOKENS, FINISH_REASON, PROMPT_TOKENS, find_column

__all__ = ["TARGETS", "Layout"]

_PROMPT_TEXT = ("query", "prompt", "question", "instruction", "input", "problem")
_SAME_GROUP = {"lang": "language", "model_name": "model"}  # other names of a column
TARGETS = ("prompt_tokens", "answer_tokens", "finish_reason")
"""What a user's own column names can be mapped to, besides what datasets have."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Column names of one kind of row; None for what it does not have."""

    prompt: str | None
    answer: str | None
    finish: str | None
    prompt_text: str | None
    groups: tuple[str | None, ...]
    """For each column that is asked for, the row's name of it."""

    @classmethod
    def of(cls, names: Iterable[Any], groups: Sequence[str], columns: Mapping[str, str]) -> Layout:
        """The layout of rows with these column names.

        Args:
            groups: columns that the measurement is split by.
            columns: the user's column names mapped to `TARGETS`.
        """
        names = list(names)

        def group(name: str) -> str | None:
            others = (other for other, ours in _SAME_GROUP.items() if ours == name.lower())
            return find_column(names, (name.lower(), *others))

        def named(target: str, candidates: Iterable[str]) -> str | None:
            own = (theirs.lower() for theirs, ours in columns.items() if ours == target)
            return find_column(names, (*own, *candidates))

        prompt, answer, finish = map(named, TARGETS, (PROMPT_TOKENS, ANSWER_TOKENS, FINISH_REASON))
        return cls(prompt, answer, finish, find_column(names, _PROMPT_TEXT), tuple(map(group, groups)))

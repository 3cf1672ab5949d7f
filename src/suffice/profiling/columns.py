"""Where a row keeps its lengths: which of its columns are token counts, finish reasons and groups.

Worked out once for each set of column names, so that millions of rows cost a look-up each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suffice.data.types import RowProblem

__all__ = ["TARGETS", "Layout", "at_path", "flattened", "token_count"]

_PROMPT = (
    "prompt_tokens",
    "input_tokens",
    "input_length",
    "prompt_length",
    "contexttokens",
    "request tokens",
    "num_prefill_tokens",
)
_ANSWER = (
    "answer_tokens",
    "output_tokens",
    "completion_tokens",
    "response_tokens",
    "generated_tokens",
    "output_length",
    "generatedtokens",
    "response tokens",
    "num_decode_tokens",
)
"""Names of token counts: result files and OpenAI's and Anthropic's `usage` first, then public traces (Azure, Mooncake,
BurstGPT, Vidur). Case makes no difference."""
_FINISH = ("finish_reason", "finish", "stop_reason", "finish_detail")
_PROMPT_TEXT = ("query", "prompt", "question", "instruction", "input", "problem")
_SAME_GROUP = {"lang": "language", "model_name": "model"}
"""Other names of a column."""
_BESIDE = ("row", "response.body", "response", "request.body", "request", "body")
"""Objects inside a row that hold more of it: the dataset's own row in a result file, and what API logs nest."""
_NESTING = frozenset(("row", "response", "request", "body", "usage", "choices"))
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
        """The layout of rows with these columns.

        Args:
            names: of the row's columns.
            groups: columns that the measurement is split by.
            columns: the user's column names mapped to `TARGETS`.
        """
        by_lower = {str(name).strip().lower(): str(name) for name in reversed(list(names))}

        def first(candidates: Iterable[str]) -> str | None:
            return next((by_lower[name] for name in candidates if name in by_lower), None)

        def group(name: str) -> str | None:
            others = (other for other, ours in _SAME_GROUP.items() if ours == name.lower())
            return first((name.lower(), *others))

        def named(target: str, candidates: Iterable[str]) -> str | None:
            return first((*(theirs.lower() for theirs, ours in columns.items() if ours == target), *candidates))

        prompt, answer, finish = map(named, TARGETS, (_PROMPT, _ANSWER, _FINISH))
        return cls(prompt, answer, finish, first(_PROMPT_TEXT), tuple(map(group, groups)))


def flattened(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with what API logs and result files nest brought to the top; what is on top already stays.

    `usage` gives token counts, the first of `choices` its finish reason and its answer.
    """
    if _NESTING.isdisjoint(row):
        return row
    nested = [part for path in _BESIDE if isinstance(part := at_path(row, path), Mapping)]
    flat: dict[str, Any] = dict(row)
    for part in [row, *nested]:
        for name, value in part.items():
            flat.setdefault(name, value)
        usage, choices = part.get("usage"), part.get("choices")
        if isinstance(usage, Mapping):
            flat.update({name: value for name, value in usage.items() if isinstance(value, int)})
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
            _add_choice(flat, choices[0])
    return flat


def _add_choice(flat: dict[str, Any], choice: Mapping[str, Any]) -> None:
    flat.setdefault("finish_reason", choice.get("finish_reason"))
    message = choice.get("message")
    text = message.get("content") if isinstance(message, Mapping) else choice.get("text")
    if isinstance(text, str):
        flat["response"] = text  # in place of the object that it was in


def at_path(row: Mapping[str, Any], path: str) -> object:
    """The value at a dotted path such as `budget.limited_by`; None where there is none."""
    value: object = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def token_count(value: object, name: str) -> int | None:
    """A number of tokens from a cell; None for an empty one.

    Raises:
        RowProblem: it is neither.
    """
    if type(value) is int:
        number = value
    elif value is None or value == "":
        return None
    else:
        try:
            number = int(str(value)) if isinstance(value, str) else -1 if isinstance(value, bool) else _whole(value)
        except ValueError:
            raise RowProblem(f'column "{name}" is {value!r:.40}, expected a number of tokens') from None
    if number < 0:
        raise RowProblem(f'column "{name}" is {value!r:.40}, expected a number of tokens from 0')
    return number


def _whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError

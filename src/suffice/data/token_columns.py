"""Where a row keeps its lengths: the columns with token counts and finish reasons, in every spelling that is read.

`suffice fit`, `suffice profile` and `suffice plan --lengths` read rows through this table, so they accept the same
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from suffice.data.dataset import read_raw
from suffice.data.finish_words import finish_reason_of
from suffice.data.types import RowProblem

__all__ = [
    "ANSWER_TOKENS",
    "FINISH_REASON",
    "PROMPT_TOKENS",
    "RowLengths",
    "at_path",
    "find_column",
    "flattened",
    "read_token_counts",
    "token_count",
]

PROMPT_TOKENS = (
    *("prompt_tokens", "input_tokens", "input_length", "prompt_length"),
    *("contexttokens", "request tokens", "num_prefill_tokens"),
)
ANSWER_TOKENS = (
    *("answer_tokens", "output_tokens", "completion_tokens", "response_tokens", "generated_tokens", "output_length"),
    *("generatedtokens", "response tokens", "num_decode_tokens"),
)
"""Names of token counts: result files and OpenAI's and Anthropic's `usage` first, then public traces (Azure, Mooncake,
BurstGPT, Vidur). The first that a row has counts; case makes no difference."""
FINISH_REASON = ("finish_reason", "finish", "stop_reason", "finish_detail")

_BESIDE = ("row", "response.body", "response", "request.body", "request", "body")
"""Objects inside a row that hold more of it: the dataset's own row in a result file, and what API logs nest."""
_NESTING = frozenset(("row", "response", "request", "body", "usage", "choices"))


@dataclass(frozen=True, slots=True)
class RowLengths:
    """What one row says about lengths."""

    prompt: int | None
    answers: Mapping[str | None, int]
    """Tokens of the answer by model; None is the model of the row itself. Empty where the row does not say."""
    finishes: Mapping[str | None, str | None]
    """Why each of these answers ended, None where that is not known; a reason of the whole row is under None."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> RowLengths:
        """Read a row; a cell that is not a number of tokens counts as empty."""
        flat = flattened(row)
        prompt, answer, finish = (flat[name] if name else None for name in _length_columns(tuple(flat)))
        answers = answer if isinstance(answer, Mapping) else {None: answer}
        finishes = finish if isinstance(finish, Mapping) else {None: finish}
        if is_runaway(flat):
            finishes = {None: "repetition"}
        return cls(
            _count_or_none(prompt),
            {model: tokens for model, value in answers.items() if (tokens := _count_or_none(value)) is not None},
            {model: finish_reason_of(value) for model, value in finishes.items()},
        )

    def finish(self, model: str | None) -> str | None:
        return self.finishes.get(model, self.finishes.get(None))


def read_token_counts(spec: str, notes: list[str], *, seed: int = 0) -> Iterator[RowLengths]:
    """The lengths that each row of a dataset, log or trace gives; those of a row that cannot be parsed are unknown.

    Raises DataError as `read_dataset` does.
    """
    for row in read_raw(spec, notes, seed=seed):
        yield RowLengths.of({} if isinstance(row, RowProblem) else row)


def is_runaway(row: Mapping[str, Any]) -> bool:
    """Whether a flat row says that an answer was a loop, whose `finish_reason` has only OpenAI's words: in result files
    `finish_by`, in request logs `finish_detail`, in answers of a server `suffice.finish_detail`."""
    return (row.get("finish_by") or row.get("finish_detail") or at_path(row, "suffice.finish_detail")) == "repetition"


def find_column(names: Iterable[Any], candidates: Iterable[str]) -> str | None:
    """The first candidate (in lower case) among a row's column names, as the row spells it; None without one."""
    by_lower = {str(name).strip().lower(): name for name in reversed(list(names))}
    return next((by_lower[name] for name in candidates if name in by_lower), None)


@lru_cache(maxsize=1000)  # rows of one file have the same columns; where names are data, forget rather than grow
def _length_columns(names: tuple[str, ...]) -> tuple[str | None, str | None, str | None]:
    return (
        find_column(names, PROMPT_TOKENS),
        find_column(names, ANSWER_TOKENS),
        find_column(names, FINISH_REASON),
    )


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
    """A number of tokens from a cell, which may be text or a float without a fraction; None for an empty cell.

    Raises:
        RowProblem: it is neither.
    """
    if type(value) is int:
        number = value
    elif value is None or value == "":
        return None
    else:
        try:
            number = _whole(value)
        except ValueError:
            raise RowProblem(f'column "{name}" is {value!r:.40}, expected a number of tokens') from None
    if number < 0:
        raise RowProblem(f'column "{name}" is {value!r:.40}, expected a number of tokens from 0')
    return number


def _whole(value: object) -> int:
    if isinstance(value, bool):
        return -1
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():
        return int(number)
    raise ValueError


def _count_or_none(value: object) -> int | None:
    try:
        return token_count(value, "")
    except RowProblem:
        return None

"""Reads `--lengths`: real requests in a trace, a log or a result file, or what a length profile says of answers."""

from __future__ import annotations

import json
from pathlib import Path

from suffice.data.token_columns import read_token_counts
from suffice.errors import DataError
from suffice.memory.concurrency import TrafficLengths

__all__ = ["is_profile", "lengths_of", "profile_lengths", "read_lengths"]

_PROFILE_ROWS = 1000  # requests that stand for a profile


def lengths_of(path: Path, prompt_tokens: int) -> TrafficLengths:
    """The lengths of the requests in a file, or those that a length profile predicts for prompts of this length."""
    return profile_lengths(path, prompt_tokens) if is_profile(path) else read_lengths(path)


def is_profile(path: Path) -> bool:
    """Whether this is an adapter's folder or a length profile, rather than rows."""
    try:
        return path.is_dir() or (path.suffix == ".json" and "overall" in json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return path.suffix == ".json"


def read_lengths(path: Path) -> TrafficLengths:
    """Lengths from any file that `suffice fit` and `suffice profile` read: a trace, a result file of `infer`, a log.

    Raises:
        DataError: no such file, or no row has both lengths.
    """
    pairs: list[tuple[int, int]] = []
    skipped = 0
    for row in read_token_counts(str(path), []):
        answers = [] if row.prompt is None else [(row.prompt, tokens) for tokens in row.answers.values() if tokens]
        pairs += answers
        skipped += not answers
    if not pairs:
        raise DataError(
            f"{path}: no row with both lengths ({skipped} without); columns such as prompt_tokens and output_tokens "
            "are needed"
        )
    return TrafficLengths.of(pairs, skipped)


def profile_lengths(path: Path, prompt_tokens: int) -> TrafficLengths:
    """Lengths that follow a length profile (`length_profile.json` of an adapter, or the folder that it is in), with
    `prompt_tokens` for every prompt, since a profile says nothing of them.

    A profile has the answers' quantiles; between them, and from 1 token up to the median, lengths are spread evenly.

    Raises:
        DataError: no such file, or no profile in it.
    """
    path = path / "length_profile.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text("utf-8"))["overall"]
        marks = [(p / 100, float(found[f"p{p}"])) for p in (50, 90, 95, 99)] + [(1.0, float(found["longest"]))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"no length profile in {path}: {error}") from None
    answers, (low, start) = [], (0.0, 1.0)
    for high, end in marks:
        count = round((high - low) * _PROFILE_ROWS)
        answers += [round(start + (end - start) * (at + 0.5) / count) for at in range(count)]
        low, start = high, end
    return TrafficLengths.of((prompt_tokens, max(1, answer)) for answer in answers)

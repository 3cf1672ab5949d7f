"""Before the first weight is loaded: rows encoded, split and counted, so that a person sees what will be learned."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from suffice.budget.length_profile import LengthProfile
from suffice.errors import DataError
from suffice.train.base_model import Base
from suffice.train.encoding import EncodedRow, Encoder, TemplateProblem
from suffice.train.recipe import Recipe
from suffice.train.rows import Dropped, RowSet, TrainingRow

__all__ = ["Prepared", "prepare"]

_SHOWN_LINES = 8
_QUANTILES = (0.5, 0.9, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data that is ready to train on."""

    found: RowSet
    train: list[EncodedRow]
    validation: list[EncodedRow]
    questions: list[TrainingRow]
    """The validation rows as text, in the same order."""
    profile: LengthProfile
    """Answer lengths of the training rows."""
    kept: Counter[str]
    """Rows kept per dataset."""
    cut: int
    """Rows cut at `max_length`."""

    @property
    def longest(self) -> int:
        """Tokens of the longest training row."""
        return max(row.tokens for row in self.train)

    def lines(self, max_length: int) -> list[str]:
        """The table for a person."""
        return [*self._files(), *self._reasons(max_length), *self._lengths()]

    def _files(self) -> list[str]:
        width = max(7, *(len(spec) for spec in self.found.read))
        lines = [f"{'dataset':<{width}}  {'read':>7}  {'kept':>7}  {'dropped':>7}"]
        lines += [
            f"{spec:<{width}}  {read:>7}  {self.kept[spec]:>7}  {read - self.kept[spec]:>7}"
            for spec, read in self.found.read.items()
        ]
        return lines

    def _reasons(self, max_length: int) -> list[str]:
        lines = []
        for reason in dict.fromkeys(each.reason for each in self.found.dropped):
            rows = [each for each in self.found.dropped if each.reason == reason]
            lines.append(f"dropped, {reason}: {len(rows)} ({_places(rows)})")
            if rows[0].detail:
                lines.append(f"  {rows[0].source} line {rows[0].line}: {rows[0].detail}")
        if self.cut:
            lines.append(f"cut at max_length {max_length}: {self.cut} rows, whose answers do not end any more")
        if again := self.found.duplicates():
            lines.append(f"duplicates, kept: {len(again)} ({_places(again)})")
        if self.found.filled:
            lines.append(f"names filled in: {self.found.filled} rows")
        return [*lines, *self.found.notes, f"{len(self.train)} rows to train on, {len(self.validation)} to validate"]

    def _lengths(self) -> list[str]:
        lines = [f"{'tokens':<8}" + "".join(f"{name:>7}" for name in ("p50", "p90", "p99", "max"))]
        for name, values in (
            ("prompt", sorted(row.prompt_tokens for row in self.train)),
            ("answer", sorted(row.answer_tokens for row in self.train)),
        ):
            chosen = (values[round(q * (len(values) - 1))] for q in _QUANTILES)
            lines.append(f"{name:<8}" + "".join(f"{value:>7}" for value in chosen))
        return lines


def prepare(recipe: Recipe, base: Base, found: RowSet) -> Prepared:
    """Encode the rows, deal with those over `max_length`, and split.

    Raises:
        DataError: a row is over `max_length` and that is to be an error, or no row is left.
    """
    encoder = Encoder(base.tokenizer, base.end_ids)
    pairs: list[tuple[TrainingRow, EncodedRow]] = []
    for row in found.rows:
        encoded = _encoded(row, encoder, recipe)
        if isinstance(encoded, Dropped):
            found.dropped.append(encoded)
        else:
            pairs.append((row, encoded))
    if not pairs:
        raise DataError(
            f"no row is left to learn from: {_places(found.dropped)} were dropped ({found.dropped[-1].reason}); "
            "raise --max_length, or see --truncation_strategy"
        )
    chosen = _validation(pairs, found, recipe)
    learned = [pair for place, pair in enumerate(pairs) if place not in chosen]
    return Prepared(
        found,
        train=[encoded.cut(recipe.max_length) for _, encoded in learned],
        validation=[pairs[place][1].cut(recipe.max_length) for place in sorted(chosen)],
        questions=[pairs[place][0] for place in sorted(chosen)],
        profile=LengthProfile.measure((row.prompt, encoded.answer_tokens) for row, encoded in learned),
        kept=Counter(row.source for row, _ in pairs),
        cut=sum(encoded.tokens > recipe.max_length for _, encoded in pairs),
    )


def _encoded(row: TrainingRow, encoder: Encoder, recipe: Recipe) -> EncodedRow | Dropped:
    try:
        encoded = encoder.encode(row.turns)
    except TemplateProblem as problem:
        return Dropped(row.source, row.line, "does not fit the chat template", str(problem))
    if encoded.tokens <= recipe.max_length:
        return encoded
    too_long = f"{encoded.tokens} tokens"
    if recipe.truncation_strategy == "error":
        raise DataError(
            f"{row.place} has {too_long} and --max_length is {recipe.max_length}: raise it, shorten the row, or take "
            "--truncation_strategy drop (leave it out) or right (cut it)"
        )
    if recipe.truncation_strategy == "drop":
        return Dropped(row.source, row.line, f"over max_length {recipe.max_length}", too_long)
    if encoded.prompt_tokens >= recipe.max_length:
        return Dropped(row.source, row.line, f"prompt alone over max_length {recipe.max_length}", too_long)
    return encoded


def _validation(pairs: Sequence[tuple[TrainingRow, EncodedRow]], found: RowSet, recipe: Recipe) -> set[int]:
    """Places of the validation rows: no copy of one is trained on. None if there are too few rows to spare one."""
    wanted = round(len(pairs) * recipe.split_dataset_ratio)
    if recipe.split_dataset_ratio > 0 and len(pairs) > 1:
        wanted = max(1, wanted)
    twice = {repr(row.turns) for row in found.duplicates()}
    single = [place for place, (row, _) in enumerate(pairs) if repr(row.turns) not in twice]
    return set(random.Random(recipe.seed).sample(single, min(wanted, len(single), len(pairs) - 1)))


def _places(rows: Sequence[Dropped] | Sequence[TrainingRow]) -> str:
    """`a.jsonl lines 3, 7 and 2 more; b.jsonl line 1`."""
    by_file: dict[str, list[int]] = {}
    for row in rows:
        by_file.setdefault(row.source, []).append(row.line)
    parts = []
    for source, numbers in by_file.items():
        more = f" and {len(numbers) - _SHOWN_LINES} more" if len(numbers) > _SHOWN_LINES else ""
        shown = ", ".join(map(str, numbers[:_SHOWN_LINES]))
        parts.append(f"{source} line{'s' if len(numbers) > 1 else ''} {shown}{more}")
    return "; ".join(parts)

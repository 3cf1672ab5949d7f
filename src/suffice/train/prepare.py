"""Encodes, splits and counts the rows before any weight is loaded."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from suffice.budget.length_profile import LengthProfile
from suffice.errors import DataError
from suffice.train.base_model import BaseModel
from suffice.train.loss_mask import EncodedRow, Encoder, TemplateProblem
from suffice.train.recipe import Recipe
from suffice.train.rows import Dropped, RowSet, TrainingRow, places

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    found: RowSet
    train: list[EncodedRow]
    validation: list[EncodedRow]
    validation_rows: list[TrainingRow]
    """The validation rows before they were encoded, in the same order."""
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


def prepare(recipe: Recipe, base: BaseModel, found: RowSet) -> Prepared:
    """Encode the rows, deal with those over `max_length`, and split.

    Raises:
        DataError: a row is over `max_length` and that is to be an error, or no row is left.
    """
    encoder = Encoder(base.tokenizer, base.end_ids)
    every = [(row, _encoded(row, encoder, recipe)) for row in found.rows]
    found.dropped += [encoded for _, encoded in every if isinstance(encoded, Dropped)]
    pairs = [(row, encoded) for row, encoded in every if isinstance(encoded, EncodedRow)]
    if not pairs:
        raise DataError(
            f"no row is left to learn from: {places(found.dropped)} were dropped ({found.dropped[-1].reason}); "
            "raise --max_length, or see --truncation_strategy"
        )
    places_held_out = _held_out(pairs, found, recipe)
    learned = [pair for place, pair in enumerate(pairs) if place not in places_held_out]
    held_out = [pairs[place] for place in sorted(places_held_out)]
    return Prepared(
        found=found,
        train=[encoded.cut(recipe.max_length) for _, encoded in learned],
        validation=[encoded.cut(recipe.max_length) for _, encoded in held_out],
        validation_rows=[row for row, _ in held_out],
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


def _held_out(pairs: Sequence[tuple[TrainingRow, EncodedRow]], found: RowSet, recipe: Recipe) -> set[int]:
    """Places of the validation rows: no copy of one is trained on. None if there are too few rows to spare one."""
    wanted = round(len(pairs) * recipe.split_dataset_ratio)
    if recipe.split_dataset_ratio > 0 and len(pairs) > 1:
        wanted = max(1, wanted)
    twice = {repr(row.turns) for row in found.duplicates()}
    single = [place for place, (row, _) in enumerate(pairs) if repr(row.turns) not in twice]
    return set(random.Random(recipe.seed).sample(single, min(wanted, len(single), len(pairs) - 1)))

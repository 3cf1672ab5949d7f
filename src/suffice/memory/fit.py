"""Finds what to change when training does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from suffice.memory.architecture import Architecture
from suffice.memory.training import TrainingForecast, TrainingSetup, forecast_setup

__all__ = ["Suggestion", "what_would_fit"]

_SHORTEST = 128  # tokens; a shorter row is not worth suggesting

Change = Callable[[TrainingSetup], Iterator[TrainingSetup]]
"""A setting that can be changed, and the setups that it leads to, the mildest first."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    change: str
    """What to change, for a person."""
    setup: TrainingSetup
    forecast: TrainingForecast


def what_would_fit(config: Mapping[str, Any], setup: TrainingSetup, free: int) -> list[Suggestion]:
    """Changes to a setup that bring its forecast under `free`, the least painful first.

    A smaller batch comes first (with more accumulation the training is the same), then gradient checkpointing (about
    half as much time again with LoRA: one more forward pass beside a forward and an input-gradient pass), then 4-bit
    weights, and last a smaller `max_length`, which costs data. Where no single change is enough they are added up in
    this order.

    Returns:
        Suggestions that fit; empty when nothing does, or when `setup` fits as it is.

    Raises:
        UsageError: as `forecast_training`.
    """
    shape = Architecture.from_config(config)
    if forecast_setup(shape, setup).total <= free:
        return []
    singles = [found for change in _CHANGES if (found := _first_that_fits(shape, setup, free, (change,)))]
    together = None if singles else _first_that_fits(shape, setup, free, _CHANGES)
    return [together] if together else singles


def _first_that_fits(
    shape: Architecture, setup: TrainingSetup, free: int, changes: Sequence[Change]
) -> Suggestion | None:
    """Make the changes one after the other, each step by step as far as it goes, until the forecast fits."""
    changed = setup
    for steps_of in changes:
        for step in steps_of(changed):
            changed = step
            forecast = forecast_setup(shape, changed)
            if forecast.total <= free:
                return Suggestion(_describe(setup, changed), changed, forecast)
    return None


def _smaller_batches(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    return (replace(setup, batch_size=size) for size in _halves(setup.batch_size, 1))


def _checkpointing(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    if not setup.gradient_checkpointing:
        yield replace(setup, gradient_checkpointing=True)


def _fewer_bits(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    if setup.weight_bits != 4 and setup.lora_rank is not None and setup.device_type != "cpu":
        yield replace(setup, weight_bits=4)


def _shorter_rows(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    return (replace(setup, max_length=length) for length in _halves(setup.max_length, _SHORTEST))


def _halves(number: int, least: int) -> Iterator[int]:
    while (number := number // 2) >= least:
        yield number


_CHANGES: tuple[Change, ...] = (_smaller_batches, _checkpointing, _fewer_bits, _shorter_rows)


def _describe(before: TrainingSetup, after: TrainingSetup) -> str:
    changes = []
    if after.batch_size != before.batch_size:
        changes.append(f"batch size {before.batch_size} -> {after.batch_size}, accumulating as many steps more")
    if after.gradient_checkpointing != before.gradient_checkpointing:
        changes.append("gradient checkpointing on")
    if after.weight_bits != before.weight_bits:
        changes.append(f"{after.weight_bits}-bit weights (QLoRA)")
    if after.max_length != before.max_length:
        changes.append(f"max_length {before.max_length} -> {after.max_length}")
    return "; ".join(changes)

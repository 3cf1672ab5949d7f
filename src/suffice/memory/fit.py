"""Finds what to change when training does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from suffice.memory.architecture import Architecture
from suffice.memory.training import TrainingForecast, TrainingSetup, forecast_setup

__all__ = ["Suggestion", "what_would_fit"]

_SHORTEST = 128  # tokens; a shorter row is not worth suggesting


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change that makes training fit."""

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

    Args:
        config: the model's `config.json`.
        setup: what was asked for.
        free: bytes that the run may use.

    Returns:
        Suggestions that fit; empty when nothing does, or when `setup` fits as it is.

    Raises:
        UsageError: as `forecast_training`.
    """
    shape = Architecture.from_config(config)
    if forecast_setup(shape, setup).total <= free:
        return []
    suggestions = []
    for candidates in _KNOBS:
        for candidate in candidates(setup):
            forecast = forecast_setup(shape, candidate)
            if forecast.total <= free:
                suggestions.append(Suggestion(_describe(setup, candidate), candidate, forecast))
                break
    return suggestions or _together(shape, setup, free)


def _together(shape: Architecture, setup: TrainingSetup, free: int) -> list[Suggestion]:
    changed = setup
    for candidates in _KNOBS:
        for candidate in candidates(changed):
            changed = candidate
            forecast = forecast_setup(shape, changed)
            if forecast.total <= free:
                return [Suggestion(_describe(setup, changed), changed, forecast)]
    return []


def _smaller_batches(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    size = setup.batch_size // 2
    while size >= 1:
        yield replace(setup, batch_size=size)
        size //= 2


def _checkpointing(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    if not setup.gradient_checkpointing:
        yield replace(setup, gradient_checkpointing=True)


def _fewer_bits(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    if setup.weight_bits != 4 and setup.lora_rank is not None and setup.device_type != "cpu":
        yield replace(setup, weight_bits=4)


def _shorter_rows(setup: TrainingSetup) -> Iterator[TrainingSetup]:
    length = setup.max_length // 2
    while length >= _SHORTEST:
        yield replace(setup, max_length=length)
        length //= 2


_KNOBS = (_smaller_batches, _checkpointing, _fewer_bits, _shorter_rows)


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

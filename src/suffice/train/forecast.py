"""Forecasts, before any weight is loaded, whether a run fits into memory and about how long it takes."""

from __future__ import annotations

import math
import timeit
from dataclasses import dataclass, replace

from suffice.errors import UsageError
from suffice.memory import (
    Architecture,
    TrainingForecast,
    TrainingSetup,
    forecast_training,
    free_memory,
    human_bytes,
    what_would_fit,
)
from suffice.train.base_model import BaseModel
from suffice.train.length_groups import BatchLimits
from suffice.train.prepare import Prepared
from suffice.train.recipe import Recipe

__all__ = ["RunForecast", "checkpointing", "fitted", "forecast"]

_EFFICIENCY = 0.5  # of a plain matrix product's speed: what training of large models reaches (PaLM, 2022: 46-58 %)
_WITH_HOLES = 1.5  # times the forecast: left alone, glibc took up to 1.33 times in the benchmarks
_BLOCK_SECONDS = {"cpu": 1.2e-3, "cuda": 0.6e-3}  # Python and launches, per block and batch; measured on small models


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForecast:
    memory: TrainingForecast | None
    """None for a model whose arithmetic is not known."""
    free: int
    """Bytes that are free on the device."""
    suggestions: tuple[str, ...]
    """Changes that would make it fit, where it does not."""
    steps: int
    seconds: float | None
    """Rough time of the steps alone; None where `memory` is."""

    @property
    def fits(self) -> bool:
        return self.memory is None or self.memory.total <= self.free

    @property
    def is_tight(self) -> bool:
        """Whether memory may run out if what is freed stays with the process and leaves holes."""
        return self.memory is None or _WITH_HOLES * self.memory.total > self.free


def checkpointing(recipe: Recipe, device: str) -> bool:
    """Whether activations are computed twice."""
    return recipe.gradient_checkpointing == "true" or (recipe.gradient_checkpointing == "auto" and device != "cpu")


def forecast(recipe: Recipe, base: BaseModel, prepared: Prepared, device: str, processes: int) -> RunForecast:
    """Memory on one device, and the time that so many processes take together."""
    steps, free = _planned_steps(recipe, len(prepared.train), processes), free_memory(device)
    try:
        memory = _memory(recipe, base, prepared, device)
        seconds = _seconds(recipe, Architecture.from_config(base.config), prepared, memory.setup, steps)
    except UsageError:
        return RunForecast(memory=None, free=free, suggestions=(), steps=steps, seconds=None)
    suggestions = what_would_fit(base.config, memory.setup, free) if memory.total > free else []
    changes = tuple(each.change for each in suggestions)
    return RunForecast(memory=memory, free=free, suggestions=changes, steps=steps, seconds=seconds)


def _seconds(recipe: Recipe, shape: Architecture, prepared: Prepared, setup: TrainingSetup, steps: int) -> float:
    mean = sum(row.tokens for row in prepared.train) / len(prepared.train)
    tokens = mean * steps * recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps
    passes = 6 if setup.gradient_checkpointing else 4  # FLOPs per weight and token, LoRA: no weight gradients
    speed = _EFFICIENCY * _matrix_speed(setup.device, setup.compute_bytes)
    batches = max(steps, tokens / setup.tokens)  # groups of rows, if they fill their pass
    overhead = batches * shape.layers * _BLOCK_SECONDS[setup.device_type] * passes
    return passes * shape.parameters * tokens / speed + overhead


def _planned_steps(recipe: Recipe, rows: int, processes: int) -> int:
    """Steps of a run; an epoch's last step may have fewer rows."""
    per_step = recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps * processes
    by_epochs = math.ceil(recipe.num_train_epochs * math.ceil(rows / per_step))
    return recipe.max_steps or max(1, by_epochs)


def fitted(recipe: Recipe, base: BaseModel, prepared: Prepared, device: str) -> tuple[Recipe, str]:
    """The recipe with the least painful change that makes it fit, and what changed; the data stays as it is."""
    memory, free = _memory(recipe, base, prepared, device), free_memory(device)
    for each in what_would_fit(base.config, memory.setup, free):
        setup = each.setup
        if setup.max_length < memory.setup.max_length:
            continue
        factor = recipe.per_device_train_batch_size // setup.batch_size
        changed = replace(
            recipe,
            per_device_train_batch_size=setup.batch_size,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps * factor,
            gradient_checkpointing="true" if setup.gradient_checkpointing else "false",
            quantization="4bit" if setup.weight_bits == 4 else "none",
        )
        return changed, each.change
    raise UsageError(
        f"--fit auto: {human_bytes(memory.total)} are needed, {human_bytes(free)} are free, and no batch size, "
        "checkpointing or quantization changes that: take a smaller --max_length or a smaller model"
    )


def _memory(recipe: Recipe, base: BaseModel, prepared: Prepared, device: str) -> TrainingForecast:
    compute = 4 if recipe.dtype == "float32" or (recipe.dtype == "auto" and device == "cpu") else 2
    whole = forecast_training(
        base.config,
        batch_size=recipe.per_device_train_batch_size,
        max_length=prepared.longest,
        lora_rank=recipe.lora_rank,
        gradient_checkpointing=checkpointing(recipe, device),
        weight_bits=4 if recipe.quantization == "4bit" else 8 * compute,
        compute_bytes=compute,
        device=device,
    )
    limits = BatchLimits.of(prepared.train, recipe.per_device_train_batch_size)
    return replace(whole, logits=whole.logits * limits.logits // whole.setup.tokens)


def _matrix_speed(device: str, value_bytes: int) -> float:
    """FLOPs per second of a matrix product, measured for about a tenth of a second."""
    import torch

    side = 1024 if device == "cpu" else 8192
    dtype = torch.float32 if value_bytes == 4 else torch.bfloat16
    matrix = torch.ones(side, side, dtype=dtype, device=device)

    def product() -> None:
        float((matrix @ matrix)[0, 0])  # reading a value waits for the device

    product()  # warm up
    return 2 * side**3 / min(timeit.repeat(product, repeat=3, number=1))

"""Runs one fine-tuning, from its recipe to its last checkpoint."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.checkpoints.library_warnings import without_library_warnings
from suffice.errors import UsageError
from suffice.memory import return_freed_memory
from suffice.train.base_model import BaseModel, device_of, load_base, load_with_adapter
from suffice.train.checkpoint_folders import (
    ARGS,
    checkpoint_to_resume,
    forget_after,
    new_run,
    read_settings,
    write_json,
)
from suffice.train.forecast import RunForecast, checkpointing, fitted, forecast
from suffice.train.memory_use import explained_memory_errors
from suffice.train.plots import plot_run
from suffice.train.prepare import Prepared, prepare
from suffice.train.recipe import Recipe
from suffice.train.rows import fingerprints, read_rows

if TYPE_CHECKING:
    from suffice.train.log import ProgressDisplay
    from suffice.train.trainer import SftTrainer

__all__ = ["Outcome", "Resumed", "RunPlan", "make_plan", "resume", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run that is ready to start: all that is known before weights are loaded."""

    recipe: Recipe
    base: BaseModel
    prepared: Prepared
    forecast: RunForecast
    device: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resumed:
    checkpoint: Path
    recipe: Recipe
    datasets: list[dict[str, Any]]
    """Fingerprints of its datasets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    run: Path
    checkpoint: Path
    step: int
    steps: int
    """Steps that were planned."""
    reason: str
    """Why it ended early; empty if it did not."""
    interrupted: bool
    """Whether that was a signal."""
    metrics: dict[str, float]
    plot: Path | None


def make_plan(recipe: Recipe) -> RunPlan:
    """Read and encode the data, and forecast memory and time.

    Raises:
        SufficeError: whatever is wrong with recipe, data or model.
    """
    recipe.check()
    found = read_rows(recipe)
    base = load_base(recipe)
    prepared, device = prepare(recipe, base, found), device_of(recipe)
    planned = forecast(recipe, base, prepared, device, _processes())
    notes: list[str] = []
    if not planned.fits and recipe.fit == "auto":
        recipe, change = fitted(recipe, base, prepared, device)
        planned = forecast(recipe, base, prepared, device, _processes())
        notes.append(f"--fit auto: {change}")
    return RunPlan(recipe=recipe, base=base, prepared=prepared, forecast=planned, device=device, notes=tuple(notes))


def resume(where: str, output_dir: str) -> Resumed:
    """Find the newest whole checkpoint, and the recipe it was made with.

    Raises:
        UsageError: there is none, or its `args.json` cannot be read.
    """
    checkpoint = checkpoint_to_resume(where, output_dir)
    settings = read_settings(checkpoint)
    return Resumed(checkpoint, Recipe.from_dict(settings["recipe"]), settings["datasets"])


def train(
    plan: RunPlan,
    *,
    resumed: Resumed | None = None,
    started: float | None = None,
    showing: Callable[[int], AbstractContextManager[ProgressDisplay]],
    tell: Callable[[str], None],
) -> Outcome:
    """Train to the end of the recipe, of its time, or to a signal; always with a checkpoint at the last step.

    Args:
        plan: of `make_plan`.
        resumed: a run to continue, whose recipe is the plan's.
        started: `time.monotonic()` from which `max_minutes` counts; None is now.
        showing: opens a progress display for a number of steps.
        tell: shows one line to the user.

    Raises:
        UsageError: the datasets are not those of the run to resume, or it has finished.
        EngineError: memory ran out.
    """
    from suffice.train.end_check import EndCheck
    from suffice.train.log import RunLog
    from suffice.train.time_limit import TimeLimit

    recipe, steps, datasets = plan.recipe, plan.forecast.steps, fingerprints(plan.recipe)
    time_limit = TimeLimit(time.monotonic() if started is None else started, recipe.max_minutes)
    done = _steps_done(resumed, datasets, steps)
    end_check = EndCheck(plan.base, plan.prepared.validation_rows[: recipe.stop_check_prompts], plan.prepared.profile)
    display = showing(steps - done) if _is_main() else nullcontext(_NoDisplay())
    if plan.device == "cpu" and plan.forecast.is_tight:  # before the first large allocation; costs time
        return_freed_memory()
    with display as show, time_limit:
        run = _run_folder(recipe, resumed)
        log = RunLog(run, plan.device, show, end_check.warning, tell)
        with explained_memory_errors(plan.device, run), without_library_warnings():
            extras = functools.partial(_save_extras, plan=plan, datasets=datasets, metrics=log.latest)
            trainer = build_trainer(plan, run, end_check.measure, extras)
            time_limit.attach(trainer)
            trainer.add_callback(log)
            trainer.add_callback(time_limit)
            trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed.checkpoint))
    _leave_process_group()
    step = int(trainer.state.global_step)
    return Outcome(
        run=run,
        checkpoint=run / f"checkpoint-{step}",
        step=step,
        steps=steps,
        reason=time_limit.reason,
        interrupted=time_limit.interrupted,
        metrics=log.latest,
        plot=plot_run(run) if _is_main() else None,
    )


class _NoDisplay:
    """Of several processes, only the first has a progress display."""

    def update(self, done: int, note: str = "") -> None:
        pass


def build_trainer(
    plan: RunPlan, run: Path, answer_some: Callable[[Any], dict[str, float]], save_extras: Callable[[Path], None]
) -> SftTrainer:
    """The model with its adapter in a trainer that can start; `run` is its folder, the rest as `SftTrainer` has it."""
    from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

    from suffice.train.arguments import training_arguments
    from suffice.train.length_groups import BatchLimits, collate
    from suffice.train.trainer import SftTrainer

    recipe, tokenizer = plan.recipe, plan.base.tokenizer
    set_seed(recipe.seed)
    recompute = checkpointing(recipe, plan.device)
    model = load_with_adapter(plan.base, recipe, plan.device, checkpointing=recompute)
    padding = plan.base.end_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    trainer = SftTrainer(
        warmup_ratio=recipe.warmup_ratio,
        limits=BatchLimits.of(plan.prepared.train, recipe.per_device_train_batch_size),
        save_extras=save_extras,
        answer_some=answer_some,
        model=model,
        args=training_arguments(recipe, run, model.dtype, plan.device, evaluate=bool(plan.prepared.validation)),
        train_dataset=plan.prepared.train,
        eval_dataset=plan.prepared.validation or None,
        processing_class=tokenizer,
        data_collator=functools.partial(collate, padding=padding),
    )
    trainer.remove_callback(PrinterCallback)
    if recipe.early_stopping_patience and plan.prepared.validation:
        trainer.add_callback(EarlyStoppingCallback(recipe.early_stopping_patience))
    return trainer


def _steps_done(resumed: Resumed | None, datasets: list[dict[str, Any]], steps: int) -> int:
    if resumed is None:
        return 0
    if resumed.datasets != datasets:
        raise UsageError("--resume: the datasets have changed since the run began: put them back, or start anew")
    done = int(resumed.checkpoint.name.removeprefix("checkpoint-"))
    if done >= steps:
        raise UsageError(f"--resume: this run has finished (step {done} of {steps}): start a new one")
    return done


def _run_folder(recipe: Recipe, resumed: Resumed | None) -> Path:
    """The run's folder, the same in every process."""
    if resumed is not None:
        if _is_main():
            forget_after(resumed.checkpoint)
        return resumed.checkpoint.parent
    if _processes() == 1:
        return new_run(recipe.output_dir)
    from accelerate import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]

    PartialState(cpu=recipe.device == "cpu")
    shared = [str(new_run(recipe.output_dir)) if _is_main() else ""]
    return Path(broadcast_object_list(shared)[0])


def _save_extras(folder: Path, *, plan: RunPlan, datasets: list[dict[str, Any]], metrics: dict[str, float]) -> None:
    """Write our own files, so that the adapter can be used, and the run resumed, from the checkpoint alone."""
    settings = {
        "base_model": plan.base.reference,
        "recipe": plan.recipe.to_dict(),
        "datasets": datasets,
        "rows": {"train": len(plan.prepared.train), "validation": len(plan.prepared.validation)},
    }
    write_json(folder / ARGS, settings)
    write_json(folder / "metrics.json", metrics)
    plan.prepared.profile.save(folder)


def _leave_process_group() -> None:
    """Part from the other processes in order: gloo aborts a process that ends while its threads still run."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _processes() -> int:
    """How many processes `torchrun` or `accelerate launch` started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))

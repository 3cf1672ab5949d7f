"""`suffice sft`: fine-tune a model with LoRA."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import fields
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

from suffice.cli.command import Command, Option, options_of
from suffice.cli.progress import ProgressBar
from suffice.errors import UsageError, packages_of
from suffice.train.recipe import Recipe

__all__ = ["command"]

_EXAMPLES = """
suffice sft --dataset self_cognition --model_name 小智 Bot --model_author 你的名字 'Your Name'
suffice sft --model Qwen2.5-7B-Instruct --dataset alpaca_zh.jsonl#500 alpaca_en.jsonl#500 --lora_rank 8
suffice sft --model Qwen2.5-7B-Instruct --dataset rows.jsonl --dry_run       shows data, memory and time
suffice sft --model Qwen2.5-7B-Instruct --dataset rows.jsonl --max_minutes 10
suffice sft --resume                                                         continues the newest run
torchrun --nproc_per_node 2 -m suffice sft --dataset rows.jsonl              trains on two GPUs
"""
_CHANGEABLE = {each.name for each in fields(Recipe) if each.metadata.get("changeable")}
_INTERRUPTED = 130  # as after Ctrl-C in a shell, so that what was to follow does not
_ENDED = "{:.0%} of the validation answers end by themselves"


def _run(**flags: Any) -> int:
    """Fine-tune a model with LoRA on your own answers.

    Shows first what will be learned, and whether it fits into memory. The adapter, in
    OUTPUT_DIR/vN-<time>/checkpoint-N, knows how long its answers are: suffice infer --adapters budgets with that.
    """
    started = time.monotonic()
    where, dry_run = flags.pop("resume"), flags.pop("dry_run")
    with packages_of("train", "training needs"):
        from suffice.train.run import make_plan, resume, train
        from suffice.train.terminal import forecast_lines, prepared_lines
    resumed = None if where is None else resume(where, flags["output_dir"])
    recipe = Recipe(**flags) if resumed is None else _resumed_recipe(resumed.recipe, flags)
    if recipe.model is None:
        _tell("notice: no --model given, so this is the bundled toy model, suffice-tiny")
    plan = make_plan(recipe)
    for line in (*prepared_lines(plan.prepared, recipe.max_length), "", *forecast_lines(plan.forecast), *plan.notes):
        _tell(line)
    if dry_run:
        return 0
    if not plan.forecast.fits:
        _tell("warning: memory may not suffice; see above, or let --fit auto choose")
    showing = partial(ProgressBar, "training", unit="steps")
    outcome = train(plan, resumed=resumed, started=started, showing=showing, tell=_tell)
    for line in _summary(outcome):
        _tell(line)
    return _INTERRUPTED if outcome.interrupted else 0


def _tell(line: str) -> None:
    """One line to a person; where several processes train, the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)


def _summary(outcome: Any) -> list[str]:
    shown = (("loss", "loss {:.3f}"), ("eval_loss", "validation loss {:.3f}"), ("eval_ended_share", _ENDED))
    values = [text.format(outcome.metrics[key]) for key, text in shown if key in outcome.metrics]
    lines = [f"{outcome.step} of {outcome.steps} steps: {', '.join(values)}"]
    if outcome.reason:
        lines.append(f"{outcome.reason}: saved after step {outcome.step}")
        lines[-1] += f"; continue with suffice sft --resume {outcome.run}"
    if outcome.plot is not None:
        lines.append(f"plot: {outcome.plot}")
    return [*lines, f"adapter: {outcome.checkpoint}", f"try it: suffice infer --adapters {outcome.checkpoint}"]


def _resumed_recipe(recipe: Recipe, flags: dict[str, Any]) -> Recipe:
    """The recipe of the run, with the flags that were given now and may change.

    Raises:
        UsageError: a flag that would change the steps of the run.
    """
    source_of = click.get_current_context().get_parameter_source
    given = {name: value for name, value in flags.items() if source_of(name) is ParameterSource.COMMANDLINE}
    values = recipe.to_dict()
    for name, value in given.items():
        same = tuple(values[name]) == value if isinstance(value, tuple) else values[name] == value
        if not same and name not in _CHANGEABLE and name != "output_dir":
            raise UsageError(
                f"--resume keeps the settings of its run, where {name} is {values[name]!r}: leave out --{name}, "
                "or start a new run"
            )
    kept = {name: value for name, value in given.items() if name in _CHANGEABLE}
    return Recipe.from_dict({**values, "max_minutes": None, **kept})


def _options() -> list[click.Parameter]:
    return [
        *options_of(Recipe),
        Option(
            ["--resume"],
            is_flag=False,
            flag_value="",
            metavar="[FOLDER]",
            group="Run",
            help="Continue the newest run in OUTPUT_DIR, or this one (a run's folder or a checkpoint).",
        ),
        Option(
            ["--dry-run"], is_flag=True, group="Run", help="Show the data, the memory and the time it takes, and stop."
        ),
    ]


command = Command("sft", callback=_run, params=_options(), help=_run.__doc__, examples=_EXAMPLES, bare="--dataset")

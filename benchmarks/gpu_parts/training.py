"""The part that fine-tunes: step time and peak of the recipe, and the forecast at three settings."""

from __future__ import annotations

import gc
import json
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_parts.answering import Run, forecast_row
from gpu_parts.model import row_of
from gpu_parts.results import PartResult
from gpu_parts.sizes import Training
from suffice.train.recipe import Recipe
from suffice.train.run import RunPlan, make_plan, train

__all__ = ["fine_tuning"]


class _Quiet:
    """Shows no progress."""

    def update(self, done: int, note: str = "") -> None:
        pass


async def fine_tuning(run: Run) -> PartResult:
    """Train with every setting; one that the forecast says does not fit is said and left out."""
    result = PartResult("training")
    for number, setting in enumerate(run.size.training):
        with tempfile.TemporaryDirectory() as folder:
            plan = make_plan(_recipe(run, setting, Path(folder)))
            words = asdict(setting) | {"recipe": number == 0}
            if plan.forecast.memory is None or not plan.forecast.fits:
                result.rows.append(words | {"left_out": f"would not fit: {plan.forecast.suggestions}"})
                result.check("the recipe of sft fits", number > 0, str(plan.forecast.suggestions))
                continue
            measured, step = _train(run, plan)
        forecast_row(result, run, words, plan.forecast.memory.total - run.device.runtime, measured)
        result.rows[-1]["step_s"] = step
    return result


def _train(run: Run, plan: RunPlan) -> tuple[int, float | None]:
    """Bytes at the peak, and seconds of a step after the first, where there is one."""
    gc.collect()
    run.device.reset_peak()
    outcome = train(plan, showing=lambda steps: nullcontext(_Quiet()), tell=lambda line: None)
    measured = run.device.peak() - run.before
    lines = [json.loads(line) for line in (outcome.run / "logging.jsonl").read_text("utf-8").splitlines()]
    times = [line["seconds"] for line in lines if "loss" in line]
    steps = [after - before for before, after in pairwise(times)]
    return measured, min(steps) if steps else None


def _recipe(run: Run, setting: Training, folder: Path) -> Recipe:
    rows = setting.batch_size * setting.accumulation * setting.steps
    data = folder / "rows.jsonl"
    made: list[dict[str, Any]] = [row_of(run.loaded.tokenizer, setting.length, seed) for seed in range(rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
    return Recipe(
        model=str(run.loaded.source.location),
        dataset=(str(data),),
        device="cpu" if run.device.name == "cpu" else "auto",
        max_length=setting.length,
        truncation_strategy="right",
        split_dataset_ratio=0.0,
        max_steps=setting.steps,
        per_device_train_batch_size=setting.batch_size,
        gradient_accumulation_steps=setting.accumulation,
        gradient_checkpointing="true" if setting.checkpointing else "false",
        logging_steps=1,
        stop_check_prompts=0,
        output_dir=str(folder / "output"),
    )

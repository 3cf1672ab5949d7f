"""What a run reports while it trains: `logging.jsonl`, the progress bar, and warnings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from suffice.memory import LiveMemory, MemoryMeter
from suffice.train.checkpoint_folders import LOG, link
from suffice.train.memory_use import memory_in_use

__all__ = ["ProgressDisplay", "RunLog"]


class ProgressDisplay(Protocol):
    """Something that shows how many steps are done."""

    def update(self, done: int, note: str = "") -> None:
        """`done` steps are done in all."""
        ...


class RunLog(TrainerCallback):
    """Writes a line per log event as it happens, shows progress, and keeps the links `best` and `last`.

    `warning` says what to warn of after an evaluation, if anything; `tell` shows one line to the user.
    """

    def __init__(
        self,
        run: Path,
        device: str,
        show: ProgressDisplay,
        warning: Callable[[dict[str, float]], str | None],
        tell: Callable[[str], None],
    ) -> None:
        self._run, self._device, self._show, self._warning = run, device, show, warning
        self._tell = lambda text: tell(f"warning: {text}")
        self._memory = LiveMemory(MemoryMeter(device), self._tell)
        self._started = time.monotonic()
        self._first_step, self._note = 0, ""
        self.latest: dict[str, float] = {}
        """The newest value of everything that was logged."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step = state.global_step  # progress counts the steps of this process

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._show.update(state.global_step - self._first_step, f"{self._note}{self._memory.note()}")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        values = {name: value for name, value in logs.items() if not name.endswith(("_per_second", "_runtime"))}
        self.latest.update(values, step=state.global_step)
        line = {
            "step": state.global_step,
            "of": state.max_steps,
            **{name: float(f"{value:.6g}") for name, value in values.items()},
            "memory_bytes": memory_in_use(self._device),
            "seconds": round(time.monotonic() - self._started, 2),
        }
        with (self._run / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if "loss" in logs:
            self._note = f"loss {logs['loss']:.3f}, "
            self.on_step_end(args, state, control)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        if state.is_world_process_zero and (warning := self._warning(metrics)):
            self._tell(warning)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        link(self._run, "last", self._run / f"checkpoint-{state.global_step}")  # it is whole by now
        if state.best_model_checkpoint:
            link(self._run, "best", Path(state.best_model_checkpoint))

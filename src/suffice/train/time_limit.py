"""Ends a run before its last step, at a time limit or a signal: always after a whole step, and always saved."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from suffice.train.trainer import SftTrainer

__all__ = ["TimeLimit"]


class TimeLimit(TrainerCallback):
    """Stops the trainer in time, and has its last step evaluated and saved.

    `max_minutes`, None for no limit, count from `started`, which is the `time.monotonic()` at which the command began.
    """

    def __init__(self, started: float, max_minutes: float | None) -> None:
        self.reason = ""
        """Why the run ended early, for a person; empty if it did not."""
        self.interrupted = False
        """Whether that was a signal."""
        self._started = started
        self._limit = None if max_minutes is None else 60 * max_minutes
        self._signal = ""
        self._trainer: SftTrainer | None = None
        self._first_step, self._step_began, self._longest, self._extra, self._saving = 0, 0.0, 0.0, 0.0, 0.0
        self._before: dict[int, Any] = {}

    def attach(self, trainer: SftTrainer) -> None:
        """Let the learning rate of this trainer follow the clock."""
        self._trainer = trainer

    def __enter__(self) -> TimeLimit:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step = state.global_step  # not 0 in a resumed run
        self._train_began = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = now = time.monotonic()
        if self._saving:  # the time since the last step went into evaluating and saving
            self._extra = max(self._extra, now - self._saving)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the schedule by the clock, and end the run where another step would take too long."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._step_began)
        self._saving = now
        late, progress = self._measure(state, now)
        interrupted, over, share = _agreed(args, float(bool(self._signal)), float(late), progress)
        if self._trainer is not None and self._trainer.schedule is not None:
            self._trainer.schedule.time_share = share
        if state.global_step >= state.max_steps:
            control.should_training_stop = True
        elif interrupted:
            self.interrupted, self.reason = True, f"stopped by {self._signal or 'a signal'}"
        elif over:
            self.reason = f"the {(self._limit or 0) / 60:g} minutes of --max_minutes are over"
        if self.reason:
            control.should_training_stop = True
        if control.should_training_stop:
            control.should_log = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"

    def _measure(self, state: Any, now: float) -> tuple[bool, float]:
        """Whether there is no time for another step and the evaluation after it, and how much of the time is over."""
        if self._limit is None:
            return False, 0.0
        end = self._started + self._limit - self._extra
        done = self._first_step / max(1, state.max_steps)
        share = (now - self._train_began) / max(1e-9, end - self._train_began)
        return now + self._longest > end, min(1.0, done + (1 - done) * share)


def _agreed(args: Any, *values: float) -> list[float]:
    """The largest of each value over all processes, so that they end at one step with one learning rate."""
    if args.world_size == 1:
        return list(values)
    import torch

    shared = torch.tensor(values, device=args.device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return list(shared.tolist())

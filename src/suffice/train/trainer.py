"""transformers' Trainer with four changes: loss on answers alone, rows grouped by length, a schedule that can follow a
clock, and checkpoints that say everything needed to use them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from suffice.train.length_groups import BatchLimits, split
from suffice.train.loss_mask import IGNORED

__all__ = ["Schedule", "SftTrainer"]


class Schedule:
    """Share of the highest learning rate at a step: a linear rise over `warmup_ratio` of them, then a cosine to 0."""

    def __init__(self, steps: int, warmup_ratio: float) -> None:
        self.steps = steps
        self.warmup_steps = math.ceil(steps * warmup_ratio)
        self.time_share = 0.0
        """How much of the time is over (0-1), where there is a limit; the run is at least as far as that."""

    def __call__(self, step: int) -> float:
        at = min(float(self.steps), max(float(step), self.time_share * self.steps))
        if at < self.warmup_steps:
            return at / self.warmup_steps
        rest = max(1, self.steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * (at - self.warmup_steps) / rest))


class SftTrainer(Trainer):
    """Trainer for encoded conversations.

    Logits are computed where there is loss and nowhere else: with a vocabulary of 150,000 they are most of the memory.
    """

    def __init__(
        self,
        *,
        warmup_ratio: float,
        limits: BatchLimits,
        save_extras: Callable[[Path], None],
        answer_some: Callable[[Any], dict[str, float]],
        **settings: Any,
    ) -> None:
        """
        Args:
            warmup_ratio: as `Schedule` has it.
            limits: of one forward pass.
            save_extras: writes our own files into a checkpoint.
            answer_some: answers validation prompts; what it measured joins the evaluation's metrics.
            settings: of `transformers.Trainer`.
        """
        super().__init__(**settings)
        self.schedule: Schedule | None = None
        self.limits = limits
        self._warmup_ratio = warmup_ratio
        self._save_extras, self._answer_some = save_extras, answer_some
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the answer tokens of the whole step
        forward = inspect.signature(self.accelerator.unwrap_model(self.model).get_base_model().forward)
        self._can_slice = "logits_to_keep" in forward.parameters

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward passes of one step, group by group; gradients are exchanged with the last."""
        model.train()
        groups = split(inputs, self.limits)
        total = torch.zeros((), device=self.args.device)
        for number, group in enumerate(groups, 1):
            with nullcontext() if number == len(groups) else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, self._prepare_inputs(group), num_items_in_batch=num_items_in_batch)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Cross-entropy per answer token."""
        targets = inputs["labels"][:, 1:]
        places = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
        extra = {"logits_to_keep": places} if self._can_slice else {}
        outputs = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False, **extra
        )
        logits = outputs.logits if self._can_slice else outputs.logits[:, places]
        wanted = targets[:, places]
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        if num_items_in_batch is None:
            loss = loss / (wanted != IGNORED).sum()
        else:  # the count is over all processes, whose gradients are averaged
            loss = loss / num_items_in_batch * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        self.schedule = Schedule(num_training_steps, self._warmup_ratio)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self.schedule)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, *args: Any, **settings: Any) -> dict[str, float]:
        """Loss on the validation rows, and how answers end."""
        metrics: dict[str, float] = super().evaluate(*args, **settings)
        if self.is_world_process_zero() and (measured := self._answer_some(self.accelerator.unwrap_model(self.model))):
            metrics.update(measured)
            self.log({name: value for name, value in metrics.items() if name in measured})
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            # "auto" would ask the hub whether the vocabulary has grown; it never does here
            self.accelerator.unwrap_model(self.model).save_pretrained(
                folder, state_dict=state_dict, save_embedding_layers=False
            )
            self.processing_class.save_pretrained(folder)
            self._save_extras(folder)

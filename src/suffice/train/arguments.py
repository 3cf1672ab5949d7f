"""Translates a recipe into the arguments of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from suffice.train.forecast import checkpointing
from suffice.train.recipe import Recipe

__all__ = ["training_arguments"]


def training_arguments(recipe: Recipe, run: Path, dtype: Any, device: str, *, evaluate: bool) -> TrainingArguments:
    """The Trainer's settings, for a run in the folder `run`; `dtype` is the frozen weights'."""
    name = str(dtype).removeprefix("torch.")  # with half precision, the rest is computed in it too
    arguments = TrainingArguments(
        output_dir=str(run),
        num_train_epochs=recipe.num_train_epochs,
        max_steps=recipe.max_steps or -1,
        # all rows of a step at once: the trainer groups them by length, within the memory of the batch asked for
        per_device_train_batch_size=recipe.per_device_train_batch_size * recipe.gradient_accumulation_steps,
        per_device_eval_batch_size=recipe.per_device_eval_batch_size,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        activation_checkpointing=checkpointing(recipe, device),
        bf16=name == "bfloat16" and device != "cpu",
        fp16=name == "float16" and device != "cpu",
        use_cpu=device == "cpu",
        logging_steps=recipe.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=recipe.eval_steps,
        save_steps=recipe.save_steps,
        save_total_limit=recipe.save_total_limit,
        metric_for_best_model="loss" if evaluate else None,
        greater_is_better=False if evaluate else None,
        prediction_loss_only=True,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=device != "cpu",
        ddp_find_unused_parameters=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        seed=recipe.seed,
    )
    if arguments.n_gpu > 1:  # several GPUs without torchrun: one of them, rather than nn.DataParallel
        arguments._n_gpu = 1
    return arguments

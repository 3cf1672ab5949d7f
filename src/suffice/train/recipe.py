"""Every setting of a fine-tuning run, with its default, its limits and its help text in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from suffice.checkpoints.model_source import DTYPES
from suffice.errors import UsageError
from suffice.settings import check_values, setting

__all__ = ["Recipe"]

_MODEL, _DATA, _LORA, _STEPS = "Model", "Data", "LoRA", "Training"
_MEMORY, _OUTPUT = "Memory", "Evaluation and output"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """One fine-tuning run. The defaults are the recipe that fits a 7B model on one 24 GB card.

    Each field is a flag of `suffice sft`. A `changeable` one may change when a run is resumed: its steps stay.
    """

    model: str | None = setting(None, _MODEL, "A folder, or an id such as Qwen2.5-7B-Instruct. [default: bundled]")
    hub: str = setting("hf", _MODEL, "Where hub ids are fetched from.", choices=("hf", "modelscope"))
    dtype: str = setting(
        "auto", _MODEL, "Precision of the frozen weights; auto is bf16 on CUDA, float32 on CPU.", choices=DTYPES
    )
    device: str = setting(
        "auto", _MODEL, "auto takes a GPU if there is one; CUDA_VISIBLE_DEVICES chooses it.", choices=("auto", "cpu")
    )
    trust_remote_code: bool = setting(False, _MODEL, "Run Python code that comes with the model.")
    dataset: tuple[str, ...] = setting(
        (), _DATA, "json, jsonl, csv, parquet or txt; #N takes N rows; self_cognition is bundled.", metavar="FILE[#N]"
    )
    columns: tuple[str, ...] = setting((), _DATA, "Names of your columns, such as ask=query.", metavar="NAME=OURS")
    system: str | None = setting(None, _DATA, "System prompt for rows that have none.")
    split_dataset_ratio: float = setting(0.01, _DATA, "Share of the rows kept for validation.", minimum=0, maximum=0.5)
    max_length: int = setting(
        2048, _DATA, "The most tokens of a row, prompt and answers together.", minimum=8, unit="tokens"
    )
    truncation_strategy: str = setting(
        "drop", _DATA, "Longer rows are left out, cut at the end, or an error.", choices=("drop", "right", "error")
    )
    model_name: tuple[str, ...] = setting((), _DATA, "For {{NAME}} in Chinese and English rows.", metavar="ZH EN")
    model_author: tuple[str, ...] = setting((), _DATA, "For {{AUTHOR}} in Chinese and English rows.", metavar="ZH EN")
    keep_placeholders: bool = setting(False, _DATA, "Learn {{NAME}} and {{AUTHOR}} as they stand.")
    seed: int = setting(42, _DATA, "Seed for sampling, splitting, shuffling and LoRA's first weights.", minimum=0)
    lora_rank: int = setting(8, _LORA, "Size of the adapter.", minimum=1)
    lora_alpha: int = setting(32, _LORA, "Strength of the adapter: updates are scaled by alpha / rank.", minimum=1)
    lora_dropout: float = setting(0.05, _LORA, "Share of inputs dropped while training.", minimum=0, maximum=0.9)
    target_modules: tuple[str, ...] = setting(("all-linear",), _LORA, "Layers that get an adapter.")
    num_train_epochs: float = setting(1.0, _STEPS, "How often every row is seen.", minimum=0.001)
    max_steps: int | None = setting(None, _STEPS, "Stop after this many steps, whatever the epochs.", minimum=1)
    max_minutes: float | None = setting(
        None, _STEPS, "End this long after the start; the learning rate falls in time.", minimum=0.01, changeable=True
    )
    per_device_train_batch_size: int = setting(1, _STEPS, "Rows in memory at once on each device.", minimum=1)
    gradient_accumulation_steps: int = setting(16, _STEPS, "Batches whose gradients make one step.", minimum=1)
    learning_rate: float = setting(1e-4, _STEPS, "Highest learning rate; it falls as a cosine to 0.", minimum=1e-9)
    warmup_ratio: float = setting(
        0.05, _STEPS, "Share of the steps in which the learning rate rises.", minimum=0, maximum=1
    )
    weight_decay: float = setting(0.1, _STEPS, "Pull of the adapter's weights towards 0.", minimum=0)
    max_grad_norm: float = setting(1.0, _STEPS, "Gradients with a larger norm are scaled down to it.", minimum=0)
    early_stopping_patience: int = setting(
        0, _STEPS, "Stop after this many evaluations without a lower loss; 0 never stops early.", minimum=0
    )
    quantization: str = setting(
        "none", _MEMORY, "4bit holds frozen weights in NF4 (QLoRA; needs CUDA, bitsandbytes).", choices=("none", "4bit")
    )
    gradient_checkpointing: str = setting(
        "auto", _MEMORY, "Recompute activations to save memory; auto: on CUDA.", choices=("auto", "true", "false")
    )
    fit: str = setting(
        "warn",
        _MEMORY,
        "When memory will not suffice: warn says what would fit, auto changes batch, checkpointing and quantization.",
        choices=("warn", "auto"),
        changeable=True,
    )
    output_dir: str = setting("output", _OUTPUT, "Runs go to OUTPUT_DIR/vN-<time>.")
    logging_steps: int = setting(5, _OUTPUT, "Steps between lines of logging.jsonl.", minimum=1)
    eval_steps: int = setting(50, _OUTPUT, "Steps between evaluations; the last step is evaluated too.", minimum=1)
    per_device_eval_batch_size: int = setting(1, _OUTPUT, "Validation rows in memory at once.", minimum=1)
    stop_check_prompts: int = setting(
        8,
        _OUTPUT,
        "Validation prompts to answer at each evaluation, to see whether answers still end.",
        minimum=0,
        changeable=True,
    )
    save_steps: int = setting(50, _OUTPUT, "Steps between checkpoints; the last step is saved too.", minimum=1)
    save_total_limit: int = setting(
        2, _OUTPUT, "Checkpoints to keep, including the best one.", minimum=1, changeable=True
    )

    def check(self) -> None:
        """Raises a UsageError that names the setting, its value and what is allowed, where one is out of range."""
        check_values(type(self), self.to_dict())
        if not self.dataset:
            raise UsageError("--dataset is missing: name one or more files, for example --dataset rows.jsonl")
        for name in ("model_name", "model_author"):
            if len(getattr(self, name)) > 2:
                raise UsageError(f"--{name} takes one name, or two (in Chinese, in English): {getattr(self, name)}")
        if self.quantization == "4bit" and self.dtype == "float32":
            raise UsageError("--quantization 4bit computes in bfloat16 or float16: leave out --dtype float32")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` gave; settings that are not there get their defaults.

        Raises:
            UsageError: a setting that is not known.
        """
        if unknown := sorted(set(values) - {each.name for each in fields(cls)}):
            raise UsageError(f"unknown settings: {', '.join(unknown)} (written by another version?)")
        lists: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **lists})

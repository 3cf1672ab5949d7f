"""The model to fine-tune: its tokenizer and settings before training starts, its weights with a LoRA adapter after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffice.checkpoints.hub import find_on_hub
from suffice.checkpoints.load_model import load_model
from suffice.checkpoints.model_source import BUNDLED_NAME, ModelSource, resolve_model
from suffice.errors import ModelError, UsageError, first_line
from suffice.train.recipe import Recipe

__all__ = ["BaseModel", "device_of", "load_base", "load_with_adapter"]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A model without its weights."""

    source: ModelSource
    tokenizer: Any
    config: Mapping[str, Any]
    end_ids: tuple[int, ...]
    """Tokens that end an answer."""

    @property
    def reference(self) -> str:
        """What an adapter calls it: a name, an absolute folder or a hub id."""
        if self.source.bundled:
            return BUNDLED_NAME
        return str(Path(self.source.location).resolve()) if self.source.local else self.source.location

    @property
    def context_tokens(self) -> int | None:
        """The longest prompt and answer together."""
        return self.config.get("max_position_embeddings")


def device_of(recipe: Recipe) -> str:
    """`cpu`, or the CUDA device of this process."""
    import torch

    if recipe.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def load_base(recipe: Recipe) -> BaseModel:
    """Load the tokenizer and the settings of the recipe's model.

    Raises:
        ModelError: the model cannot be found, or it has no chat template.
        UsageError: `max_length` is above the model's context.
    """
    source = find_on_hub(resolve_model(recipe.model, hub=recipe.hub), recipe.hub)
    import transformers
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    common: dict[str, Any] = {"local_files_only": source.only_here, "trust_remote_code": recipe.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.location, **common)
        config = AutoConfig.from_pretrained(source.location, **common).to_dict()
    except Exception as error:  # whatever a hub, a file or remote code comes up with
        raise ModelError(f"cannot load {source.location!r}: {first_line(error)}") from error
    if not tokenizer.chat_template:
        raise ModelError(f"{source.name} has no chat template: fine-tune a model made for chat (its -Instruct version)")
    try:
        generation = GenerationConfig.from_pretrained(source.location, local_files_only=source.only_here).eos_token_id
    except OSError:
        generation = None  # many models have no generation_config.json
    if tokenizer.eos_token_id is None and generation is None:
        raise ModelError(f"{source.name} has no end token, so it cannot learn where to stop")
    base = BaseModel(source, tokenizer, config, _end_ids(generation, tokenizer.eos_token_id))
    if base.context_tokens is not None and recipe.max_length > base.context_tokens:
        raise UsageError(f"--max_length {recipe.max_length} is above the model's context: use {base.context_tokens}")
    return base


def load_with_adapter(base: BaseModel, recipe: Recipe, device: str, *, checkpointing: bool) -> Any:
    """The model with a fresh LoRA adapter, ready to train.

    Raises:
        ModelError: the weights cannot be loaded, or a target module is not there.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if recipe.quantization == "4bit":
        model = _load_4bit(base, recipe, device)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    else:
        dtype, trust = recipe.dtype, recipe.trust_remote_code
        model = load_model(base.source, hub=recipe.hub, dtype=dtype, device=device, trust_remote_code=trust).model
    targets = list(recipe.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"--target_modules {' '.join(targets)}: {first_line(error)}") from error
    adapted.peft_config["default"].base_model_name_or_path = base.reference
    return adapted


def _load_4bit(base: BaseModel, recipe: Recipe, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if device == "cpu":
        raise UsageError("--quantization 4bit needs a CUDA device: leave it out on the CPU")
    try:
        import bitsandbytes  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        raise UsageError("--quantization 4bit needs the package bitsandbytes: pip install bitsandbytes") from None
    compute = torch.float16 if recipe.dtype == "float16" or not torch.cuda.is_bf16_supported() else torch.bfloat16
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    try:
        return AutoModelForCausalLM.from_pretrained(
            base.source.location,
            quantization_config=quantization,
            dtype=compute,
            device_map={"": device},
            local_files_only=base.source.only_here,
            adapter_kwargs={"local_files_only": base.source.only_here},
            trust_remote_code=recipe.trust_remote_code,
        )
    except Exception as error:  # whatever a hub, a file or a driver comes up with
        raise ModelError(f"cannot load {base.source.location!r} in 4 bits: {first_line(error)}") from error


def _end_ids(*sources: int | list[int] | None) -> tuple[int, ...]:
    listed = [each if isinstance(each, list) else [each] for each in sources if each is not None]
    return tuple(dict.fromkeys(token for tokens in listed for token in tokens))

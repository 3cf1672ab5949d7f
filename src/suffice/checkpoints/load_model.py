"""From where a model is to model and tokenizer in memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from suffice.checkpoints.hub import find_on_hub
from suffice.checkpoints.library_warnings import without_library_warnings
from suffice.checkpoints.model_source import ModelSource
from suffice.errors import ModelError, first_line

__all__ = ["LoadedModel", "check_device_and_dtype", "load_model"]

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    source: ModelSource
    model: Any
    """A causal language model of transformers."""
    tokenizer: Any


def load_model(
    source: ModelSource, *, hub: str = "hf", dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False
) -> LoadedModel:
    """Load weights (safetensors only) and tokenizer, and merge the adapters.

    Args:
        source: what `resolve_model` found.
        hub: where ids are looked up.
        dtype: `auto` (bf16 on CUDA where the card has it, else fp16; fp32 on CPU), `bf16`, `fp16` or `fp32`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ModelError: in one line, whatever goes wrong.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Errors come as one line from us, progress from the command that loads.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)

    target = _device(device, torch)
    found = find_on_hub(source, hub)
    common: dict[str, Any] = {"local_files_only": found.only_here, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.location, **common)
        model = AutoModelForCausalLM.from_pretrained(
            found.location,
            dtype=_dtype(dtype, target, torch),
            use_safetensors=True,
            adapter_kwargs={"local_files_only": found.only_here},  # a hub is asked for adapters apart from the model
            device_map={"": target} if target.type == "cuda" else None,
            **common,
        )
        with without_library_warnings():
            if source.adapters:
                from peft import PeftModel
            for adapter in source.adapters:
                model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(_explain(source, error)) from error
    return LoadedModel(source, model.eval().requires_grad_(False), tokenizer)


def check_device_and_dtype(device: str, dtype: str) -> None:
    """Refuse what cannot be used here, before anything is loaded.

    Raises:
        ModelError: with the value, and what it may be.
    """
    import torch

    _dtype(dtype, _device(device, torch), torch)


def _device(device: str, torch: Any) -> Any:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        raise ModelError(f"unknown device {device!r}: use auto, cpu, cuda or cuda:N") from None
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ModelError(f"device {device!r} is not there: {torch.cuda.device_count()} CUDA devices can be seen")
    return target


def _dtype(dtype: str, device: Any, torch: Any) -> Any:
    if dtype == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    name = _DTYPES.get(dtype, dtype)
    if name not in _DTYPES.values():
        raise ModelError(f"unknown dtype {dtype!r}: use auto, bfloat16, float16 or float32")
    return getattr(torch, name)


def _explain(source: ModelSource, error: Exception) -> str:
    if source.local:
        return f"cannot load the model in {source.location}: {first_line(error)}"
    return f"cannot load {source.location!r} (no such folder here, so looked up on the hub): {first_line(error)}"

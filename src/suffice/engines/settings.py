"""The settings of an engine that runs a model on this machine, as `infer` and `serve` both have them: arguments of
`setting` by their names. Knows no engine."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ENGINE",
    "ENGINE_ARGS",
    "ENGINE_PYTHON",
    "ENGINE_SETTINGS",
    "KV_TOKENS",
    "MEMORY_UTILIZATION",
    "TENSOR_PARALLEL_SIZE",
]

ENGINE_SETTINGS = (
    *("adapters", "hub", "dtype", "device"),
    *("engine_python", "engine_args", "tensor_parallel_size", "memory_utilization", "kv_tokens"),
)
"""Settings that an engine gets which runs a model here, those of them that it has."""

_GROUP = "Model"

ENGINE: dict[str, Any] = {
    "default": None,
    "group": _GROUP,
    "text": "auto (vLLM on a GPU where it is installed, else transformers), transformers, vllm, sglang, openai, or one "
    "that an installed package adds. [default: openai with --upstream, else auto]",
    "metavar": "KIND",
}
ENGINE_PYTHON: dict[str, Any] = {
    "default": None,
    "group": _GROUP,
    "text": "The Python or virtual environment that has vLLM or SGLang. "
    "[default: SUFFICE_ENGINE_PYTHON, else this one]",
    "metavar": "PATH",
}
ENGINE_ARGS: dict[str, Any] = {
    "default": "",
    "group": _GROUP,
    "text": "More flags of vLLM or SGLang, in quotes; they win over Suffice's own.",
    "metavar": "FLAGS",
}
TENSOR_PARALLEL_SIZE: dict[str, Any] = {
    "default": 1,
    "group": _GROUP,
    "text": "GPUs that share the model.",
    "aliases": ("--tp",),
    "minimum": 1,
}
MEMORY_UTILIZATION: dict[str, Any] = {
    "default": None,
    "group": _GROUP,
    "text": "Share of the device's memory for model and KV cache. [default: most of what is free]",
    "above": 0,
    "maximum": 1,
}
KV_TOKENS: dict[str, Any] = {"default": None, "group": _GROUP, "minimum": 256, "unit": "tokens"}
"""Without its text: the default differs."""

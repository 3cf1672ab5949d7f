"""What fits: parameters, KV cache and training memory from a model's `config.json`, and what a device has free.

Torch is needed only to ask a CUDA device, and is not imported before.
"""

from __future__ import annotations

from collections.abc import Callable

from suffice.deprecated import warn_deprecated
from suffice.memory.architecture import Architecture
from suffice.memory.device import free_memory, human_bytes, is_memory_error, parse_bytes, return_freed_memory
from suffice.memory.fit import Suggestion, what_would_fit
from suffice.memory.inference import Serving, ServingMemory
from suffice.memory.kv import KvLayout, kv_bytes_per_token
from suffice.memory.meter import LiveMemory, MemoryMeter, MemoryReading, Metered
from suffice.memory.parameters import ModelSize, weight_bytes
from suffice.memory.training import TrainingForecast, TrainingSetup, forecast_training

__all__ = [
    "Architecture",
    "KvLayout",
    "LiveMemory",
    "MemoryMeter",
    "MemoryReading",
    "Metered",
    "ModelSize",
    "Serving",
    "ServingMemory",
    "Suggestion",
    "TrainingForecast",
    "TrainingSetup",
    "forecast_training",
    "free_memory",
    "human_bytes",
    "is_memory_error",
    "kv_bytes_per_token",
    "parse_bytes",
    "return_freed_memory",
    "weight_bytes",
    "what_would_fit",
]


_COUNTS: dict[str, tuple[str, Callable[..., int]]] = {
    "parameter_count": ("parameters", lambda config: Architecture.from_config(config).parameters),
    "lora_parameter_count": (
        "lora_parameters",
        lambda config, rank, target="all-linear": Architecture.from_config(config).lora_parameters(rank),
    ),
}
"""Two functions of earlier versions, and where `Architecture` has the same."""


def __getattr__(name: str) -> Callable[..., int]:
    if name not in _COUNTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new, count = _COUNTS[name]
    warn_deprecated(f"suffice.memory.{name}", f"suffice.memory.Architecture.from_config(...).{new}")
    return count

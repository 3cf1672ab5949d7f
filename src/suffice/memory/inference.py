"""Forecasts the memory of generation: weights, activations, the runtime, and the KV cache that fits beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suffice.errors import UsageError
from suffice.memory.device import RUNTIME_BYTES, human_bytes
from suffice.memory.kv import KvLayout, head_size, size_of
from suffice.memory.parameters import ModelSize, weight_bytes
from suffice.memory.tensor_parallel import COMMUNICATION_BYTES, share_of_config

__all__ = ["Serving", "ServingMemory", "cache_tokens_that_fit", "kv_shortage", "step_bytes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Settings of serving that memory depends on."""

    weight_bits: float = 16
    """Per weight; what is quantised has a mean that may be no whole number."""
    kv_bits: int = 16
    page_size: int = 16
    """Tokens of KV cache that are set aside at once: vLLM's default is 16."""
    step_tokens: int = 2048
    """Tokens in one step at most, which is how much of a prompt is read at once."""
    step_requests: int = 256
    """Requests in one step at most."""
    device: str = "cuda"
    read_tokens: int = 0
    """Tokens of cache that attention copies out at once; none with flash attention."""

    def __post_init__(self) -> None:
        if self.kv_bits not in (32, 16, 8, 4):
            raise UsageError(f"a KV cache of {self.kv_bits} bits: there are 32, 16, 8 and 4")
        for name in ("page_size", "step_tokens", "step_requests"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more")

    @property
    def compute_bytes(self) -> int:
        """Per value of an activation."""
        return 4 if self.weight_bits == 32 else 2

    @property
    def kv_value_bytes(self) -> float:
        return self.kv_bits / 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMemory:
    """How a device's memory is divided, in bytes."""

    device: int
    """All there is."""
    used: int
    """By other programs."""
    unused: int
    """Left alone on purpose."""
    weights: int
    activations: int
    overhead: int

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        serving: Serving,
        device_bytes: int,
        *,
        used: int = 0,
        utilization: float = 1.0,
        extra_parameters: int = 0,
        weights_loaded: bool = False,
        cards: int = 1,
    ) -> ServingMemory:
        """Divide a device's memory.

        Args:
            config: the model's `config.json`.
            serving: its settings.
            device_bytes: memory of the device.
            used: what other programs take of it.
            utilization: share of the device that may be used by all (0-1].
            extra_parameters: as `KnownModel` has them.
            weights_loaded: the weights and the runtime are among what is used already.
            cards: that share the model by tensor parallelism; all figures are of one of them.

        Raises:
            UsageError: a setting outside its range, or a model whose parameters cannot be counted.
        """
        if not 0 < utilization <= 1:
            raise UsageError(f"the share of the device to use is {utilization}; it must be above 0 and at most 1")
        weights = overhead = 0
        if not weights_loaded:
            weights = weight_bytes(ModelSize.from_config(share_of_config(config, cards)), serving.weight_bits)
            weights += round(extra_parameters * max(serving.weight_bits, 16) / 8)
            overhead = RUNTIME_BYTES[serving.device.partition(":")[0]] + (COMMUNICATION_BYTES if cards > 1 else 0)
        tokens, requests, reads = serving.step_tokens, serving.step_requests, serving.read_tokens
        return cls(
            device=device_bytes,
            used=used,
            unused=round(device_bytes * (1 - utilization)),
            weights=weights,
            activations=step_bytes(config, tokens, requests, serving.compute_bytes, reads),
            overhead=overhead,
        )

    @property
    def kv_room(self) -> int:
        """Bytes left for the KV cache; below 0 where not even the model fits."""
        return self.device - sum(size for _, size in self.parts())

    def parts(self) -> tuple[tuple[str, int], ...]:
        """(name, bytes) of everything beside the KV cache."""
        return (
            ("in use already", self.used),
            ("weights", self.weights),
            ("activations", self.activations),
            ("overhead", self.overhead),
            ("left unused", self.unused),
        )


def step_bytes(config: Mapping[str, Any], tokens: int, requests: int, value_bytes: int, read_tokens: int = 0) -> int:
    """Bytes of activations at the peak of one step of generation, when no gradients are kept.

    One block at a time is computed, so the peak is the largest of three moments, beside the hidden states and the
    residual: the MLP (gated, Shazeer 2020, "GLU Variants": activated gate, up projection, product), attention
    (queries, keys, values, their rotated copies, the output, and what is copied out of the cache), and the logits of
    the requests' last tokens, once in the model's type and once in float32, where they are sampled.

    Args:
        config: the model's `config.json`.
        tokens: of the step.
        requests: of the step, each of which gets logits.
        value_bytes: 2 for bfloat16 and float16, 4 for float32.
        read_tokens: of cache that attention copies out, keys and values repeated for every query head.
    """
    config = config.get("text_config") or config
    hidden, query = size_of(config, "hidden_size"), size_of(config, "num_attention_heads") * head_size(config)
    try:
        size = ModelSize.from_config(config)
        mlp, vocabulary = size.widest, size.vocabulary
    except UsageError:  # a family whose parameters are not counted: a gated MLP of the usual width
        mlp, vocabulary = 3 * int(config.get("intermediate_size") or 4 * hidden), size_of(config, "vocab_size")
    stream = 2 * tokens * hidden * value_bytes
    attention = (5 * tokens + 2 * read_tokens) * query * value_bytes
    logits = requests * vocabulary * (value_bytes + 4)
    return stream + max(tokens * mlp * value_bytes, attention, logits)


def cache_tokens_that_fit(layout: KvLayout, room: float, *, beside: int, bytes_per_value: float, page_size: int) -> int:
    """Tokens of KV cache, in whole pages and at least one, in `room` less what lies `beside` it, both in bytes."""
    pages = int(room - beside) // (layout.bytes_per_token(bytes_per_value) * page_size)
    return max(1, pages) * page_size


def kv_shortage(layout: KvLayout, requests: int, tokens: int, bytes_per_value: float, room: int) -> str:
    """Why requests of so many tokens do not fit, with the arithmetic."""
    each = layout.bytes_for(tokens, bytes_per_value)
    windows = ", less what windows drop" if layout.windows else ""
    return (
        f"{requests} x {human_bytes(each)} ({tokens:,} tokens x {layout.bytes_per_token(bytes_per_value):,} "
        f"bytes{windows}) = {human_bytes(requests * each)} of KV cache, and there is room for {human_bytes(room)}"
    )

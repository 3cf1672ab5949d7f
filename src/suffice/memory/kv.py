"""Computes the KV cache in bytes, for any decoder whose `config.json` says how wide its keys and values are.

Grouped queries (Ainslie et al. 2023, "GQA"), sliding windows (Beltagy et al. 2020, "Longformer", section 3), latent
attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1), layers that share their keys (Gemma 3n), and quantised caches.
No parameters are counted here, so a model needs no entry in a table of families.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suffice.errors import UsageError

__all__ = ["KvLayout", "LayerCache", "head_size", "kv_bytes_per_token", "size_of"]

_NAMES = {
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv", "multi_query_group_num"),
}
"""What older configs call these sizes."""

_FULL_EVERY = {"gemma2": 2, "gpt_oss": 2, "gemma3_text": 6, "cohere2": 4, "olmo3": 4, "exaone4": 4, "llama4_text": 4}
"""Families in which every n-th layer attends to everything, where the config has no `layer_types`."""

_UNEVEN = ("gemma4", "mimo_v2", "inkling")
"""Beginnings of `model_type` where layers differ in the size or number of their heads: computed wrong, so refused."""

_WINDOWED = ("sliding_attention", "chunked_attention")
_PAGE_ALIGNMENT = 128  # bytes: transformers' PagedAttentionCache


@dataclass(frozen=True, slots=True)
class LayerCache:
    """What one layer keeps of a token."""

    values: int
    """Numbers per token: the widths of key and value together."""
    window: int | None = None
    """Newest tokens that are kept at most; None keeps all."""

    def tokens(self, length: int) -> int:
        return length if self.window is None else min(length, self.window)


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Layers of a model as its cache sees them: (layer, how many such layers)."""

    layers: tuple[tuple[LayerCache, int], ...]
    state: int = 0
    """Numbers that layers with linear attention keep of a request, however long it is."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KvLayout:
        """The layout that a `config.json` describes.

        Raises:
            UsageError: a size is missing, heads differ from layer to layer, or a layer keeps something other than
                keys and values that is not known here (a state-space layer).
        """
        config = config.get("text_config") or config
        if str(config.get("model_type")).startswith(_UNEVEN):
            raise UsageError(f"no memory arithmetic for {config['model_type']}: the heads of its layers differ in size")
        kinds = _layer_kinds(config)
        shared = config.get("num_kv_shared_layers") or 0  # the last ones read the keys of earlier ones
        window = config.get("sliding_window") or config.get("attention_chunk_size")
        counted: Counter[LayerCache] = Counter()
        state = 0
        for kind in kinds[: len(kinds) - shared]:
            if kind == "linear_attention" and config.get("linear_num_value_heads"):
                state += _state(config)
                continue
            if kind not in ("full_attention", *_WINDOWED):
                raise UsageError(f"no memory arithmetic for layers of type {kind!r}: they keep no keys and values")
            if kind in _WINDOWED and not isinstance(window, int):
                raise UsageError(f"the model's config has layers of type {kind!r} and sliding_window {window!r}")
            counted[LayerCache(_values(config, kind), window if kind in _WINDOWED else None)] += 1
        return cls(tuple(counted.items()), state)

    @property
    def values_per_token(self) -> int:
        """Numbers that all layers keep of a token that is in every window."""
        return sum(layer.values * count for layer, count in self.layers)

    @property
    def windows(self) -> tuple[int, ...]:
        """The windows' sizes, ascending; empty where every layer keeps everything."""
        return tuple(sorted({layer.window for layer, _ in self.layers if layer.window is not None}))

    def bytes_per_token(self, bytes_per_value: float = 2) -> int:
        """Bytes of one token, its keys and values in every layer (scales of a quantised cache not counted).

        Args:
            bytes_per_value: 2 for bfloat16 and float16, 4 for float32, 1 for an 8-bit cache, 0.5 for 4 bits.
        """
        return math.ceil(self.values_per_token * bytes_per_value)

    def bytes_for(self, tokens: int, bytes_per_value: float = 2, page_size: int = 1) -> int:
        """Bytes of a sequence, whole pages of it, windows considered.

        Args:
            tokens: prompt and answer.
            bytes_per_value: as `bytes_per_token`.
            page_size: tokens that are set aside at once; 1 where memory is contiguous.
        """
        values = sum(
            -(-layer.tokens(tokens) // page_size) * page_size * layer.values * count for layer, count in self.layers
        )
        return math.ceil(values * bytes_per_value + self.state * max(2, bytes_per_value))  # no state is quantised

    def paged_bytes(self, tokens: int, page_size: int, bytes_per_value: int = 2) -> int:
        """Bytes of the tensor that transformers' `PagedAttentionCache` (5.23) allocates.

        The cache grows by sectors, the least common multiple of the bytes that a page takes over all layers of a kind,
        and of 128; two more hold what padding writes.

        Args:
            tokens: that fit, where every layer keeps all of them.
            page_size: tokens of a page.
            bytes_per_value: as `bytes_per_token`.
        """
        page = page_size * bytes_per_value
        kinds: Counter[int | None] = Counter()
        for layer, count in self.layers:
            kinds[layer.window] += layer.values * count
        sector = math.lcm(*(values * page for values in kinds.values()), _PAGE_ALIGNMENT)
        wanted = -(-tokens // page_size) * self.values_per_token * page
        return (max(1, -(-wanted // sector)) + 2) * sector


def kv_bytes_per_token(config: Mapping[str, Any], bytes_per_value: float = 2) -> int:
    """Bytes of KV cache for one token: layers x KV heads x head size x 2 (key and value) x bytes per value.

    `bytes_per_value` as in `KvLayout.bytes_per_token`; raises UsageError as `KvLayout.from_config` does.
    """
    return KvLayout.from_config(config).bytes_per_token(bytes_per_value)


def _layer_kinds(config: Mapping[str, Any]) -> list[str]:
    """The kind of attention of each layer, as transformers derives it where the config does not say."""
    layers = size_of(config, "num_hidden_layers")
    if config.get("layer_types"):
        return list(config["layer_types"])
    window, family = config.get("sliding_window") or config.get("attention_chunk_size"), str(config.get("model_type"))
    if config.get("linear_num_value_heads"):
        every = config.get("full_attention_interval") or 4
        return ["linear_attention" if (i + 1) % every else "full_attention" for i in range(layers)]
    if "use_sliding_window" in config:  # Qwen: a window for the upper layers, if at all
        first = config.get("max_window_layers") or layers if config["use_sliding_window"] and window else layers
        return ["full_attention"] * min(first, layers) + ["sliding_attention"] * max(0, layers - first)
    if family.startswith("qwen") or not window:
        return ["full_attention"] * layers
    pattern = config.get("sliding_window_pattern") or _FULL_EVERY.get(family, 0)
    if isinstance(pattern, str):  # "LLLG": G is global
        return ["full_attention" if pattern[i % len(pattern)] == "G" else "sliding_attention" for i in range(layers)]
    return ["full_attention" if pattern and (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]


def _values(config: Mapping[str, Any], kind: str) -> int:
    """Numbers that a layer keeps of a token."""
    if config.get("kv_lora_rank"):  # one latent for all heads, and one key with the position in it
        return size_of(config, "kv_lora_rank") + size_of(config, "qk_rope_head_dim")
    heads = size_of(config, "num_attention_heads")
    kv_heads = 1 if config.get("multi_query") else size_of(config, "num_key_value_heads", heads)
    return kv_heads * head_size(config) * 2


def _state(config: Mapping[str, Any]) -> int:
    """Numbers that a layer of gated delta-rule attention keeps of a request (Yang et al. 2024, "Gated Delta Networks"):
    a matrix for each value head, and what its convolution still has to see."""
    keys, key_size = size_of(config, "linear_num_key_heads"), size_of(config, "linear_key_head_dim")
    values, value_size = size_of(config, "linear_num_value_heads"), size_of(config, "linear_value_head_dim")
    channels = 2 * keys * key_size + values * value_size
    return values * key_size * value_size + channels * (size_of(config, "linear_conv_kernel_dim") - 1)


def head_size(config: Mapping[str, Any]) -> int:
    """Numbers of one attention head: what the config says, or an equal share of the hidden size."""
    return size_of(config, "head_dim", size_of(config, "hidden_size") // size_of(config, "num_attention_heads"))


def size_of(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A size from a config, by any of its names.

    Raises:
        UsageError: it is missing, or not a whole number above 0.
    """
    value = next((config[each] for each in (name, *_NAMES.get(name, ())) if config.get(each) is not None), default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"the model's config has {name} {value!r}; it must be a whole number above 0")
    return value

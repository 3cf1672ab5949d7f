"""Counts the parameters of a model, those that a token passes through, and their bytes.

Dense models are counted by `Architecture`. This module adds mixtures of experts (Jiang et al. 2024, "Mixtral of
Experts") and latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1); the tests compare all of them with the
modules that transformers builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from suffice.errors import UsageError
from suffice.memory.architecture import Architecture
from suffice.memory.kv import KvLayout, size_of
from suffice.memory.quantised_names import GGUF_BITS, GROUPED_4_BIT, MXFP4_BITS

__all__ = ["ModelSize", "stored_weight_bits", "weight_bytes"]

_DENSE_PART = {
    "mixtral": "mistral",
    "qwen2_moe": "qwen2",
    "qwen3_moe": "qwen3",
    "deepseek_v2": "llama",
    "deepseek_v3": "llama",
    "gpt_oss": "llama",
    "llama4_text": "llama",
    "qwen3_next": "qwen3",
    "qwen3_vl_moe_text": "qwen3",
}
"""Mixtures, and the dense family whose attention, norms and embeddings they have."""

_SAME_SHAPE = {
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
"""Language models of vision models, and the family whose modules they have."""

_LINEAR_BITS = {4: 4.127, 8: 8.0, GROUPED_4_BIT: GROUPED_4_BIT, MXFP4_BITS: MXFP4_BITS}
"""Bits per quantised weight. 4: NF4 with double quantisation (Dettmers et al. 2023, "QLoRA", section 3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """Parameters of a model, counted three ways."""

    total: int
    """All of them; tied embeddings count once."""
    active: int
    """That one token is multiplied with: chosen experts, and no input embedding, which is only looked up."""
    linear: int
    """Weights of the blocks' linear layers: what quantisation shrinks."""
    vocabulary: int
    widest: int
    """Numbers per token that the widest moment of a block holds in its MLP: gate, up projection and their product."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelSize:
        """Count the parameters that a `config.json` describes.

        Raises:
            UsageError: a size is missing, or the family is not known.
        """
        config = config.get("text_config") or config
        family = str(config.get("model_type"))
        alike = _DENSE_PART.get(family) or _SAME_SHAPE.get(family, family)
        wide = config.get("intermediate_size_mlp") or config.get("intermediate_size")  # Llama 4: of its dense layers
        dense = Architecture.from_config({**config, "model_type": alike, "intermediate_size": wide})
        embedding = 0 if dense.tied else dense.vocabulary * dense.hidden
        total, linear, active = dense.parameters, dense.linear_parameters, dense.parameters - embedding
        if config.get("kv_lora_rank"):
            weights, norms = _latent_attention(config)
            grouped = sum(inputs * outputs for inputs, outputs, _ in dense.linears[:4])
            more = dense.layers * (weights - grouped)
            total, linear, active = total + more + dense.layers * norms, linear + more, active + more
        if config.get("linear_num_value_heads"):
            weights, others = _linear_attention(config, dense)
            total, linear, active = total + weights + others, linear + weights, active + weights + others
        shape = {"vocabulary": dense.vocabulary, "widest": 3 * dense.intermediate}
        if family == "gpt_oss":  # an attention sink for each head
            total, active = total + dense.layers * dense.heads, active + dense.layers * dense.heads
        size = cls(total=total, active=active, linear=linear, **shape)
        return size._with_experts(config, dense) if family in _DENSE_PART else size

    def _with_experts(self, config: Mapping[str, Any], dense: Architecture) -> ModelSize:
        """The size with experts in the place of one MLP, in those layers that have them."""
        experts = _Experts.from_config(config)
        mlp = 3 * dense.hidden * dense.intermediate
        layers, router = _sparse_layers(config, dense.layers), dense.hidden * experts.count + experts.gate
        everyone = 3 * dense.hidden * (experts.count * experts.width + experts.shared_width)
        sparse = experts.chosen * experts.width + experts.shared_width
        return replace(
            self,
            total=self.total + layers * (everyone + router + experts.count * experts.bias - mlp),
            linear=layers * everyone if experts.only_quantised else self.linear + layers * (everyone - mlp),
            active=self.active + layers * (3 * dense.hidden * sparse + router + experts.chosen * experts.bias - mlp),
            widest=3 * (sparse if layers == dense.layers else max(dense.intermediate, sparse)),
        )


def stored_weight_bits(config: Mapping[str, Any]) -> float:
    """Bits per weight as a `config.json` says they are stored; 16 where nothing is quantised."""
    quantization = config.get("quantization_config") or {}
    if quantization.get("quant_method") == "mxfp4":
        return MXFP4_BITS
    if quantization.get("load_in_4bit"):
        return 4
    bits = quantization.get("bits") or quantization.get("w_bit")
    if isinstance(bits, int):
        return GROUPED_4_BIT if bits == 4 else bits
    return 8 if quantization.get("quant_method") == "fp8" or quantization.get("load_in_8bit") else 16


def weight_bytes(size: ModelSize, bits: float) -> int:
    """Bytes of the weights at 32, 16, 8 or 4 bits; with 8 and 4, only the blocks' linear layers have less than 16. The
    bits of a GGUF file (`suffice.memory.quantised_names`) are the mean of all weights.

    Raises:
        UsageError: another number of bits.
    """
    if bits in (16, 32):
        return size.total * int(bits) // 8
    if bits in GGUF_BITS.values():
        return round(size.total * bits / 8)
    if bits not in _LINEAR_BITS:
        raise UsageError(f"weights of {bits:g} bits: there are 32, 16, 8 and 4")
    return round(size.linear * _LINEAR_BITS[bits] / 8) + 2 * (size.total - size.linear)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experts:
    """The mixture of one layer."""

    count: int
    chosen: int
    width: int
    shared_width: int
    gate: int
    """Parameters of the gate of the shared expert, and of the router's bias."""
    bias: int = 0
    """Parameters of the biases of one expert."""
    only_quantised: bool = False
    """Whether experts alone are quantised, where the model is."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> _Experts:
        names = ("num_experts", "num_local_experts", "n_routed_experts")
        count = next((config[name] for name in names if config.get(name)), None)
        if count is None:
            raise UsageError(f"the config of a mixture of experts has none of {', '.join(names)}")
        chosen, family = size_of(config, "num_experts_per_tok"), config["model_type"]
        plain = ("mixtral", "gpt_oss", "llama4_text")
        width = size_of(config, "intermediate_size" if family in plain else "moe_intermediate_size")
        if family == "gpt_oss":
            bias = 2 * width + size_of(config, "hidden_size")
            return cls(
                count=count, chosen=chosen, width=width, shared_width=0, gate=count, bias=bias, only_quantised=True
            )
        if family == "llama4_text":
            return cls(count=count, chosen=chosen, width=width, shared_width=width, gate=0)
        shared, gate = (config.get("n_shared_experts") or 0) * width, 0
        if family in ("qwen2_moe", "qwen3_next"):
            shared, gate = size_of(config, "shared_expert_intermediate_size"), size_of(config, "hidden_size")
        return cls(count=count, chosen=chosen, width=width, shared_width=shared, gate=gate)


def _sparse_layers(config: Mapping[str, Any], layers: int) -> int:
    """Layers with experts; the others have one MLP."""
    dense = set(config.get("mlp_only_layers") or ()) | set(range(config.get("first_k_dense_replace") or 0))
    step = config.get("decoder_sparse_step") or config.get("interleave_moe_layer_step") or 1
    return sum((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def _latent_attention(config: Mapping[str, Any]) -> tuple[int, int]:
    """Weights of the linear layers of one layer's attention, and of its norms."""
    heads, hidden = size_of(config, "num_attention_heads"), size_of(config, "hidden_size")
    latent, rope = size_of(config, "kv_lora_rank"), size_of(config, "qk_rope_head_dim")
    nope, value = size_of(config, "qk_nope_head_dim"), size_of(config, "v_head_dim")
    query, low_rank = heads * (nope + rope), config.get("q_lora_rank") or 0
    queries = low_rank * (hidden + query) if low_rank else hidden * query
    keys = hidden * (latent + rope) + latent * heads * (nope + value)
    return queries + keys + heads * value * hidden, latent + low_rank


def _linear_attention(config: Mapping[str, Any], dense: Architecture) -> tuple[int, int]:
    """What a model with gated delta-rule attention (Qwen3-Next) has more than one whose attention is grouped in every
    layer: weights of linear layers, and all else. Its full attention has a gate as wide as the queries."""
    full = sum(count for _, count in KvLayout.from_config(config).layers)
    keys = size_of(config, "linear_num_key_heads") * size_of(config, "linear_key_head_dim")
    heads, size = size_of(config, "linear_num_value_heads"), size_of(config, "linear_value_head_dim")
    values, hidden = heads * size, dense.hidden
    weights = hidden * (2 * keys + 2 * values + 2 * heads) + values * hidden
    others = (2 * keys + values) * size_of(config, "linear_conv_kernel_dim") + 2 * heads + size
    grouped = sum(inputs * outputs for inputs, outputs, _ in dense.linears[:4])
    layers = dense.layers - full
    norms = 2 * dense.head_dim
    return layers * (weights - grouped) + full * hidden * dense.query_size, layers * (others - norms)

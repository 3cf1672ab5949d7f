"""Reads the shape of a decoder-only transformer from its `config.json`, and counts its parameters.

Dense models in the style of Llama: attention with grouped queries, a gated MLP, RMSNorm. Counts follow the modules that
transformers builds for these configs; the tests compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from suffice.errors import UsageError
from suffice.memory.kv import head_size, size_of

__all__ = ["Architecture"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What follows from `model_type` and is in no field of the config."""

    qkv_bias: bool | None = False
    """None: as `attention_bias` in the config says."""
    output_bias: bool | None = False
    """Of the attention's output projection. None: as `attention_bias` in the config says."""
    mlp_bias: bool | None = False
    """None: as `mlp_bias` in the config says."""
    head_norms: bool = False
    """RMSNorm over each head of queries and keys."""
    norms_per_layer: int = 2
    tied: bool = False
    """Whether input and output embeddings are one where the config does not say."""
    fused_mlp: bool = False
    """Gate and up projection are one matrix, which LoRA adapts as one."""
    fused_qkv: bool = False
    """Likewise queries, keys and values."""

    def with_biases(self, attention: bool, mlp: bool) -> _Family:
        """The family, where what is None is as the config says."""
        return replace(
            self,
            qkv_bias=attention if self.qkv_bias is None else self.qkv_bias,
            output_bias=attention if self.output_bias is None else self.output_bias,
            mlp_bias=mlp if self.mlp_bias is None else self.mlp_bias,
        )


_FAMILIES: Mapping[str, _Family] = {
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qkv_bias=None, output_bias=None, head_norms=True),
    "llama": _Family(qkv_bias=None, output_bias=None, mlp_bias=None),
    "mistral": _Family(),
    "gemma": _Family(qkv_bias=None, output_bias=None, tied=True),
    "gemma2": _Family(qkv_bias=None, output_bias=None, norms_per_layer=4, tied=True),
    "gemma3_text": _Family(qkv_bias=None, output_bias=None, head_norms=True, norms_per_layer=4, tied=True),
    "phi3": _Family(fused_mlp=True, fused_qkv=True),
    "glm": _Family(qkv_bias=None, fused_mlp=True),
    "glm4": _Family(qkv_bias=None, norms_per_layer=4, fused_mlp=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Input and output embeddings are one matrix."""
    family: _Family

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Architecture:
        """The shape that a `config.json` describes.

        Raises:
            UsageError: the config lacks a size, or does not describe a dense decoder that is known here.
        """
        config = config.get("text_config") or config
        model_type = config.get("model_type")
        family = _FAMILIES.get(str(model_type))
        if family is None:
            raise UsageError(
                f"no memory arithmetic for model type {model_type!r}; there is for {', '.join(sorted(_FAMILIES))}"
            )
        hidden, heads = size_of(config, "hidden_size"), size_of(config, "num_attention_heads")
        return cls(
            layers=size_of(config, "num_hidden_layers"),
            hidden=hidden,
            intermediate=size_of(config, "intermediate_size"),
            heads=heads,
            kv_heads=size_of(config, "num_key_value_heads", heads),
            head_dim=head_size(config),
            vocabulary=size_of(config, "vocab_size"),
            tied=bool(config.get("tie_word_embeddings", family.tied)),
            family=family.with_biases(bool(config.get("attention_bias")), bool(config.get("mlp_bias"))),
        )

    @property
    def query_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int, bool], ...]:
        """(inputs, outputs, bias) of each linear layer of one block."""
        family = self.family
        qkv, mlp = bool(family.qkv_bias), bool(family.mlp_bias)
        up = (2 * self.intermediate,) if family.fused_mlp else (self.intermediate, self.intermediate)
        widths = (self.query_size, self.kv_size, self.kv_size)
        return (
            *((self.hidden, outputs, qkv) for outputs in ((sum(widths),) if family.fused_qkv else widths)),
            (self.query_size, self.hidden, bool(family.output_bias)),
            *((self.hidden, outputs, mlp) for outputs in up),
            (self.intermediate, self.hidden, mlp),
        )

    @property
    def linear_parameters(self) -> int:
        """Weights of the blocks' linear layers, biases not counted: what quantisation shrinks."""
        return self.layers * sum(inputs * outputs for inputs, outputs, _ in self.linears)

    @property
    def parameters(self) -> int:
        """All parameters; tied embeddings count once."""
        biases = sum(outputs for _, outputs, bias in self.linears if bias)
        norms = self.family.norms_per_layer * self.hidden + 2 * self.head_dim * self.family.head_norms
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.linear_parameters + self.layers * (biases + norms) + embeddings + self.hidden

    def lora_parameters(self, rank: int) -> int:
        """Parameters of LoRA matrices A (inputs x rank) and B (rank x outputs) on every linear layer of the blocks.

        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.
        """
        return self.layers * sum(rank * (inputs + outputs) for inputs, outputs, _ in self.linears)

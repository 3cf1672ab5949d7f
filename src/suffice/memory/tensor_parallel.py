"""What tensor parallelism splits and costs: each of several cards computes with its share of every layer.

After Shoeybi et al. 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism",
section 3, as vLLM and SGLang do it: attention by heads, the MLP and every expert by their width, both embeddings by the
vocabulary. Norms, the experts' router and latent attention's shared part are on every card; a KV head is on several
cards where there are more of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suffice.errors import UsageError
from suffice.memory.kv import head_size, size_of

__all__ = ["COMMUNICATION_BYTES", "all_reduce_bytes", "share_of_config", "sizes_that_divide"]

COMMUNICATION_BYTES = 2 * 32 * 4 * 2**20
"""Buffers of NCCL on each card, an allowance: 4 MiB (the default of NCCL_BUFFSIZE) for each of 32 channels (the most
it opens) to send and to receive."""

_WIDTHS = ("intermediate_size", "intermediate_size_mlp", "moe_intermediate_size", "shared_expert_intermediate_size")
_LINEAR_HEADS = ("linear_num_key_heads", "linear_num_value_heads")
_MOST_CARDS = 64
_VOCABULARY_STEP = 64  # vLLM pads the vocabulary to a multiple of this for each card


def share_of_config(config: Mapping[str, Any], cards: int) -> Mapping[str, Any]:
    """The `config.json` of what one of `cards` cards holds and computes.

    Raises:
        UsageError: the model's heads or widths do not divide, with the numbers of cards that do.
    """
    if cards == 1:
        return config
    if inner := config.get("text_config"):
        return {**config, "text_config": share_of_config(inner, cards)}
    if reason := _why_not(config, cards):
        sizes = " or ".join(str(each) for each in sizes_that_divide(config))
        raise UsageError(f"tensor parallelism over {cards} cards: {reason}; it can be split over {sizes}: give --tp")
    heads = size_of(config, "num_attention_heads")
    step = _VOCABULARY_STEP * cards
    shared = {name: config[name] // cards for name in (*_WIDTHS, *_LINEAR_HEADS) if config.get(name)}
    return {
        **config,
        **shared,
        "head_dim": head_size(config),
        "num_attention_heads": heads // cards,
        "num_key_value_heads": max(1, size_of(config, "num_key_value_heads", heads) // cards),
        "vocab_size": -(-size_of(config, "vocab_size") // step) * _VOCABULARY_STEP,
    }


def sizes_that_divide(config: Mapping[str, Any]) -> list[int]:
    """Numbers of cards, 1 to 64, that a model can be split over."""
    config = config.get("text_config") or config
    return [each for each in range(1, _MOST_CARDS + 1) if not _why_not(config, each)]


def all_reduce_bytes(config: Mapping[str, Any], cards: int, tokens: float, value_bytes: int) -> float:
    """Bytes that each card sends in one step: after attention and after the MLP of every layer, all cards add up their
    parts of the hidden states of `tokens` tokens, round a ring (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce
    algorithms for clusters of workstations")."""
    config = config.get("text_config") or config
    hidden = size_of(config, "num_hidden_layers") * size_of(config, "hidden_size") * value_bytes * tokens
    return 2 * hidden * 2 * (cards - 1) / cards


def _why_not(config: Mapping[str, Any], cards: int) -> str:
    """What of a model does not divide by a number of cards; empty where all does."""
    heads = size_of(config, "num_attention_heads")
    kv_heads = size_of(config, "num_key_value_heads", heads)
    if heads % cards:
        return f"{heads} attention heads do not divide by {cards}"
    if kv_heads % cards and cards % kv_heads:
        return f"{kv_heads} KV heads can neither be divided among {cards} cards nor be held by equally many of them"
    group = (config.get("quantization_config") or {}).get("group_size") or 1
    for name in (*_WIDTHS, *_LINEAR_HEADS):
        width = config.get(name) or 0
        if width % cards:
            return f"{name} {width:,} does not divide by {cards}"
        if group > 1 and name in _WIDTHS and width // cards % group:
            return f"{name} {width:,} does not divide by {cards} in whole groups of {group} quantised weights"
    return ""

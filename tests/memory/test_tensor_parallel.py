"""What each of several cards holds and sends."""

from __future__ import annotations

from typing import Any

import pytest

from suffice.errors import UsageError
from suffice.memory import KvLayout, ModelSize, Serving, ServingMemory
from suffice.memory.cards import card, known_model
from suffice.memory.latency import speed
from suffice.memory.tensor_parallel import COMMUNICATION_BYTES, all_reduce_bytes, share_of_config, sizes_that_divide


def config_of(name: str) -> Any:
    found = known_model(name)
    assert found is not None
    return found.config


def test_one_card_holds_everything() -> None:
    config = config_of("Qwen3-8B")
    assert share_of_config(config, 1) is config


def test_two_cards_hold_half_of_all_that_is_split() -> None:
    config = config_of("Llama-3.1-70B")
    whole, half = ModelSize.from_config(config), ModelSize.from_config(share_of_config(config, 2))
    assert half.linear * 2 == whole.linear
    norms = 80 * 2 * 8192 + 8192  # on both cards
    assert 2 * half.total == whole.total + norms
    assert KvLayout.from_config(share_of_config(config, 2)).bytes_per_token() * 2 == 80 * 2 * 8 * 128 * 2


def test_kv_heads_are_held_twice_where_there_are_more_cards_than_heads() -> None:
    config = config_of("Qwen2.5-14B-Instruct") | {"num_key_value_heads": 2}
    per_card = [KvLayout.from_config(share_of_config(config, n)).bytes_per_token() for n in (1, 2, 4, 8)]
    assert per_card == [2 * per_card[1], per_card[1], per_card[1], per_card[1]]
    weights = [ModelSize.from_config(share_of_config(config, n)).linear * n for n in (2, 4)]
    one_head = 2 * 5120 * 128  # keys and values of a head, which two cards have instead of one
    assert weights[1] - weights[0] == 48 * 2 * one_head


def test_latent_attention_is_kept_whole_on_every_card() -> None:
    config = config_of("DeepSeek-V3")
    layouts = [KvLayout.from_config(share_of_config(config, n)).bytes_per_token() for n in (1, 8)]
    assert layouts[0] == layouts[1]


def test_a_vocabulary_is_padded_and_what_else_does_not_divide_is_refused() -> None:
    config = config_of("Qwen2.5-7B-Instruct")
    assert share_of_config(config | {"vocab_size": 1001}, 4)["vocab_size"] == 256
    assert sizes_that_divide(config) == [1, 2, 4]
    with pytest.raises(UsageError, match=r"28 attention heads do not divide by 8.*1 or 2 or 4"):
        share_of_config(config, 8)
    with pytest.raises(UsageError, match=r"8 KV heads can neither be divided among 20"):
        share_of_config(config_of("Qwen2.5-14B-Instruct"), 20)
    with pytest.raises(UsageError, match="intermediate_size 18,945"):
        share_of_config(config | {"intermediate_size": 18945}, 2)
    quantised = config_of("Qwen2.5-72B-Instruct") | {"quantization_config": {"quant_method": "gptq", "group_size": 128}}
    with pytest.raises(UsageError, match="groups of 128"):
        share_of_config(quantised, 8)  # 29,568 / 8 is 28.875 groups


def test_each_card_pays_for_the_buffers_of_communication() -> None:
    config = config_of("Qwen3-8B")
    one, two = (ServingMemory.of(config, Serving(), 24 * 2**30, cards=n) for n in (1, 2))
    assert two.overhead - one.overhead == COMMUNICATION_BYTES
    assert one.activations == two.activations  # hidden states and logits are whole on both


def test_a_slow_link_costs_what_is_sent_over_it() -> None:
    config = config_of("Qwen3-8B")
    assert all_reduce_bytes(config, 2, 1, 2) == 2 * 36 * 4096 * 2
    assert all_reduce_bytes(config, 8, 1, 2) == pytest.approx(2 * 36 * 4096 * 2 * 2 * 7 / 8)
    sizes: Any = {"prompt_tokens": 1000, "answer_tokens": 100, "concurrency": 4}
    alone, both = (speed(config, Serving(), card("4090"), **sizes, cards=n) for n in (1, 2))
    assert alone is not None
    assert both is not None
    sent = 2 * 36 * 4096 * 2 / 32e9  # PCI Express 4.0, one direction
    assert both.per_token == pytest.approx(alone.per_token / 2 + 4 * sent, rel=0.01)
    assert both.first_token > 1000 * sent
    assert speed(config, Serving(), card("910b"), **sizes, cards=2) is None

"""Computes how fast a model can be at best, by a roofline.

After Williams et al. 2009, "Roofline: An Insightful Visual Performance Model".

A step reads every active weight and the KV cache of its requests once, and multiplies each of its tokens with every
active parameter (two operations each) and with every token before it (Korthikanti et al. 2022, appendix A). Whichever
takes longer decides. Real engines reach a share of that, so these times are lower bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suffice.memory.cards import Card
from suffice.memory.inference import Serving
from suffice.memory.kv import KvLayout, head_size, size_of
from suffice.memory.parameters import ModelSize, weight_bytes
from suffice.memory.tensor_parallel import all_reduce_bytes, share_of_config

__all__ = ["Speed", "speed"]


@dataclass(frozen=True, slots=True)
class Speed:
    """Times of one request among others, in seconds, at best."""

    first_token: float
    """From its start to its first token, alone on the device."""
    per_token: float
    """Between two tokens of it."""
    concurrency: int
    answer_tokens: float
    prompt_tokens: float
    """Read before the first token."""

    @property
    def answer_seconds(self) -> float:
        return self.first_token + self.per_token * self.answer_tokens

    @property
    def answers_per_hour(self) -> float:
        """Of the device: each answer takes its prompt's step, and its share of the others."""
        return 3600 / (self.first_token + self.per_token * self.answer_tokens / self.concurrency)

    def cost(self, price_per_hour: float, answers: int = 1000) -> float:
        return answers * price_per_hour / self.answers_per_hour


def speed(
    config: Mapping[str, Any],
    serving: Serving,
    card: Card,
    *,
    prompt_tokens: float,
    answer_tokens: float,
    concurrency: int,
    cards: int = 1,
) -> Speed | None:
    """Times for a model (its `config.json`) on a card, with requests of one length of which so many run at once.

    With several `cards`, each computes its share, and what they send each other is added, by bandwidth alone.
    None for a card whose bandwidth, speed, or link to others is not known.
    """
    if card.bandwidth is None or card.flops is None or (cards > 1 and card.link is None):
        return None
    sent = all_reduce_bytes(config, cards, 1, serving.compute_bytes) / (card.link / 2) if card.link else 0.0
    config = share_of_config(config, cards)
    size, layout = ModelSize.from_config(config), KvLayout.from_config(config)
    text_config = config.get("text_config") or config
    width = size_of(text_config, "num_attention_heads") * head_size(text_config)
    layers = sum(count for _, count in layout.layers)
    weights = weight_bytes(size, serving.weight_bits)
    active = weights * size.active / size.total  # of a mixture, what one token passes through
    seen = prompt_tokens + answer_tokens / 2  # half-way through its answer
    kv = layout.bytes_for(round(seen), serving.kv_value_bytes)
    read = min(float(weights), active * concurrency) + concurrency * kv  # more requests wake more experts
    work = concurrency * (2 * size.active + 4 * layers * width * seen)
    step = max(read / card.bandwidth, work / card.flops) + concurrency * sent
    prompt_work = prompt_tokens * (2 * size.active + 2 * layers * width * prompt_tokens)  # half of it, being causal
    first = max(min(float(weights), active * prompt_tokens) / card.bandwidth, prompt_work / card.flops)
    return Speed(first + prompt_tokens * sent, step, concurrency, answer_tokens, prompt_tokens)

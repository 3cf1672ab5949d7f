"""The flags of `suffice plan`: what they are called and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from suffice.settings import setting

__all__ = ["PlanOptions"]

_MODEL, _CARD, _QUESTION, _TRAINING, _OUTPUT = "Model", "Card", "Question", "Training", "Output"
_BITS = (32, 16, 8, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """The flags of `suffice plan`."""

    model: str = setting("", _MODEL, "A name such as Qwen2.5-7B-Instruct, a folder, or a hub id.", required=True)
    weight_bits: int | None = setting(
        None, _MODEL, "Bits per weight. [default: the model's own, else 16]", choices=_BITS
    )
    kv_bits: int = setting(16, _MODEL, "Bits per value of the KV cache.", choices=_BITS)
    gpu: str | None = setting(None, _CARD, "A card's name: 4090, a100, h100 ... [default: the one that is here]")
    memory: str | None = setting(None, _CARD, "Memory instead of a card's name, such as 24GiB.", metavar="SIZE")
    used: str | None = setting(None, _CARD, "What other programs take of it, such as 22GiB.", metavar="SIZE")
    utilization: float = setting(
        0.9, _CARD, "Share of the card to use; with --used, all that is left is used.", above=0, maximum=1
    )
    concurrency: int | None = setting(None, _QUESTION, "Requests that should run at once.", minimum=1)
    max_length: str | None = setting(None, _QUESTION, "Prompt and answer together, such as 32k.", metavar="TOKENS")
    max_new_tokens: tuple[str, ...] = setting((), _QUESTION, "Limits of answers, one or several.", metavar="TOKENS")
    prompt_tokens: tuple[str, ...] = setting((), _QUESTION, "Lengths of prompts, one or several.", metavar="TOKENS")
    lengths: Path | None = setting(
        None,
        _QUESTION,
        "Real lengths: CSV or JSONL (.gz) with prompt_tokens and output_tokens, or an adapter's folder.",
        type=click.Path(path_type=Path),
        metavar="FILE",
    )
    price: float | None = setting(None, _QUESTION, "The card's price per hour, for that of 1,000 answers.", minimum=0)
    train: Literal["lora", "qlora", "full"] | None = setting(
        None, _TRAINING, "Plan training instead.", choices=("lora", "qlora", "full")
    )
    batch_size: int = setting(1, _TRAINING, "Rows per forward pass.", minimum=1)
    lora_rank: int = setting(8, _TRAINING, "Rank of the adapter.", minimum=1)
    gradient_checkpointing: bool = setting(True, _TRAINING, "Compute activations twice instead of keeping them.")
    json: bool = setting(False, _OUTPUT, "Print one JSON object.", switch=True)
    plot: Path | None = setting(None, _OUTPUT, "A picture: .png, .svg or .pdf.", metavar="FILE")

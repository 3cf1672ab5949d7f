"""What is run at each size: the model's shape, the lengths, and which figures count as a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SIZES", "Inference", "Size", "Training"]

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Inference:
    """So many requests at once, in tokens."""

    requests: int
    prompt: int
    answer: int


@dataclass(frozen=True, slots=True)
class Training:
    """LoRA of rank 8 on rows of one length."""

    batch_size: int
    length: int
    checkpointing: bool
    accumulation: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    shape: Mapping[str, Any]
    """Of the random model: fields of a Qwen2 `config.json`."""
    device: str
    free: float
    """GiB that the rest of the card leaves, in which everything has to run."""
    too_little: float
    """GiB in which the model cannot run."""
    speed: tuple[Inference, ...]
    memory: tuple[Inference, ...]
    training: tuple[Training, ...]
    """The first is the recipe of `suffice sft`."""
    answers: int
    """That are given twice, at once and continued."""
    recovering: Inference
    """Requests that run while the memory is eaten."""
    not_slower: bool
    """Whether an engine slower than `generate` is a failure: not on a machine that others use."""
    memory_slack: int
    """Bytes by which a forecast may be wrong whatever the model's size: libraries of the process, on the CPU."""


_QWEN25_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}
_TINY = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4352,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}

SIZES = {
    "7b": Size(
        shape=_QWEN25_7B,
        device="cuda",
        free=22.5,
        too_little=12,
        speed=(Inference(1, 64, 128), Inference(32, 64, 128), Inference(128, 64, 128)),
        memory=(Inference(1, 2048, 32), Inference(8, 1024, 32), Inference(64, 128, 32)),
        training=(Training(1, 2048, True, 16, 3), Training(4, 512, True, 2, 1), Training(1, 256, False, 2, 1)),
        answers=8,
        recovering=Inference(16, 256, 192),
        not_slower=True,
        memory_slack=_GIB // 4,
    ),
    "tiny": Size(
        shape=_TINY,
        device="cpu",
        free=1,
        too_little=0.0001,
        speed=(Inference(1, 16, 8), Inference(4, 16, 8), Inference(8, 16, 8)),
        memory=(Inference(1, 64, 4), Inference(4, 32, 4), Inference(8, 16, 4)),
        training=(Training(1, 32, True, 2, 2), Training(2, 16, True, 1, 1), Training(1, 16, False, 1, 1)),
        answers=2,
        recovering=Inference(4, 16, 48),
        not_slower=False,
        memory_slack=_GIB // 2,
    ),
}

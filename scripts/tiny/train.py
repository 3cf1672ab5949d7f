"""Trains the bundled model: Qwen2 architecture, loss on answers only, resumable at any step."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny.tasks import Example, draw, held_out
from tiny.tokenizer import VOCABULARY

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

__all__ = ["TinyRecipe", "train"]

_END_WEIGHT = 4.0
_IGNORED = -100  # the label of tokens without loss, as in PyTorch and transformers


@dataclass(frozen=True, slots=True)
class TinyRecipe:
    """How the model is trained; the defaults made the one in the package."""

    hidden_size: int = 192
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    intermediate_size: int = 576
    context: int = 4096
    tokens: int = 16_000_000
    """Tokens to train on, prompts included."""
    batch_tokens: int = 3072
    """Tokens in one step, padding included."""
    pieces: int = 8
    """Parts of a step, each of rows of one length: little padding, and all kinds of prompts in every step."""
    learning_rate: float = 3e-3
    warmup: float = 0.02
    """Share of the steps in which the rate rises."""
    decay: float = 0.5
    """Share of the steps at the end in which it falls to zero."""
    weight_decay: float = 0.02
    seed: int = 0
    save_minutes: float = 3.0


def train(folder: Path, tokenizer: PreTrainedTokenizerFast, recipe: TinyRecipe) -> Qwen2ForCausalLM:
    """Train, or go on from the checkpoint in `folder`, and return the model.

    Progress goes to `folder/log.jsonl` and to standard output, one line in 50 steps.
    """
    import torch

    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _new_model(tokenizer, recipe).to(device)
    optimizers = _optimizers(model, recipe)
    steps = recipe.tokens // recipe.batch_tokens
    checkpoint = folder / "checkpoint.pt"
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
        print(f"continuing from step {first} of {steps}", flush=True)
    started = saved_at = time.monotonic()
    loss_sum = torch.zeros((), device=device)
    for step, pieces in enumerate(_steps(tokenizer, recipe, first), first):
        if step >= steps:
            break
        rate = _rate(step / steps, recipe)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss = _backward(model, [piece.to(device) for piece in pieces])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss_sum += loss
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - started
            per_step = seconds / (step + 1 - first)
            record = {
                "step": step + 1,
                "of": steps,
                "loss": round(loss_sum.item() / 50, 4),
                "learning_rate": round(rate, 6),
            }
            loss_sum.zero_()
            print(json.dumps({**record, "minutes_left": round((steps - step - 1) * per_step / 60, 1)}), flush=True)
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({**record, "seconds_per_step": round(per_step, 3)}) + "\n")
        if time.monotonic() - saved_at > 60 * recipe.save_minutes:
            saved_at = time.monotonic()
            _save(checkpoint, model, optimizers, step + 1)
    _save(checkpoint, model, optimizers, steps)
    return model


def _new_model(tokenizer: PreTrainedTokenizerFast, recipe: TinyRecipe) -> Qwen2ForCausalLM:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


def _optimizers(model: Qwen2ForCausalLM, recipe: TinyRecipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings, norms and biases (as in Jordan et al., 2024)."""
    import torch

    from tiny.muon import Muon

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = Muon(matrices, weight_decay=recipe.weight_decay)
    adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adamw]


def _rate(progress: float, recipe: TinyRecipe) -> float:
    """Warm-up, a plateau, linear decay to zero: a trapezoid, so that the length of the run can still be changed."""
    rising = min(1.0, (progress + 1e-4) / recipe.warmup)
    falling = min(1.0, (1.0 - progress) / recipe.decay)
    return recipe.learning_rate * min(rising, falling)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of about one length, padded on the right, which causal attention never sees."""

    ids: torch.Tensor
    """(rows, tokens)"""
    labels: torch.Tensor
    """(rows, tokens): the next token, or -100 where there is no loss."""
    weights: torch.Tensor
    """(rows, tokens): what the loss there counts."""

    def to(self, device: str) -> _Piece:
        return _Piece(self.ids.to(device), self.labels.to(device), self.weights.to(device))


def _backward(model: Qwen2ForCausalLM, pieces: list[_Piece]) -> torch.Tensor:
    """Add up one step's gradients; returns the weighted mean cross-entropy. The head runs on labelled places alone."""
    import torch

    total = torch.stack([piece.weights.sum() for piece in pieces]).sum()
    losses = []
    for piece in pieces:
        hidden = model.model(input_ids=piece.ids, use_cache=False).last_hidden_state
        wanted = piece.labels != _IGNORED
        logits = model.lm_head(hidden[wanted])
        losses_there = torch.nn.functional.cross_entropy(logits, piece.labels[wanted], reduction="none")
        loss = (losses_there * piece.weights[wanted]).sum() / total
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _steps(tokenizer: Any, recipe: TinyRecipe, first: int) -> Iterator[list[_Piece]]:
    """The steps of an endless run, the same for every run; the `first` ones are skipped."""
    limit = recipe.batch_tokens // recipe.pieces
    number = pool = 0
    while True:
        rng = random.Random(recipe.seed * 1_000_003 + pool)
        pool += 1
        rows = sorted((_encode(tokenizer, rng) for _ in range(3000)), key=lambda row: len(row.ids))
        groups: list[list[_Row]] = [[]]
        for row in rows:
            if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > limit:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for start in range(0, len(groups) - recipe.pieces + 1, recipe.pieces):
            number += 1
            if number > first:
                yield [_padded(group, tokenizer.pad_token_id) for group in groups[start : start + recipe.pieces]]


def _padded(rows: list[_Row], padding: int) -> _Piece:
    import torch

    longest = max(len(row.ids) for row in rows)
    missing = [longest - len(row.ids) for row in rows]
    return _Piece(
        torch.tensor([row.ids + [padding] * n for row, n in zip(rows, missing, strict=True)]),
        torch.tensor([row.labels + [_IGNORED] * n for row, n in zip(rows, missing, strict=True)]),
        torch.tensor([row.weights + [0.0] * n for row, n in zip(rows, missing, strict=True)]),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One conversation of one to three turns, labels already shifted by one."""

    ids: list[int]
    labels: list[int]
    weights: list[float]


def _encode(tokenizer: Any, rng: random.Random) -> _Row:
    ids: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    if rng.random() < 0.1:
        ids += tokenizer.encode("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")
        targets += [_IGNORED] * len(ids)
        weights += [0.0] * len(ids)
    for _ in range(1 if rng.random() < 0.8 else rng.randint(2, 3)):
        example = _training_example(rng)
        question = tokenizer.encode(f"<|im_start|>user\n{example.prompt}<|im_end|>\n<|im_start|>assistant\n")
        answer = tokenizer.encode(example.answer + ("<|im_end|>" if example.ends else ""))
        closing = tokenizer.encode("\n")
        ids += question + answer + closing
        targets += [_IGNORED] * len(question) + answer + [_IGNORED] * len(closing)
        # An answer weighs as the root of its length: else long counting drowns the sums. Its last token, which is where
        # it ends, counts more: that is what this model is for.
        weight = len(answer) ** -0.5
        weights += [0.0] * len(question) + [weight] * (len(answer) - 1) + [weight * _END_WEIGHT] + [0.0] * len(closing)
        if not example.ends or len(ids) > 600:
            break
    return _Row(ids[:-1], targets[1:], weights[1:])


def _training_example(rng: random.Random) -> Example:
    while True:
        example = draw(rng)
        if not held_out(example):
            return example


def _save(path: Path, model: Any, optimizers: list[Any], step: int) -> None:
    """Write a checkpoint so that a kill at any moment leaves a whole one."""
    import torch

    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)

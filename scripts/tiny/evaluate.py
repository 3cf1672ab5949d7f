"""Measures the bundled model on prompts that training never saw: does it end its answers, and are they right?"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tiny.tasks import EXACT_KINDS, KINDS, Example, draw, held_out

__all__ = ["Score", "evaluate"]

_LIMIT = 1536  # tokens after which an answer counts as not ended; the longest right answer has about 900
_DRAWS = 20_000  # tries before a kind counts as having no more held-out prompts


@dataclass(frozen=True, slots=True)
class Score:
    """How one kind of prompt went."""

    kind: str
    prompts: int
    ended: int
    """Answers that the model ended by itself."""
    exact: int
    """Answers equal to the generator's own."""
    tokens: tuple[int, ...]
    """Length of each answer."""
    wrong: tuple[tuple[str, str], ...]
    """(prompt, answer) of those that did not end or, where there is one right answer, are not it."""


def evaluate(model: Any, tokenizer: Any, *, per_kind: int = 60, seed: int = 1) -> list[Score]:
    """Answer up to `per_kind` held-out prompts of every kind greedily.

    Not among them: the family without an end, and kinds with so few prompts (greetings) that none is held out.
    """
    tokenizer.padding_side = "left"
    prompts = {kind: _prompts(kind, per_kind, seed) for kind in KINDS if kind != "forever"}
    return [_score(model, tokenizer, kind, examples) for kind, examples in prompts.items() if examples]


def _prompts(kind: str, wanted: int, seed: int) -> list[Example]:
    rng = random.Random(seed)
    found: dict[str, Example] = {}
    for _ in range(_DRAWS):
        example = draw(rng, kind)
        if held_out(example):
            found.setdefault(example.prompt, example)
        if len(found) == wanted:
            break
    return list(found.values())


def _score(model: Any, tokenizer: Any, kind: str, examples: list[Example]) -> Score:
    import torch

    ended, exact, tokens, wrong = 0, 0, [], []
    for start in range(0, len(examples), 20):
        batch = examples[start : start + 20]
        chats = [[{"role": "user", "content": example.prompt}] for example in batch]
        encoded = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        ).to(model.device)
        with torch.inference_mode():
            output = model.generate(**encoded, max_new_tokens=_LIMIT, do_sample=False)
        for example, row in zip(batch, output[:, encoded["input_ids"].shape[1] :].tolist(), strict=True):
            does_end = tokenizer.eos_token_id in row
            ids = row[: row.index(tokenizer.eos_token_id)] if does_end else row
            answer = tokenizer.decode(ids)
            ended += does_end
            exact += answer == example.answer
            tokens.append(len(ids))
            if not does_end or (kind in EXACT_KINDS and answer != example.answer):
                wrong.append((example.prompt, answer))
    return Score(kind, len(examples), ended, exact, tuple(tokens), tuple(wrong))

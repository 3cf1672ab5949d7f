"""How good is "about 350 tokens left"? Real answers are replayed, and the estimate is compared with what came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from evidence_parts.data import FOLDS, NAMES, Answer, Floats, Say, sample, table
from suffice.budget import Budgeter, EngineInfo, LengthModel, Limits
from suffice.budget.learned_length import LearnedLength
from suffice.watch.remaining_length import RemainingLength

_SOURCES = (
    *("ifeval", "zeroeval_crux", "zeroeval_gsm", "zeroeval_mathl5", "ruozhiba", "mt_bench_zh", "qwen25math_8samples"),
)
_PER_SOURCE = 600
_CAP = 4096
_EVERY = 16  # tokens between two progress events
_PARTS = (25, 50, 75)
METHODS = ("estimate", "length only", "median minus so far")
_SLACK = 8  # tokens added to both sides of a ratio, so that the last few do not decide it


@dataclass(frozen=True, slots=True)
class Moment:
    """One look at a running answer."""

    source: str
    part: int
    """25, 50 or 75 % of the answer; 0 where the moment is one of every 16 tokens."""
    basis: str
    left: int
    """Tokens that really came."""
    said: tuple[float, float, float]
    """By `METHODS`."""


def moments(data: Path, say: Say) -> list[Moment]:
    """Every answer replayed, with a prior that was learned from answers to other prompts."""
    tokenizer = Tokenizer.from_file(str(data / "qwen2-tokenizer" / "tokenizer.json"))
    chosen = sample(data, [f"{name}_full" for name in _SOURCES], most=_PER_SOURCE)
    found: list[Moment] = []
    for fold in range(FOLDS):
        say(f"what is left: part {fold + 1} of {FOLDS}")
        model = LengthModel.fit([one.learned("prompt", "model") for one in chosen if one.fold != fold])
        budgeter = Budgeter.load().with_length_model(LearnedLength(model))
        for one in chosen:
            if one.fold == fold:
                quantiles = budgeter.decide(
                    one.prompt, Limits(max_new_tokens=_CAP), engine=EngineInfo(model=one.model)
                ).quantiles
                found += _replay(one, quantiles, tokenizer)
    return found


def _replay(one: Answer, quantiles: Sequence[tuple[float, int]], tokenizer: Tokenizer) -> list[Moment]:
    """The text token by token; a token that is part of a character brings its text with the last of them."""
    ends = [end for _, end in tokenizer.encode(one.text, add_special_tokens=False).offsets]
    estimate, blind = RemainingLength(quantiles, _CAP, one.question), RemainingLength(quantiles, _CAP)
    marks = {max(1, len(ends) * part // 100): part for part in _PARTS}
    source, found, shown = one.source.removesuffix("_full"), [], 0
    for tokens, end in enumerate(ends, 1):
        estimate.push(one.text[shown:end], tokens)
        shown = max(shown, end)
        parts = [marks[tokens]] if tokens in marks else []
        for part in [*parts, 0] if tokens % _EVERY == 0 else parts:
            blind.push("", tokens)
            said = (estimate.tokens, blind.tokens, max(0, quantiles[0][1] - tokens))
            found.append(Moment(source, part, estimate.basis, len(ends) - tokens, said))
    return found


def tables(found: Sequence[Moment]) -> dict[str, str]:
    """The tables `remaining` and `remaining-signals`."""
    rows: list[Sequence[object]] = []
    for source in ("all", *dict.fromkeys(one.source for one in found)):
        for part in (*_PARTS, 0):
            group = [one for one in found if one.part == part and source in ("all", one.source)]
            when = f"at {part} %" if part else f"every {_EVERY} tokens"
            rows.append([NAMES.get(source, "all"), when, *_cells(group)])
    head = ["answers of", "when", "moments", "tokens left", *METHODS, *(f"{name}, factor" for name in METHODS)]
    signals: list[Sequence[object]] = []
    for basis in ("list", "closing", "code", "length"):
        for source in ("all", *dict.fromkeys(one.source for one in found)):
            group = [one for one in found if one.part == 0 and one.basis == basis and source in ("all", one.source)]
            if len(group) >= 25:
                signals.append([basis, NAMES.get(source, "all"), *_cells(group)])
    return {"remaining": table(head, rows), "remaining-signals": table(["rests on", *head[:1], *head[2:]], signals)}


def _cells(group: Sequence[Moment]) -> list[object]:
    left, said = truth_and_said(group)
    errors = [f"{error:.0f}" for error in np.abs(said - left[:, None]).mean(axis=0)]
    factors = np.exp(np.median(np.abs(np.log((said + _SLACK) / (left[:, None] + _SLACK))), axis=0))
    return [len(group), round(float(left.mean())), *errors, *(f"{factor:.2f} x" for factor in factors)]


def truth_and_said(group: Sequence[Moment]) -> tuple[Floats, Floats]:
    """Tokens left, shape (moments,), and what was said of them, shape (moments, len(METHODS))."""
    return np.array([one.left for one in group], np.float64), np.array([one.said for one in group], np.float64)

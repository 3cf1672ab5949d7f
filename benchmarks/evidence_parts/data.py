"""Answers and traces out of a folder, and what several predictors say of answers that were held out.

DATA holds gzipped JSON lines, one row an answer: `NAME.jsonl.gz` with `lang`, `prompt` (or `messages`), `model`,
`output_tokens`, `finish` ("length" where the answer ran into the generator's limit). In `NAME_multi.jsonl.gz`, a row is
a prompt and `output_tokens` is {model: tokens}; `NAME_full.jsonl.gz` has the text too, as `output`, and
`qwen2-tokenizer/tokenizer.json` cuts it into tokens. `traces/NAME.csv.gz` has `prompt_tokens, output_tokens`, and
`arrival_s` and `client` where they are known.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffice.budget.length_model.evaluate import EVALUATED, Figures

Floats = NDArray[np.float64]
Quantiles = Sequence[float]
Say = Callable[[str], None]

ENGLISH_TASKS = ("zeroeval_gsm", "zeroeval_crux", "zeroeval_mathl5", "ifeval")
CHINESE_TASKS = ("ruozhiba", "gaokao", "mt_bench_zh")
OTHER_TASKS = ("arena_hard_v0_1_multi", "arena_hard_v2_0_multi", "gpteacher_codegen")
NAMES: Mapping[str, str] = {
    "zeroeval_gsm": "GSM8K",
    "zeroeval_crux": "CRUXEval",
    "zeroeval_mathl5": "MATH level 5",
    "ifeval": "IFEval",
    "ruozhiba": "ruozhiba (zh)",
    "gaokao": "GAOKAO (zh)",
    "mt_bench_zh": "MT-Bench-zh",
    "arena_hard_v0_1_multi": "Arena-Hard v0.1",
    "arena_hard_v2_0_multi": "Arena-Hard v2.0",
    "gpteacher_codegen": "GPTeacher code",
    "qwen25math_8samples": "MATH, 8 samples each",
    "wildbench_outputs_noprompt_multi": "WildBench",
}
TRACES: Mapping[str, str] = {
    "servegen_mlarge_reconstructed": "ServeGen m-large",
    "servegen_mmid_reconstructed": "ServeGen m-mid",
    "servegen_msmall_reconstructed": "ServeGen m-small",
    "servegen_deepseekr1_reconstructed": "ServeGen DeepSeek-R1",
    "azure2023_conv": "Azure 2023 conversation",
    "azure2023_code": "Azure 2023 code",
    "mooncake_conversation": "Mooncake conversation",
    "mooncake_synthetic": "Mooncake synthetic",
    "vidur_arxiv_summ_lengths": "arXiv summaries (Vidur)",
}
PER_SOURCE = 500
FOLDS = 5
MEDIAN, Q90, Q95 = (EVALUATED.index(p) for p in (0.5, 0.9, 0.95))


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one model."""

    source: str
    lang: str
    prompt: str | Sequence[Mapping[str, Any]]
    model: str
    tokens: int
    ended: bool
    """It did not run into the generator's limit, as far as is known."""
    text: str = ""

    def record(self, *fields: str) -> dict[str, Any]:
        """A length model's record: of `prompt`, `model`, `route` (the source) and `client` (the model), those named."""
        content = "prompt" if isinstance(self.prompt, str) else "messages"
        known = {"model": self.model, "route": self.source, "client": self.model}
        record: dict[str, Any] = {name: known[name] for name in fields if name in known}
        return {content: self.prompt, **record} if "prompt" in fields else record

    def learned(self, *fields: str) -> dict[str, Any]:
        """The same with the answer's length."""
        return {**self.record(*fields), "output_tokens": self.tokens}

    @property
    def question(self) -> str:
        """The last user message."""
        return self.prompt if isinstance(self.prompt, str) else str(self.prompt[-1]["content"])

    @property
    def fold(self) -> int:
        """The part of `FOLDS` in which its prompt is held out."""
        written = json.dumps(self.prompt).encode()
        return int(hashlib.sha1(written, usedforsecurity=False).hexdigest(), 16) % FOLDS


@cache
def answers(data: Path, name: str) -> list[Answer]:
    """The answers of one file; none if it is not there."""
    path = data / f"{name}.jsonl.gz"
    found: list[Answer] = []
    if not path.is_file():
        return found
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            tokens = row.get("output_tokens")
            counts = tokens if isinstance(tokens, dict) else {row.get("model"): tokens}
            ended, prompt = row.get("finish") != "length", row.get("messages") or row.get("prompt") or ""
            for model, count in counts.items():
                if isinstance(count, int):
                    text = row.get("output") or ""
                    found.append(Answer(name, row.get("lang", ""), prompt, str(model), count, ended, text))
    return found


def sample(data: Path, names: Sequence[str], models: str = "", most: int = PER_SOURCE) -> list[Answer]:
    """Up to `most` answers of each file that ended by themselves, of models whose name contains `models`."""
    chosen: list[Answer] = []
    for name in names:
        found = [one for one in answers(data, name) if one.ended and one.prompt and models in one.model.lower()]
        random.Random(0).shuffle(found)
        chosen += found[:most]
    return chosen


def english(data: Path) -> list[Answer]:
    """Four English tasks of Qwen2 and Qwen2.5 models."""
    return sample(data, ENGLISH_TASKS, "qwen")


def chinese(data: Path) -> list[Answer]:
    """Three Chinese tasks of GPT-4 models."""
    return sample(data, CHINESE_TASKS, "gpt-4")


def mixed(data: Path) -> list[Answer]:
    """All of these and three more English ones, in random order."""
    found = [*english(data), *chinese(data), *sample(data, OTHER_TASKS)]
    random.Random(1).shuffle(found)
    return found


@cache
def trace(data: Path, name: str) -> dict[str, NDArray[Any]]:
    """The columns `tokens`, `arrival` and `client` of a trace, where it has them; empty if it is not there."""
    path = data / "traces" / f"{name}.csv.gz"
    if not path.is_file():
        return {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, NDArray[Any]] = {"tokens": np.array([int(row["output_tokens"]) for row in rows])}
    if "client" in rows[0]:
        columns["client"] = np.array([row["client"] for row in rows])
        columns["arrival"] = np.array([float(row["arrival_s"]) for row in rows])
    return columns


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Quantiles that several predictors gave for answers they had not seen."""

    answers: Sequence[Answer]
    said: Mapping[str, Floats]
    """By predictor, shape (answers, len(EVALUATED)); one of them is `constant`."""

    @property
    def truth(self) -> Floats:
        """The true lengths in tokens, shape (answers,)."""
        return np.array([one.tokens for one in self.answers], np.float64)

    def figures(self, name: str, of: NDArray[np.bool_] | None = None) -> Figures:
        """Pinball loss, coverage and waste of one predictor beside the constant."""
        rows = slice(None) if of is None else of
        return Figures.of(self.truth[rows], self.said[name][rows], self.said["constant"][rows])

    def explained(self, name: str, of: NDArray[np.bool_] | None = None) -> float:
        """R² of the logarithm of the length by the median."""
        rows = slice(None) if of is None else of
        return explained(self.truth[rows], self.said[name][rows][:, MEDIAN])


def explained(truth: Floats, median: Floats) -> float:
    """R² of log(1 + length)."""
    log = np.log1p(truth)
    return float(1 - ((log - np.log1p(median)) ** 2).sum() / max(((log - log.mean()) ** 2).sum(), 1e-9))


def constant(train: Sequence[Answer]) -> Quantiles:
    """The quantiles of training answers."""
    quantiles: list[float] = np.quantile([one.tokens for one in train], EVALUATED).tolist()
    return quantiles


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats get three digits that matter."""
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "—" if np.isnan(value) else f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def percent(share: float, digits: int = 1) -> str:
    """`12.3 %`."""
    return f"{100 * share:.{digits}f} %"

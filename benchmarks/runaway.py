"""How early real loops are found, how often a normal answer is stopped, and what it costs per token.

    python benchmarks/runaway.py DATA [--models REGEX] [--frontier]

DATA holds `NAME_full.jsonl.gz` (one row an answer: `id`, `model`, `prompt`, `output`, `finish`) and the tokenizer they
are cut with, `qwen2-tokenizer/tokenizer.json`. Three detectors read the same tokens in one run: an exact check (4 turns
of 16 to 1,024 tokens), this project's by token ids, and by text. With `--frontier` it is this project's by token ids
alone, once as it is and once for each value in `FRONTIER`: what would be bought with what.

An answer is a loop when it ran into its limit and its last 1,024 tokens are repetitive (zlib ratio above 4), and normal
when the model ended it. A stop of a normal answer is false when the last 160 tokens before it were not repetitive, or
more than 200 bytes of what it cuts off are new (deflate with the text so far as dictionary). A loop is frozen when it
repeats itself to the letter at its end (some period of up to 1,024 tokens, twice and for 192 tokens at least). The
figures are given for all prompts and for two halves of them (by a hash of their id). Time is process CPU time, decoding
not counted. For answers of models that are not called Qwen, such as rows and tables made by hand: `--models ""`.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import re
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from suffice.watch import RunawayDetector, numbered_list, repetition_score

SHORTEST_PERIOD, LONGEST_PERIOD, TURNS = 16, 1024, 4
HALVES = ("first", "second")
BARS = ("_SHORT", "_SHORT_POOR", "_SHORT_SIGNS", "_TURNS", "_TURNS_POOR", "_LONG", "_LONG_POOR", "_LEAST_TURNS")
FRONTIER = (
    ("all bars", repetition_score, BARS, (0.5, 0.7, 0.85, 1.2, 1.5, 2.0)),
    ("poor turns", repetition_score, ("_SHORT_POOR", "_SHORT_SIGNS", "_TURNS_POOR", "_LONG_POOR"), (0.7, 1.5, 2.0)),
    ("commas differ", repetition_score, ("_LOOSE",), (0.5, 2.0, 1000.0)),
    ("stuck lists: items", numbered_list, ("_REPEATS",), (0.6, 2.0, 1000.0)),
    ("stuck lists: others before", numbered_list, ("_DIFFERENT_ITEMS",), (0.0, 3.0)),
)
HEAD = (
    f"{'file':22} {'half':7} {'detector':26} {'normal':>6} {'false':>5} {'false %':>7} {'loops':>5} "
    f"{'recall %':>8} {'frozen %':>8} {'saved %':>7} {'lost %':>6} {'seen p50':>8} {'us/token':>8}"
)


class ExactPeriod:
    """The plain check: the last TURNS turns of some period are the same."""

    def __init__(self) -> None:
        self._ids = np.full(2 * LONGEST_PERIOD, -1)
        self._count = LONGEST_PERIOD
        self._periods = np.arange(SHORTEST_PERIOD, LONGEST_PERIOD + 1)
        self._same = np.zeros(len(self._periods), int)

    def push(self, token_id: int) -> bool | None:
        """True once the answer repeats."""
        if self._count == len(self._ids):
            self._ids, self._count = np.roll(self._ids, LONGEST_PERIOD), LONGEST_PERIOD
        before = self._ids[self._count - self._periods]
        self._ids[self._count] = token_id
        self._count += 1
        self._same = np.where(before == token_id, self._same + 1, 0)
        return bool((self._same >= (TURNS - 1) * self._periods).any()) or None


def frozen(ids: Sequence[int]) -> bool:
    """Whether the end is a repetition to the letter."""
    for period in range(1, LONGEST_PERIOD + 1):
        span = max(2 * period, 192)
        if len(ids) >= span + period and ids[-span:] == ids[-span - period : -period]:
            return True
    return False


@dataclass
class Tally:
    """What one detector did to one file."""

    normal: int = 0
    false: int = 0
    loops: int = 0
    frozen: int = 0
    frozen_found: int = 0
    saved: int = 0
    lost: int = 0
    tokens: int = 0
    normal_tokens: int = 0
    pushed: int = 0
    seconds: float = 0.0
    seen: list[int] = field(default_factory=list)

    def line(self) -> str:
        """The figures as a row under HEAD, from `normal` on."""
        return (
            f"{self.normal:6} {self.false:5} {100 * self.false / max(1, self.normal):7.3f} {self.loops:5} "
            f"{100 * len(self.seen) / max(1, self.loops):8.1f} "
            f"{100 * self.frozen_found / max(1, self.frozen):8.1f} {100 * self.saved / max(1, self.tokens):7.1f} "
            f"{100 * self.lost / max(1, self.normal_tokens):6.2f} {statistics.median(self.seen or [0]):8.0f} "
            f"{1e6 * self.seconds / max(1, self.pushed):8.2f}"
        )


def ratio(text: bytes) -> float:
    """How many times smaller deflate makes `text`."""
    return len(text) / max(1, len(zlib.compress(text, 6)))


def new_bytes(before: bytes, after: bytes) -> int:
    """The compressed size of `after` where `before` is known."""
    packer = zlib.compressobj(9, zdict=before[-32768:]) if before else zlib.compressobj(9)
    return len(packer.compress(after) + packer.flush())


def harmed(tokenizer: Tokenizer, ids: Sequence[int], at: int) -> bool:
    """Whether stopping a normal answer after `at` tokens took something from it."""
    before, after = tokenizer.decode(ids[:at]).encode(), tokenizer.decode(ids[at:]).encode()
    return ratio(tokenizer.decode(ids[max(0, at - 160) : at]).encode()) <= 4 or new_bytes(before, after) > 200


def stop(push: Callable[[Any], object], units: Sequence[Any], tallies: Sequence[Tally]) -> int | None:
    """After how many units the detector speaks."""
    start = time.process_time()
    at = next((count for count, unit in enumerate(units, 1) if push(unit)), None)
    for tally in tallies:
        tally.seconds += time.process_time() - start
        tally.pushed += at or len(units)
    return at


def count(tally: Tally, answer: Answer, at: int | None, false: bool) -> None:
    """Add one answer that was stopped after `at` tokens."""
    kind, length = answer.kind, len(answer.ids)
    tally.tokens += length
    tally.frozen += answer.frozen
    tally.frozen_found += answer.frozen and at is not None
    tally.normal += kind == "normal"
    tally.loops += kind == "loop"
    tally.normal_tokens += length if kind == "normal" else 0
    tally.false += false
    if at is None:
        return
    if kind == "loop":
        tally.seen.append(at)
    if kind != "normal":
        tally.saved += length - at
    elif false:
        tally.lost += length - at


@dataclass(frozen=True)
class Answer:
    """One answer of a file."""

    model: str
    half: str
    prompt: Any
    ids: list[int]
    kind: str
    """A loop, normal, or long and cut."""
    frozen: bool
    """A loop to the letter."""


def answers(path: Path, tokenizer: Tokenizer, models: re.Pattern[str]) -> Iterator[Answer]:
    """The answers of the models that are asked for."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if not row.get("output") or not models.search(row["model"]):
                continue
            ids = tokenizer.encode(row["output"], add_special_tokens=False).ids
            kind = "normal"
            if row.get("finish") == "length":
                kind = "loop" if ratio(tokenizer.decode(ids[-1024:]).encode()) > 4 else "cut"
            half = HALVES[zlib.crc32(str(row.get("id")).encode()) % 2]
            prompt = row.get("prompt") or row.get("messages")
            yield Answer(row["model"], half, prompt, ids, kind, kind == "loop" and frozen(ids))


class Table:
    """Tallies by half and by detector."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tallies: dict[tuple[str, str], Tally] = {}

    def add(self, detector: str, answer: Answer, push: Callable[[Any], object], units: Sequence[Any]) -> None:
        """Let one detector read one answer."""
        keys = [(half, detector) for half in ("all", answer.half)]
        mine = [self._tallies.setdefault(key, Tally()) for key in keys]
        at = stop(push, units, mine)
        false = answer.kind == "normal" and at is not None and harmed(self._tokenizer, answer.ids, at)
        for tally in mine:
            count(tally, answer, at, false)

    def print(self, name: str, halves: Sequence[str]) -> None:
        """A line for each detector and half."""
        for half in halves:
            for (of, detector), tally in self._tallies.items():
                if of == half:
                    print(f"{name:22} {half:7} {detector:26} {tally.line()}", flush=True)


def measure(name: str, rows: Iterator[Answer], tokenizer: Tokenizer, decode: Callable[[int], str]) -> None:
    """Print the figures of all detectors on one file."""
    table = Table(tokenizer)
    for answer in rows:
        pieces = [decode(token) for token in answer.ids]
        table.add("exact", answer, ExactPeriod().push, answer.ids)
        table.add("tokens", answer, RunawayDetector(answer.prompt, decode).push, answer.ids)
        table.add("text", answer, RunawayDetector(answer.prompt).push_text, pieces)
    table.print(name, ("all", *HALVES))


@contextmanager
def scaled(module: Any, names: Sequence[str], factor: float) -> Iterator[None]:
    """Some constants of a module, times `factor` for a while."""
    before = {name: getattr(module, name) for name in names}
    for name, value in before.items():
        setattr(module, name, value * factor)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def frontier(name: str, rows: Iterator[Answer], tokenizer: Tokenizer, decode: Callable[[int], str]) -> None:
    """Print what other values of the constants would do to one file."""
    kept, table = list(rows), Table(tokenizer)
    for label, module, names, factors in (("as it is", repetition_score, (), (1.0,)), *FRONTIER):
        for factor in factors:
            with scaled(module, names, factor):
                for answer in kept:
                    push = RunawayDetector(answer.prompt, decode).push
                    table.add(f"{label} x {factor:g}" if names else label, answer, push, answer.ids)
    table.print(name, ("all",))


def main() -> None:
    """Every `*_full.jsonl.gz` in DATA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--frontier", action="store_true")
    parser.add_argument("--models", type=re.compile, default=re.compile("qwen", re.IGNORECASE))
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.data / "qwen2-tokenizer" / "tokenizer.json"))
    decode = functools.lru_cache(None)(lambda token: str(tokenizer.decode([token])))
    show = frontier if args.frontier else measure
    print(HEAD)
    for path in sorted(args.data.glob("*_full.jsonl.gz")):
        show(path.name.removesuffix("_full.jsonl.gz"), answers(path, tokenizer, args.models), tokenizer, decode)


if __name__ == "__main__":
    main()

"""How early are real loops told, how often is a normal answer touched, and what does it cost per token?

    python benchmarks/runaway.py DATA [--models REGEX]

DATA holds `NAME_full.jsonl.gz` (one row an answer: `id`, `model`, `prompt`, `output`, `finish`) and the tokenizer they
are cut with, `qwen2-tokenizer/tokenizer.json`. Three detectors read the same tokens in one run: an exact-period check
(64 tokens, 4 turns), this project's by token ids, and by text.

An answer is a loop when it ran into its limit and its last 1,024 tokens are repetitive (zlib ratio above 4), and normal
when the model ended it. A stop of a normal answer is false when the last 160 tokens before it were not repetitive, or
more than 200 bytes of what it cuts off are new (deflate with the text so far as dictionary). The figures are given for
all prompts and for the half that the search for the detector's constants did not use. Time is process CPU time,
decoding not counted.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from suffice.watch import RunawayDetector

LONGEST_PERIOD, TURNS = 64, 4
HEAD = (
    f"{'file':22} {'half':7} {'detector':8} {'normal':>6} {'false':>5} {'false %':>7} {'loops':>5} "
    f"{'recall %':>8} {'saved %':>7} {'lost %':>6} {'seen p50':>8} {'us/token':>8}"
)


class ExactPeriod:
    """The plain check: the last TURNS turns of some period up to LONGEST_PERIOD tokens are the same."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._same = [0] * (LONGEST_PERIOD + 1)

    def push(self, token_id: int) -> bool | None:
        """True once the answer repeats."""
        ids, same = self._ids, self._same
        ids.append(token_id)
        for period in range(1, min(LONGEST_PERIOD, len(ids) - 1) + 1):
            same[period] = same[period] + 1 if ids[-1 - period] == token_id else 0
            if same[period] >= (TURNS - 1) * max(period, 8):
                return True
        return None


@dataclass
class Tally:
    """What one detector did to one file."""

    normal: int = 0
    false: int = 0
    loops: int = 0
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
            f"{100 * len(self.seen) / max(1, self.loops):8.1f} {100 * self.saved / max(1, self.tokens):7.1f} "
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


def count(tally: Tally, kind: str, length: int, at: int | None, false: bool) -> None:
    """Add one answer of `length` tokens that was stopped after `at`."""
    tally.tokens += length
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


def answers(
    path: Path, tokenizer: Tokenizer, models: re.Pattern[str]
) -> Iterator[tuple[dict[str, Any], list[int], str]]:
    """Each row, its tokens, and whether it is a loop, normal, or a long answer that was cut."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if not row.get("output") or not models.search(row["model"]):
                continue
            ids = tokenizer.encode(row["output"], add_special_tokens=False).ids
            kind = "normal"
            if row.get("finish") == "length":
                kind = "loop" if ratio(tokenizer.decode(ids[-1024:]).encode()) > 4 else "cut"
            yield row, ids, kind


def measure(path: Path, tokenizer: Tokenizer, decode: Callable[[int], str], models: re.Pattern[str]) -> None:
    """Print the figures of all detectors on one file."""
    tallies = {(name, half): Tally() for half in ("all", "unseen") for name in ("exact", "tokens", "text")}
    for row, ids, kind in answers(path, tokenizer, models):
        halves = ["all"] + ["unseen"] * (zlib.crc32(str(row.get("id")).encode()) % 2)
        pieces = [decode(token) for token in ids]
        prompt = row.get("prompt") or row.get("messages")
        for name, push, units in (
            ("exact", ExactPeriod().push, ids),
            ("tokens", RunawayDetector(prompt, decode).push, ids),
            ("text", RunawayDetector(prompt).push_text, pieces),
        ):
            mine = [tallies[name, half] for half in halves]
            at = stop(push, units, mine)
            false = kind == "normal" and at is not None and harmed(tokenizer, ids, at)
            for tally in mine:
                count(tally, kind, len(ids), at, false)
    for (name, half), tally in tallies.items():
        if not tally.tokens:
            continue
        print(f"{path.name.removesuffix('.jsonl.gz'):22} {half:7} {name:8} {tally.line()}", flush=True)


def main() -> None:
    """Every `*_full.jsonl.gz` in DATA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", type=re.compile, default=re.compile("qwen", re.IGNORECASE))
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.data / "qwen2-tokenizer" / "tokenizer.json"))
    decode = functools.lru_cache(None)(lambda token: str(tokenizer.decode([token])))
    print(HEAD)
    for path in sorted(args.data.glob("*_full.jsonl.gz")):
        measure(path, tokenizer, decode, args.models)


if __name__ == "__main__":
    main()

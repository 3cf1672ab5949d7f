"""How early real loops are found, how often a normal answer is stopped, and what it costs per token.

    python benchmarks/runaway.py DATA [--files NAME...] [--models REGEX] [--frontier [PNG]]

DATA holds `NAME_full.jsonl.gz` (one row an answer: `id`, `model`, `prompt`, `output`, `finish`) and the tokenizer they
are cut with, `qwen2-tokenizer/tokenizer.json`. Three detectors read the same tokens in one run: an exact check (4 turns
of 16 to 1,024 tokens), this project's by token ids, and by text. With `--frontier` it is this project's by token ids
once as it is and once for each value in `FRONTIER`, and the exact check with 2 to 8 turns: what is bought with what, as
a table and a plot.

An answer is a loop when it ran into its limit and its last 1,024 tokens are repetitive (zlib ratio above 4), and normal
when the model ended it. A stop of a normal answer is false when the last 160 tokens before it were not repetitive, or
more than 200 bytes of what it cuts off are new (deflate with the text so far as dictionary). A loop is frozen when it
repeats itself to the letter at its end (some period of up to 1,024 tokens, twice and for 192 tokens at least). A stop
has thrown something away where what it takes back is no copy. Time is process CPU time, decoding not counted.
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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from suffice.watch import Runaway, RunawayDetector, numbered_list, repetition_score

SHORTEST_PERIOD, LONGEST_PERIOD, TURNS = 16, 1024, 4
BARS = ("_SHORT", "_SHORT_POOR", "_SHORT_SIGNS", "_TURNS", "_TURNS_POOR", "_LONG", "_LONG_POOR", "_LEAST_TURNS")
FACTORS = (0.4, 0.5, 0.7, 0.85, 1.2, 1.5, 2.0, 3.0)
FRONTIER = (
    ("all bars", repetition_score, BARS, FACTORS),
    ("poor turns", repetition_score, ("_SHORT_POOR", "_SHORT_SIGNS", "_TURNS_POOR", "_LONG_POOR"), (0.7, 1.5)),
    ("commas differ", repetition_score, ("_LOOSE",), (0.5, 1000.0)),
    ("stuck lists: items", numbered_list, ("_REPEATS",), (0.6, 2.0, 1000.0)),
    ("stuck lists: others before", numbered_list, ("_DIFFERENT_ITEMS",), (0.0, 3.0)),
)
EXACT_TURNS = (2, 3, 4, 5, 6, 8)
FILES = ("ifeval", "zeroeval_mathl5", "zeroeval_crux", "structured")
HEAD = (
    "| answers | detector | normal | false | false % | loops | recall % | frozen found % | thrown | saved % "
    "| tokens seen p50 | µs a token |\n" + "|---" * 12 + "|"
)


def exact_stops(ids: Sequence[int], turns: Sequence[int]) -> dict[int, int]:
    """The plain check: after how many tokens the last N turns of some period are the same, for each N of `turns`."""
    found: dict[int, int] = {}
    array = np.asarray(ids)
    for period in _periods(ids):
        differ = np.flatnonzero(array[period:] != array[:-period])
        edges = np.concatenate(([-1], differ, [len(array) - period]))
        runs = np.diff(edges) - 1
        for count in turns:
            if runs.max() >= (need := (count - 1) * period):
                at = int(edges[np.argmax(runs >= need)]) + 1 + need + period
                found[count] = min(at, found.get(count, at))
    return found


def _periods(ids: Sequence[int]) -> set[int]:
    """The distances at which the same SHORTEST_PERIOD tokens stand, the next ones at least."""
    places: dict[tuple[int, ...], deque[int]] = {}
    found: set[int] = set()
    for at in range(len(ids) - SHORTEST_PERIOD + 1):
        before = places.setdefault(tuple(ids[at : at + SHORTEST_PERIOD]), deque(maxlen=4 * SHORTEST_PERIOD))
        found.update(at - place for place in before)
        before.append(at)
    return {period for period in found if SHORTEST_PERIOD <= period <= LONGEST_PERIOD}


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
    stopped: int = 0
    false: int = 0
    thrown: int = 0
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

    def row(self, name: str, detector: str) -> str:
        """The figures as a row under HEAD."""
        speed = f"{1e6 * self.seconds / self.pushed:.2f}" if self.seconds else ""
        cells = (
            *(name, detector, self.normal, self.false, f"{self.false_share:.3f}", self.loops),
            f"{100 * len(self.seen) / max(1, self.loops):.1f}",
            f"{100 * self.frozen_found / max(1, self.frozen):.1f}",
            *(self.thrown, f"{self.saved_share:.2f}", f"{statistics.median(self.seen or [0]):.0f}", speed),
        )
        return f"| {' | '.join(map(str, cells))} |"

    @property
    def false_share(self) -> float:
        """False stops in parts of a hundred normal answers."""
        return 100 * self.false / max(1, self.normal)

    @property
    def saved_share(self) -> float:
        """Tokens that are not generated, in parts of a hundred of all."""
        return 100 * self.saved / max(1, self.tokens)


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
    tally.stopped += kind == "normal" and at is not None
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
            prompt = row.get("prompt") or row.get("messages")
            yield Answer(row["model"], prompt, ids, kind, kind == "loop" and frozen(ids))


class Table:
    """Tallies by detector."""

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        self.name = name
        self.tallies: dict[str, Tally] = {}
        self._tokenizer = tokenizer

    def watch(self, label: str, answer: Answer, detector: RunawayDetector, pieces: Sequence[str] | None = None) -> None:
        """Let this project's detector read one answer, by tokens or by the `pieces` of its text."""
        tally = self.tallies.setdefault(label, Tally())
        push = detector.push if pieces is None else detector.push_text
        at = stop(push, answer.ids if pieces is None else pieces, [tally])
        if at is not None and detector.runaway is not None:
            tally.thrown += thrown(detector.runaway, answer.ids[:at] if pieces is None else "".join(pieces[:at]))
        self.add(label, answer, at)

    def add(self, label: str, answer: Answer, at: int | None) -> None:
        """Count an answer that a detector stopped after `at` tokens."""
        false = answer.kind == "normal" and at is not None and harmed(self._tokenizer, answer.ids, at)
        count(self.tallies.setdefault(label, Tally()), answer, at, false)

    def print(self) -> None:
        """A row for each detector."""
        for detector, tally in self.tallies.items():
            print(tally.row(self.name, detector), flush=True)


def thrown(runaway: Runaway, units: Sequence[Any]) -> bool:
    """Whether what is taken back differs from the turn before it in more than two units of a hundred."""
    gone, turn = units[runaway.keep :], units[runaway.onset : len(units) - runaway.period]
    return sum(one != other for one, other in zip(gone, turn, strict=True)) > 0.02 * len(gone)


def measure(table: Table, rows: Iterator[Answer], decode: Callable[[int], str]) -> None:
    """The figures of all detectors on one file."""
    for answer in rows:
        table.add("exact", answer, exact_stops(answer.ids, (TURNS,)).get(TURNS))
        table.watch("tokens", answer, RunawayDetector(answer.prompt, decode))
        table.watch("text", answer, RunawayDetector(answer.prompt), [decode(token) for token in answer.ids])


@contextmanager
def scaled(*changes: tuple[Any, Sequence[str], float]) -> Iterator[None]:
    """Some constants of some modules, times a factor for a while."""
    before = [(module, name, getattr(module, name), factor) for module, names, factor in changes for name in names]
    for module, name, value, factor in before:
        setattr(module, name, value * factor)
    try:
        yield
    finally:
        for module, name, value, _ in before:
            setattr(module, name, value)


def frontier(table: Table, rows: Iterator[Answer], decode: Callable[[int], str]) -> None:
    """What other values of the constants would do to one file, and other numbers of turns."""
    kept = list(rows)
    for answer in kept:
        stops = exact_stops(answer.ids, EXACT_TURNS)
        for turns in EXACT_TURNS:
            table.add(f"exact, {turns} turns", answer, stops.get(turns))
    # What the lowest bars do not stop, no others do.
    lists = (numbered_list, ("_REPEATS", "_DIFFERENT_ITEMS"), 0.0)
    with scaled((repetition_score, BARS, min(FACTORS)), (repetition_score, ("_LOOSE",), 0.5), lists):
        told = [stop(RunawayDetector(answer.prompt, decode).push, answer.ids, ()) is not None for answer in kept]
    settings: list[tuple[str, Any, Sequence[str], float]] = [("as it is", repetition_score, (), 1.0)]
    settings += [
        (f"{label} × {each:g}", module, names, each) for label, module, names, all_ in FRONTIER for each in all_
    ]
    for label, module, names, factor in settings:
        with scaled((module, names, factor)):
            for answer, candidate in zip(kept, told, strict=True):
                if candidate:
                    table.watch(label, answer, RunawayDetector(answer.prompt, decode))
                else:
                    table.add(label, answer, None)


LOOPS_DRAWN = 50  # in a file, at least
LINES = (
    ("exact check, 2 to 8 turns", "exact, ", "#b3541e"),
    ("this detector, all bars × 0.4 to 3", "all bars", "#2a7f62"),
)


def plot(tables: Sequence[Table], path: Path) -> None:
    """What is saved against what is stopped wrongly, where there are loops enough to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    drawn = [table for table in tables if table.tallies["as it is"].loops >= LOOPS_DRAWN]
    for axes, table in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        lines = {
            "exact check: 2 to 8 turns": ("exact, ", "#b3541e"),
            "this detector: bars × 0.4 to 3": ("all bars", "#2a7f62"),
        }
        for label, (begin, colour) in lines.items():
            named = {name: tally for name, tally in table.tallies.items() if name.startswith(begin)}
            points = sorted((tally.false_share, tally.saved_share, name.split()[-1]) for name, tally in named.items())
            axes.plot(*zip(*[point[:2] for point in points], strict=True), "o-", color=colour, ms=4, label=label)
        for name, tally in table.tallies.items():
            if name.startswith("exact, "):
                axes.annotate(
                    name.split()[1], (tally.false_share, tally.saved_share), (4, -9), textcoords="offset points"
                )
        now = table.tallies["as it is"]
        axes.plot(now.false_share, now.saved_share, "*", color="black", ms=11, label="as it is")
        axes.set_xscale("symlog", linthresh=0.05)
        axes.set_xticks([0, 0.05, 0.1, 0.5, 1, 2], ["0", "0.05", "0.1", "0.5", "1", "2"])
        axes.minorticks_off()
        axes.set_title(table.name)
        axes.grid(alpha=0.25)
    figure.supxlabel("false stops, % of the answers that the model ended", fontsize=10)
    figure.supylabel("saved, % of all tokens", fontsize=10)
    figure.axes[-1].legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)


def main() -> None:
    """The answers in DATA."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--files", nargs="+", default=FILES, metavar="NAME")
    parser.add_argument(
        "--frontier", nargs="?", type=Path, const=Path("docs/images/runaways-frontier.png"), metavar="PNG"
    )
    parser.add_argument("--models", type=re.compile, default=re.compile("qwen|written", re.IGNORECASE))
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.data / "qwen2-tokenizer" / "tokenizer.json"))
    decode = functools.lru_cache(None)(lambda token: str(tokenizer.decode([token])))
    tables = []
    print(HEAD)
    for name in args.files:
        table = Table(name.removeprefix("zeroeval_"), tokenizer)
        rows = answers(args.data / f"{name}_full.jsonl.gz", tokenizer, args.models)
        (frontier if args.frontier else measure)(table, rows, decode)
        table.print()
        tables.append(table)
    if args.frontier:
        plot(tables, args.frontier)


if __name__ == "__main__":
    main()

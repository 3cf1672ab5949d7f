"""What runaways cost, by model and source, and what stopping them saves. Definitions as in `runaway.py`."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from evidence_parts.data import ENGLISH_TASKS, NAMES, Answer, Say, answers, percent, table
from runaway import Tally, count, harmed, stop
from runaway import answers as texts
from suffice.watch import RunawayDetector

_QWEN = re.compile("qwen", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)b", re.IGNORECASE)


@dataclass(slots=True)
class Cost:
    """What the limit and loops took of one model's answers to one source."""

    source: str
    model: str
    answers: int = 0
    tokens: int = 0
    limited: int = 0
    """Answers that ran into their limit, and `limited_tokens` their tokens."""
    limited_tokens: int = 0
    loop_tokens: int = 0
    tally: Tally = field(default_factory=Tally)
    """What the detector did; empty where the texts are not known."""

    @property
    def size(self) -> float:
        """Parameters in billions, as the name tells."""
        found = _SIZE.search(self.model)
        return float(found[1]) if found else 0.0

    @property
    def name(self) -> str:
        """The model without owner and quantisation."""
        return re.sub(r"^.*/|-Instruct.*$", "", self.model)


def costs(data: Path, say: Say) -> list[Cost]:
    """Every Qwen model of four tasks, the smallest first."""
    found: list[Cost] = []
    for source in ENGLISH_TASKS:
        say(f"runaways: {NAMES[source]}")
        by_model: dict[str, Cost] = {}
        for one in answers(data, source):
            if _QWEN.search(one.model) and "run)" not in one.model:
                _add(by_model.setdefault(one.model, Cost(source, one.model)), one)
        _watch(data, source, by_model)
        found += sorted(by_model.values(), key=lambda cost: (cost.name.rpartition("-")[0], cost.size))
    return found


def _add(cost: Cost, one: Answer) -> None:
    cost.answers += 1
    cost.tokens += one.tokens
    cost.limited += not one.ended
    cost.limited_tokens += 0 if one.ended else one.tokens


def _watch(data: Path, source: str, by_model: dict[str, Cost]) -> None:
    """Let the detector read the answers whose texts are known."""
    path = data / f"{source}_full.jsonl.gz"
    if not path.is_file():
        return
    tokenizer = Tokenizer.from_file(str(data / "qwen2-tokenizer" / "tokenizer.json"))
    decode = functools.lru_cache(None)(lambda token: str(tokenizer.decode([token])))
    for one in texts(path, tokenizer, _QWEN):
        cost, length = by_model[one.model], len(one.ids)
        at = stop(RunawayDetector(one.prompt, decode).push, one.ids, [cost.tally])
        false = one.kind == "normal" and at is not None and harmed(tokenizer, one.ids, at)
        count(cost.tally, one, at, false)
        cost.loop_tokens += length if one.kind == "loop" else 0


def tables(found: Sequence[Cost]) -> dict[str, str]:
    """The tables `runaways-cost` and `runaways-saved`."""
    read = [cost for cost in found if cost.tally.tokens]
    rows = [_cost_row(cost) for cost in found]
    head = ["answers to", "model", "answers", "ran into the limit", "their tokens", "loops", "their tokens"]
    saved = ["answers to", "model", "loops", "found", "saved, of all tokens", "median tokens seen"]
    saved += ["false stops", "of normal answers", "lost, of normal tokens"]
    return {"runaways-cost": table(head, rows), "runaways-saved": table(saved, [*map(_saved_row, read), *_sums(read)])}


def _cost_row(cost: Cost) -> Sequence[object]:
    known = bool(cost.tally.tokens)
    return [
        *(NAMES[cost.source], cost.name, cost.answers),
        *(percent(cost.limited / cost.answers), percent(cost.limited_tokens / cost.tokens)),
        percent(cost.tally.loops / cost.answers) if known else "—",
        percent(cost.loop_tokens / cost.tally.tokens) if known else "—",
    ]


def _saved_row(cost: Cost) -> Sequence[object]:
    tally = cost.tally
    return [
        *(NAMES[cost.source], cost.name, tally.loops, percent(len(tally.seen) / tally.loops) if tally.loops else "—"),
        *(percent(tally.saved / tally.tokens), sorted(tally.seen)[len(tally.seen) // 2] if tally.seen else "—"),
        *(tally.false, percent(tally.false / max(1, tally.normal), 2)),
        percent(tally.lost / max(1, tally.normal_tokens), 2),
    ]


def _sums(read: Sequence[Cost]) -> list[Sequence[object]]:
    rows = []
    for source in dict.fromkeys(cost.source for cost in read):
        whole = Cost(source, "all")
        for tally in (cost.tally for cost in read if cost.source == source):
            for name in ("normal", "false", "loops", "saved", "lost", "tokens", "normal_tokens"):
                setattr(whole.tally, name, getattr(whole.tally, name) + getattr(tally, name))
            whole.tally.seen += tally.seen
        rows.append(_saved_row(whole))
    return rows

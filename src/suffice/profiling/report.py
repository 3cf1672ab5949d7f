"""A measurement with everything that follows from it, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from suffice.profiling.accumulators import GroupLengths, Profile
from suffice.profiling.advice import Advice, CapAdvice, RowLimit, Savings, TierShare
from suffice.profiling.histogram import Histogram
from suffice.profiling.intervals import quantile_ranks
from suffice.profiling.records import SourceSummary
from suffice.profiling.words import SplittingWord

__all__ = ["LIMITS", "QUANTILES", "MemoryFacts", "Report"]

QUANTILES = (0.5, 0.9, 0.95, 0.99)
LIMITS = (128, 256, 512, 1024, 2048)
"""Lengths over which shares are given."""


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What a model's shape says of memory; nothing where it is not known."""

    model: str = ""
    kv_bytes_per_token: int | None = None
    training: Mapping[int, int] = field(default_factory=dict)
    """Bytes at the peak of a training step by `max_length`."""
    training_setup: str = ""
    """What that forecast assumes, in a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    sources: tuple[str, ...]
    found: SourceSummary
    profile: Profile
    groups: Mapping[str, Mapping[str, GroupLengths]]
    words: tuple[Sequence[SplittingWord], Sequence[SplittingWord]]
    """Of prompts with longer answers, and with shorter ones."""
    advice: Advice | None
    row_limits: tuple[RowLimit, ...] = ()
    """Of a training set."""
    memory: MemoryFacts = MemoryFacts()
    tokens_per_second: float | None = None

    @property
    def name(self) -> str:
        first = PurePath(self.sources[0]).name or self.sources[0]
        return first if len(self.sources) == 1 else f"{first} and {len(self.sources) - 1} more"

    @property
    def prompts_answered(self) -> int | None:
        """Distinct prompts among the answers, where many prompts have several; None where it does not matter."""
        words, answers = self.profile.words, self.profile.all.answer.rows
        prompts = words.prompts if words.complete and words.seen == answers else min(self.found.rows, answers)
        return prompts if answers > 1.5 * prompts else None

    def to_dict(self) -> dict[str, Any]:
        everything = self.profile.all
        return {
            "version": 1,
            "sources": list(self.sources),
            "rows": self.found.rows,
            "records": everything.records,
            "errors": {"rows": self.found.errors.total(), "examples": self.found.examples},
            "lengths": {"given": self.found.given, "counted": self.found.counted},
            "notes": self.found.notes,
            "prompt": _lengths(everything.prompt, counts=True),
            "answer": _lengths(everything.answer, counts=True),
            "whole": _lengths(everything.whole, counts=True),
            "finishes": _finishes(everything),
            "groups": {
                column: {value: _group(group, column, value, self.advice) for value, group in table.items()}
                for column, table in self.groups.items()
            },
            "words": {
                "prompts": self.profile.words.prompts,
                "longer": [_word(word) for word in self.words[0]],
                "shorter": [_word(word) for word in self.words[1]],
            },
            "advice": self._advice(),
            "max_length": [
                {**asdict(limit), "training_bytes": self.memory.training.get(limit.max_length)}
                for limit in self.row_limits
            ],
        }

    def _advice(self) -> dict[str, Any] | None:
        if self.advice is None:
            return None
        return {
            "cap": _cap(self.advice.cap),
            "tier": self.advice.tier.name if self.advice.tier else None,
            "tiers": [_tier(tier) for tier in self.advice.tiers],
            "savings": self._savings(self.advice.savings) if self.advice.savings else None,
        }

    def _savings(self, savings: Savings) -> dict[str, Any]:
        kv = self.memory.kv_bytes_per_token
        return {
            **asdict(savings),
            "memory_saved": round(savings.memory, 4),
            "reservation_used": round(savings.used, 4),
            "worst_time_factor": round(savings.worst_time, 3),
            "kv_bytes_per_token": kv,
            "reserved_bytes": None if kv is None else [round(tokens * kv) for tokens in savings.reserved],
            "worst_seconds": self.worst_seconds,
        }

    @property
    def worst_seconds(self) -> tuple[float, float] | None:
        """Seconds of the longest possible answer, before and after."""
        savings = self.advice.savings if self.advice else None
        if savings is None or not self.tokens_per_second:
            return None
        return savings.before / self.tokens_per_second, savings.after / self.tokens_per_second


def interval(histogram: Histogram, p: float) -> tuple[int | None, int | None]:
    """The lengths between which the true `p`-quantile lies with 95 % confidence; None where the rows allow no bound."""
    low, high = quantile_ranks(histogram.rows, p)
    return (None if low is None else histogram.at_rank(low)), (None if high is None else histogram.at_rank(high))


def _lengths(histogram: Histogram, *, counts: bool = False) -> dict[str, Any] | None:
    if not histogram.rows:
        return None
    record: dict[str, Any] = {
        "rows": histogram.rows,
        "tokens": histogram.total,
        "mean": round(histogram.mean, 2),
        **{f"p{round(100 * p)}": histogram.quantile(p) for p in QUANTILES},
        "max": histogram.largest,
        "over": {str(limit): round(histogram.over(limit) / histogram.rows, 6) for limit in LIMITS},
    }
    if counts:
        record["intervals"] = {f"p{round(100 * p)}": interval(histogram, p) for p in QUANTILES}
        record["counts"] = [list(item) for item in histogram.items()]
    return record


def _finishes(group: GroupLengths) -> dict[str, Any]:
    known, spike = group.known_finishes, group.spike()
    return {
        **dict(group.finishes.most_common()),
        "known": known,
        "truncation_rate": round(group.finishes["length"] / known, 6) if known else None,
        "runaway_rate": round(group.finishes["repetition"] / known, 6) if known else None,
        "spike": None if spike is None else {"tokens": spike[0], "answers": spike[1]},
    }


def _group(group: GroupLengths, column: str, value: str, advice: Advice | None) -> dict[str, Any]:
    cap, tier = advice.by_group.get(column, {}).get(value, (None, None)) if advice else (None, None)
    return {
        "records": group.records,
        "prompt": _lengths(group.prompt),
        "answer": _lengths(group.answer),
        "finishes": _finishes(group),
        "cap": _cap(cap) if cap else None,
        "tier": tier,
    }


def _cap(cap: CapAdvice) -> dict[str, Any]:
    return {**asdict(cap), "suggested": cap.suggested}


def _tier(tier: TierShare) -> dict[str, Any]:
    low, high = tier.interval
    return {
        **asdict(tier),
        "share": round(tier.share, 6),
        "interval": [round(low, 6), round(high, 6)],
        "needed_by": round(tier.needed_by, 6),
        "verdict": tier.verdict,
    }


def _word(word: SplittingWord) -> dict[str, Any]:
    return {**asdict(word), "factor": round(word.factor, 3)}

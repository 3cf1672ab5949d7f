"""The report of `suffice usage`: sums over the rows of the request log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from suffice.serve.request_log.store import Store

__all__ = ["COLUMNS", "By", "Total", "totals"]

By = Literal["key", "tier", "model", "day"]
_COLUMNS: dict[By, str] = {"key": "key_name", "tier": "tier", "model": "model", "day": "day"}
_SUMS = ("requests", "errors", "cancelled", "prompt_tokens", "answer_tokens")
COLUMNS = (
    *_SUMS,
    "truncated_percent",
    "runaway_percent",
    "median_answer_tokens",
    "p95_answer_tokens",
    "median_seconds",
    "p95_seconds",
)


@dataclass(slots=True)
class Total:
    """The sums of one group of requests."""

    name: str
    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    """Requests whose client went away."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    truncated: int = 0
    """Answers that a cap ended."""
    runaways: int = 0
    """Answers that were ended because they looped."""
    lengths: list[int] = field(default_factory=list, repr=False)
    seconds: list[float] = field(default_factory=list, repr=False)

    def add(self, finish: str, detail: str, prompt: int, answer: int, seconds: float) -> None:
        self.requests += 1
        self.prompt_tokens += prompt
        self.answer_tokens += answer
        if finish in ("error", "cancelled"):
            self.errors += finish == "error"
            self.cancelled += finish == "cancelled"
            return
        looped = "repetition" in (finish, detail)
        self.runaways += looped
        self.truncated += finish == "length" and not looped
        self.lengths.append(answer)
        self.seconds.append(seconds)

    def row(self) -> dict[str, Any]:
        """The values of `COLUMNS`; rates are per cent of answers, percentiles are over answers."""
        share = 100 / len(self.lengths) if self.lengths else 0.0
        return {
            **{name: getattr(self, name) for name in _SUMS},
            "truncated_percent": round(self.truncated * share, 2),
            "runaway_percent": round(self.runaways * share, 2),
            "median_answer_tokens": _nearest_rank(self.lengths, 0.5),
            "p95_answer_tokens": _nearest_rank(self.lengths, 0.95),
            "median_seconds": round(_nearest_rank(self.seconds, 0.5), 3),
            "p95_seconds": round(_nearest_rank(self.seconds, 0.95), 3),
        }


def totals(store: Store, by: By, since: float = 0.0) -> Iterator[Total]:
    """The groups of requests since a time (seconds since 1970), in order of their names."""
    groups: dict[str, Total] = {}
    columns = (_COLUMNS[by], "finish", "finish_detail", "prompt_tokens", "answer_tokens", "seconds")
    for name, *rest in store.requests(since, columns):
        group = groups.setdefault(name or "-", Total(name or "-"))
        group.add(*rest)
    yield from (groups[name] for name in sorted(groups))


def _nearest_rank(values: list[Any], p: float) -> Any:
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * p // 1) - 1)] if ordered else 0

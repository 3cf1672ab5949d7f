"""What the charts of a report show: bars, curves and spans over a logarithmic axis of tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from suffice.profiling.accumulators import GroupLengths
from suffice.profiling.bilingual import Bilingual, heading, say
from suffice.profiling.histogram import Histogram
from suffice.profiling.report import Report

__all__ = ["Chart", "group_chart", "length_charts", "shortened"]

_POINTS = 160  # steps of a curve, equal on the logarithmic axis
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One picture: bars, curves or spans, and lines at lengths that matter."""

    title: Bilingual
    caption: Bilingual
    low: int
    high: int
    """The ends of the axis, in tokens."""
    bars: Sequence[tuple[int, int, int]] = ()
    """First length, last length, rows."""
    rows: int = 0
    """Of which the bars are shares."""
    curves: Mapping[Bilingual, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """By name: tokens, and the share of rows that are at most so long."""
    spans: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """By name: p50, p90 and p99."""
    marks: Sequence[tuple[str, int]] = ()
    """Lengths that get a line: name, tokens."""


def length_charts(report: Report) -> Iterator[Chart]:
    """How often each length occurs in answers and in prompts, then the share of each up to a length."""
    everything = report.profile.all
    named = (("Answers", everything.answer), ("Prompts", everything.prompt))
    shown = {heading(name): histogram for name, histogram in named if histogram.rows}
    for name, histogram in shown.items():
        bars = histogram.bars()
        yield Chart(
            title=name,
            caption=say("axis"),
            low=bars[0][0],
            high=bars[-1][1] + 1 if bars[-1][1] < 1 << 40 else histogram.largest,
            bars=bars,
            rows=histogram.rows,
            marks=[*((f"p{p * 100:.0f}", histogram.quantile(p)) for p in _QUANTILES), ("max", histogram.largest)],
        )
    if shown:
        low = max(1, min(histogram.quantile(0.001) for histogram in shown.values()))
        high = max(2 * low, *(histogram.largest for histogram in shown.values()))
        yield Chart(
            title=heading("Share up to a length"),
            caption=say("caps"),
            low=low,
            high=high,
            curves={name: _curve(histogram, low, high) for name, histogram in shown.items()},
            marks=[(tier.name, tier.max_new_tokens) for tier in report.advice.tiers] if report.advice else (),
        )


def group_chart(column: str, groups: Mapping[str, GroupLengths], most: int) -> Chart | None:
    """The answers of the `most` largest groups of a column; None where they have none."""
    answers = {name: group.answer for name, group in list(groups.items())[:most] if group.answer.rows}
    spans = {name: (each.quantile(0.5), each.quantile(0.9), each.quantile(0.99)) for name, each in answers.items()}
    if not spans:
        return None
    low, high = min(low for low, _, _ in spans.values()), max(high for _, _, high in spans.values())
    return Chart(title=say("answers-by-column", column=column), caption=say("dots"), low=low, high=high, spans=spans)


def _curve(histogram: Histogram, low: int, high: int) -> list[tuple[float, float]]:
    lengths = (low * (high / low) ** (step / _POINTS) for step in range(_POINTS + 1))
    return [(tokens, 1 - histogram.over(math.floor(tokens)) / histogram.rows) for tokens in lengths]


def shortened(name: str, most: int = 28) -> str:
    """A name that fits beside a chart; a Chinese character takes the room of two."""
    width = 0
    for place, char in enumerate(name):
        width += 2 if ord(char) > 0x2E7F else 1
        if width > most:
            return name[:place] + "…"
    return name

"""A chart as inline SVG, coloured by the page that it is in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from suffice.profiling.charts import Chart, shortened

__all__ = ["svg"]

_WIDTH, _RIGHT, _TOP, _BOTTOM = 760, 16, 26, 44
_HEIGHT = 190  # of the drawing, without what is above and below it
_ROW = 26  # height of a span


def svg(chart: Chart) -> str:
    drawing = _Drawing(chart)
    parts = "".join((*drawing.bars(), *drawing.curves(), *drawing.ticks(), *drawing.spans(), *drawing.marks()))
    title = escape(chart.title.en, quote=True)
    height = drawing.bottom + _BOTTOM
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{title}: tokens">{parts}</svg>'


class _Drawing:
    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.low = max(1, chart.low)
        self.high = max(chart.high, 2 * self.low)
        self.left = 230 if chart.spans else 56
        self.bottom = _TOP + (_ROW * len(chart.spans) if chart.spans else _HEIGHT)

    def x(self, tokens: float) -> float:
        """The position of a length; what is beyond an end is put there."""
        clipped = min(max(tokens, self.low), self.high)
        share = math.log(clipped / self.low) / math.log(self.high / self.low)
        return self.left + share * (_WIDTH - self.left - _RIGHT)

    def y(self, share: float) -> float:
        return self.bottom - (self.bottom - _TOP) * share

    def label(self, kind: str, x: float, y: float, text: str, anchor: str) -> str:
        return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'

    def bars(self) -> Iterator[str]:
        most = max((rows for _, _, rows in self.chart.bars), default=0)
        for low, high, rows in self.chart.bars:
            x, y, share = self.x(low), self.y(rows / most), 100 * rows / self.chart.rows
            yield (
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, self.x(high + 1) - x - 1):.1f}" '
                f'height="{self.bottom - y:.1f}"><title>{low:,}–{high:,}: {rows:,} ({share:.1f} %)</title></rect>'
            )
        if most:
            yield self.label("tick", self.left - 6, _TOP + 8, f"{100 * most / self.chart.rows:.0f} %", "end")

    def curves(self) -> Iterator[str]:
        for share in (0.0, 0.25, 0.5, 0.75, 1.0) if self.chart.curves else ():
            y = f"{self.y(share):.1f}"
            yield f'<line class="grid" x1="{self.left}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            yield self.label("tick", self.left - 6, self.y(share) + 4, f"{100 * share:.0f} %", "end")
        for number, (name, points) in enumerate(self.chart.curves.items()):
            line = " ".join(f"{self.x(tokens):.1f},{self.y(share):.1f}" for tokens, share in points)
            both = f"{name.en} {name.zh}"
            yield f'<polyline class="line s{number}" points="{line}"><title>{escape(both)}</title></polyline>'
            yield self.label(f"key s{number}", self.left + 90 * number, self.bottom + _BOTTOM - 4, both, "start")

    def spans(self) -> Iterator[str]:
        """For each group a line from p50 to p99, with a dot at each quantile."""
        for number, (name, (low, middle, high)) in enumerate(self.chart.spans.items()):
            y = _TOP + _ROW * (number + 0.5)
            label = escape(f"{name}: p50 {low:,}, p90 {middle:,}, p99 {high:,}")
            yield self.label("name", self.left - 12, y + 4, shortened(name), "end")
            yield (
                f'<line class="span" x1="{self.x(low):.1f}" x2="{self.x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}">'
                f"<title>{label}</title></line>"
            )
            for kind, tokens, radius in (("dot", low, 5), ("dot mid", middle, 4), ("dot end", high, 4)):
                yield f'<circle class="{kind}" cx="{self.x(tokens):.1f}" cy="{y:.1f}" r="{radius}"/>'

    def ticks(self) -> Iterator[str]:
        inside = [1 << shift for shift in range(21) if self.low <= 1 << shift <= self.high]
        for tick in inside[:: max(1, math.ceil(len(inside) / 10))]:
            x = f"{self.x(tick):.1f}"
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{self.bottom:.1f}"/>'
            yield self.label("tick", self.x(tick), self.bottom + 18, f"{tick:,}", "middle")

    def marks(self) -> Iterator[str]:
        """Vertical lines with their names on top; a name that would overlap another is left out."""
        free_to = float(_WIDTH)
        inside = [mark for mark in self.chart.marks if self.low <= mark[1] <= self.high]
        for name, tokens in sorted(inside, key=lambda mark: -mark[1]):  # the largest is named first
            x, label = f"{self.x(tokens):.1f}", f"{name} {tokens:,}"
            line = f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP - 4}" y2="{self.bottom:.1f}">'
            yield f"{line}<title>{escape(label)}</title></line>"
            half = 3.6 * len(label)
            middle = min(self.x(tokens), _WIDTH - half)
            if middle + half <= free_to:
                yield self.label("markname", middle, _TOP - 8, label, "middle")
                free_to = middle - half - 4

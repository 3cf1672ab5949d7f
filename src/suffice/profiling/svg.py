"""Pictures of lengths as inline SVG, coloured by the page that they are in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from suffice.profiling.histogram import Histogram

__all__ = ["group_chart", "histogram_chart", "share_chart", "shortened"]

_WIDTH, _LEFT, _RIGHT = 760, 56, 16
_CHART_HEIGHT, _TOP, _BOTTOM = 260, 26, 44
_ROW = 26
_TICKS = tuple(1 << shift for shift in range(21))


class _LogAxis:
    """Tokens to horizontal positions, on a logarithmic scale."""

    def __init__(self, low: int, high: int, left: int = _LEFT) -> None:
        self.low, self.high, self._left = max(1, low), max(high, max(1, low) * 2), left

    def at(self, tokens: float) -> float:
        """The position of a length; what is beyond an end is put there."""
        clipped = min(max(tokens, self.low), self.high)
        share = math.log(clipped / self.low) / math.log(self.high / self.low)
        return self._left + share * (_WIDTH - self._left - _RIGHT)

    def ticks(self) -> list[int]:
        """Powers of two in the range, at most ten."""
        inside = [tick for tick in _TICKS if self.low <= tick <= self.high]
        return inside[:: max(1, math.ceil(len(inside) / 10))]


def histogram_chart(histogram: Histogram, marks: Sequence[tuple[str, int]], title: str) -> str:
    """Bars on a logarithmic axis, with vertical lines at `marks` (name, tokens)."""
    bars = histogram.bars()
    axis = _LogAxis(bars[0][0], bars[-1][1] + 1 if bars[-1][1] < 1 << 40 else histogram.largest)
    most = max(rows for _, _, rows in bars)
    height = _CHART_HEIGHT - _TOP - _BOTTOM
    parts = []
    for low, high, rows in bars:
        x, right, share = axis.at(low), axis.at(high + 1), rows / most
        label = f"{low:,}–{high:,}: {rows:,} ({100 * rows / histogram.rows:.1f} %)"
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{_TOP + height * (1 - share):.1f}" '
            f'width="{max(1.0, right - x - 1):.1f}" height="{height * share:.1f}"><title>{escape(label)}</title></rect>'
        )
    parts += _tick_lines(axis, _TOP + height)
    parts += _mark_lines(axis, marks, _TOP + height)
    peak = f"{100 * most / histogram.rows:.0f} %"
    parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{_TOP + 8}" text-anchor="end">{peak}</text>')
    return _svg(_CHART_HEIGHT, title, parts)


def share_chart(series: Sequence[tuple[str, Histogram]], marks: Sequence[tuple[str, int]], title: str) -> str:
    """For each length, the share of rows that are at most so long (the cumulative distribution)."""
    largest = max(histogram.largest for _, histogram in series)
    axis = _LogAxis(min(histogram.quantile(0.001) for _, histogram in series), largest)
    height = _CHART_HEIGHT - _TOP - _BOTTOM
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
        for y in [_TOP + height * (1 - share)]
    ]
    for number, (name, histogram) in enumerate(series):
        points = []
        for step in range(161):
            tokens = axis.low * (axis.high / axis.low) ** (step / 160)
            share = 1 - histogram.over(math.floor(tokens)) / histogram.rows
            points.append(f"{axis.at(tokens):.1f},{_TOP + height * (1 - share):.1f}")
        line = f'<polyline class="line s{number}" points="{" ".join(points)}">'
        parts.append(f"{line}<title>{escape(name)}</title></polyline>")
        parts.append(
            f'<text class="key s{number}" x="{_LEFT + 90 * number}" y="{_CHART_HEIGHT - 4}">{escape(name)}</text>'
        )
    parts += _tick_lines(axis, _TOP + height)
    parts += _mark_lines(axis, marks, _TOP + height)
    return _svg(_CHART_HEIGHT, title, parts)


def group_chart(groups: Sequence[tuple[str, Histogram]], title: str) -> str:
    """A line from p50 to p99 for each group, a tick at p90."""
    left = 230
    axis = _LogAxis(
        min(histogram.quantile(0.5) for _, histogram in groups),
        max(histogram.quantile(0.99) for _, histogram in groups),
        left,
    )
    height = _TOP + _ROW * len(groups)
    parts = _tick_lines(axis, height)
    for number, (name, histogram) in enumerate(groups):
        y = _TOP + _ROW * number + _ROW / 2
        low, middle, high = (histogram.quantile(p) for p in (0.5, 0.9, 0.99))
        label = f"{name}: p50 {low:,}, p90 {middle:,}, p99 {high:,}"
        parts.append(
            f'<text class="name" x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(shortened(name))}</text>'
            f'<line class="span" x1="{axis.at(low):.1f}" x2="{axis.at(high):.1f}" y1="{y:.1f}" y2="{y:.1f}">'
            f"<title>{escape(label)}</title></line>"
            f'<circle class="dot" cx="{axis.at(low):.1f}" cy="{y:.1f}" r="5"/>'
            f'<circle class="dot mid" cx="{axis.at(middle):.1f}" cy="{y:.1f}" r="4"/>'
            f'<circle class="dot end" cx="{axis.at(high):.1f}" cy="{y:.1f}" r="4"/>'
        )
    return _svg(height + _BOTTOM, title, parts)


def _tick_lines(axis: _LogAxis, bottom: float) -> list[str]:
    return [
        f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom:.1f}"/>'
        f'<text class="tick" x="{x:.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{tick:,}</text>'
        for tick in axis.ticks()
        for x in [axis.at(tick)]
    ]


def _mark_lines(axis: _LogAxis, marks: Sequence[tuple[str, int]], bottom: float) -> list[str]:
    """Vertical lines with their names on top; a name that would overlap another is left out."""
    parts, free_to = [], float(_WIDTH)
    inside = [mark for mark in marks if axis.low <= mark[1] <= axis.high]
    for name, tokens in sorted(inside, key=lambda mark: -mark[1]):  # the largest is told first
        x, label = axis.at(tokens), f"{name} {tokens:,}"
        line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{bottom:.1f}">'
        parts.append(f"{line}<title>{escape(label)}</title></line>")
        half = 3.6 * len(label)
        middle = min(x, _WIDTH - half)
        if middle + half <= free_to:
            text = f'<text class="markname" x="{middle:.1f}" y="{_TOP - 8}" text-anchor="middle">'
            parts.append(f"{text}{escape(label)}</text>")
            free_to = middle - half - 4
    return parts


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def shortened(name: str, most: int = 28) -> str:
    """A name that fits beside a chart; a Chinese character takes the room of two."""
    width = 0
    for place, char in enumerate(name):
        width += 2 if ord(char) > 0x2E7F else 1
        if width > most:
            return name[:place] + "…"
    return name

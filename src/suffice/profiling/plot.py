"""A report as a picture (PNG or SVG), drawn with matplotlib."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.profiling.charts import Chart, group_chart, length_charts, shortened
from suffice.profiling.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_CHINESE_FONTS = [
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei"),
    *("Microsoft YaHei", "PingFang SC", "Heiti SC", "SimHei", "Noto Sans CJK JP"),
]
_CHINESE_FILES = ("cjk", "wqy", "sourcehansans", "notosanssc", "msyh", "simhei", "pingfang", "heiti")
"""Parts of the names of the files that these fonts come in."""
_COLOUR, _MIDDLE, _WARM = "#2b7a78", "#6fb1aa", "#c2571a"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.fonttype": "path",
    "text.parse_math": False,  # a name may hold dollar signs
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_SHOWN_GROUPS = 14


def draw(report: Report, path: Path) -> Iterator[str]:
    """Write the picture: answers (and prompts) as histograms, shares up to a length, and each column's groups.

    Yields:
        Notices for a person.

    Raises:
        OSError: the file cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    by_column = (group_chart(column, groups, _SHOWN_GROUPS) for column, groups in report.groups.items())
    charts = [*length_charts(report), *(chart for chart in by_column if chart is not None)]
    names = report.name + "".join(name for chart in charts for name in chart.spans)
    chinese = any(ord(char) > 0x2E7F for char in names)
    fonts = _fonts(chinese)
    if chinese and len(fonts) == 1:
        yield f"no font with Chinese characters is installed ({', '.join(_CHINESE_FONTS[:3])}, ...): they show as boxes"
    heights = [0.5 + 0.28 * len(chart.spans) if chart.spans else 2.6 for chart in charts]
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns of every weight it cannot find
    with mpl.rc_context({**_STYLE, "font.family": fonts}):
        figure = Figure(figsize=(8, sum(heights) + 0.6), layout="constrained")
        panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        figure.suptitle(f"{report.name}  ({report.profile.all.answer.rows:,} answers)", fontsize=11)
        for axes, chart in zip(panels, charts, strict=True):
            _draw(axes, chart)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")  # said above, in one line
            figure.savefig(path, dpi=130)


def _fonts(chinese: bool) -> list[str]:
    """The usual font, and behind it one that has Chinese characters, if any is needed and installed."""
    from matplotlib import font_manager

    if not chinese:
        return ["DejaVu Sans"]
    manager = font_manager.fontManager
    if not any(font.name in _CHINESE_FONTS for font in manager.ttflist):  # the list is kept from when it was first made
        for path in font_manager.findSystemFonts():
            if any(word in Path(path).name.lower() for word in _CHINESE_FILES):
                manager.addfont(path)
    installed = {font.name for font in manager.ttflist}
    return ["DejaVu Sans", *[name for name in _CHINESE_FONTS if name in installed][:1]]


def _draw(axes: Axes, chart: Chart) -> None:
    axes.set_xscale("log", base=2)
    if chart.bars:
        _bars(axes, chart)
    if chart.curves:
        _curves(axes, chart)
    if chart.spans:
        _spans(axes, chart)
    for name, tokens in chart.marks:
        axes.axvline(max(tokens, 1), color=_WARM, linestyle="--" if chart.bars else ":", linewidth=1)
        if not chart.bars:  # bars would hide it: their marks are in the title
            place = max(tokens, 1), 2
            axes.annotate(name, place, color=_WARM, fontsize=8, rotation=90, ha="right", va="bottom")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", alpha=0.25)
    marks = ", ".join(f"{name} {tokens:,}" for name, tokens in chart.marks)
    about = f": {marks} tokens" if chart.bars else f". {chart.caption.en}"
    axes.set_title(chart.title.en + about, fontsize=9, loc="left")


def _bars(axes: Axes, chart: Chart) -> None:
    lefts = [max(low, 0.75) for low, _, _ in chart.bars]
    rights = [min(high + 1, 2 * max(low, 1)) for low, high, _ in chart.bars]
    widths = [right - left for left, right in zip(lefts, rights, strict=True)]
    heights = [100 * rows / chart.rows for _, _, rows in chart.bars]
    axes.bar(lefts, heights, widths, align="edge", color=_COLOUR, edgecolor="white", linewidth=0.6)
    axes.set_ylabel(f"% of {chart.title.en.lower()}")


def _curves(axes: Axes, chart: Chart) -> None:
    for (name, points), style in zip(chart.curves.items(), ("-", "--"), strict=False):
        lengths, shares = zip(*points, strict=True)
        percents = [100 * share for share in shares]
        axes.step(lengths, percents, where="post", linestyle=style, color=_COLOUR, label=name.en.lower())
    axes.set_ylabel("% up to this length")
    axes.legend(loc="upper left", frameon=False)


def _spans(axes: Axes, chart: Chart) -> None:
    spans = chart.spans
    places = range(len(spans))
    low, middle, high = ([max(1, tokens) for tokens in ends] for ends in zip(*spans.values(), strict=True))
    axes.hlines(places, low, high, color=_COLOUR, alpha=0.4, linewidth=3)
    for values, colour, name in ((low, _COLOUR, "p50"), (middle, _MIDDLE, "p90"), (high, _WARM, "p99")):
        axes.scatter(values, places, color=colour, s=26, zorder=3, label=name)
    axes.set_yticks(places, list(map(shortened, spans)))
    axes.set_ylim(len(spans) - 0.5, -0.5)

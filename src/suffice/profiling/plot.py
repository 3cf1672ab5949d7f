"""A report as a picture (PNG or SVG), drawn with matplotlib."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.profiling.histogram import Histogram
from suffice.profiling.report import Report
from suffice.profiling.svg import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Heiti SC",
    "SimHei",
    "Noto Sans CJK JP",
)
_CHINESE_FILES = ("cjk", "wqy", "sourcehansans", "notosanssc", "msyh", "simhei", "pingfang", "heiti")
"""Parts of the names of the files that these fonts come in."""
_COLOUR, _WARM = "#2b7a78", "#c2571a"
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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    everything = report.profile.all
    shown = [
        (title, histogram)
        for title, histogram in (("answers", everything.answer), ("prompts", everything.prompt))
        if histogram.rows
    ]
    columns = [(column, _with_answers(table)) for column, table in report.groups.items()]
    columns = [(column, groups) for column, groups in columns if groups]
    names = report.name + "".join(name for _, groups in columns for name, _ in groups)
    chinese = any(ord(char) > 0x2E7F for char in names)
    fonts = _fonts(chinese)
    if chinese and len(fonts) == 1:
        yield f"no font with Chinese characters is installed ({', '.join(_CHINESE_FONTS[:3])}, ...): they show as boxes"
    heights = [2.6] * (len(shown) + 1) + [0.5 + 0.28 * len(groups) for _, groups in columns]
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # it warns of every weight it cannot find
    with mpl.rc_context({**_STYLE, "font.family": fonts}):
        figure = Figure(figsize=(8, sum(heights) + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
        figure.suptitle(f"{report.name}  ({everything.answer.rows:,} answers)", fontsize=11)
        for axes, (title, histogram) in zip(panels, shown, strict=False):
            _histogram(axes, title, histogram)
        _shares(panels[len(shown)], shown, report)
        for axes, (column, groups) in zip(panels[len(shown) + 1 :], columns, strict=True):
            _groups(axes, column, groups)
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


def _with_answers(table: Any) -> list[tuple[str, Histogram]]:
    return [(name, group.answer) for name, group in list(table.items())[:_SHOWN_GROUPS] if group.answer.rows]


def _log_axis(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.grid(axis="x", alpha=0.25)


def _histogram(axes: Axes, title: str, histogram: Histogram) -> None:
    bars = histogram.bars()
    lefts = [max(low, 0.75) for low, _, _ in bars]
    rights = [min(high + 1, 2 * max(low, 1)) for low, high, _ in bars]
    heights = [100 * rows / histogram.rows for _, _, rows in bars]
    axes.bar(
        lefts,
        heights,
        [right - left for left, right in zip(lefts, rights, strict=True)],
        align="edge",
        color=_COLOUR,
        edgecolor="white",
        linewidth=0.6,
    )
    _log_axis(axes)
    axes.set_ylabel(f"% of {title}")
    marks = [(f"p{p * 100:.0f}", histogram.quantile(p)) for p in (0.5, 0.9, 0.99)]
    for _, tokens in marks:
        axes.axvline(max(tokens, 1), color=_WARM, linestyle="--", linewidth=1)
    axes.set_title(
        f"{title}: "
        + ", ".join(f"{name} {tokens:,}" for name, tokens in marks)
        + f", max {histogram.largest:,} tokens",
        fontsize=9,
        loc="left",
    )


def _shares(axes: Axes, shown: list[tuple[str, Histogram]], report: Report) -> None:
    for (title, histogram), style in zip(shown, ("-", "--"), strict=False):
        lengths, counts = zip(*histogram.items(), strict=True)
        reached, points = 0, []
        for count in counts:
            reached += count
            points.append(100 * reached / histogram.rows)
        axes.step(
            [max(length, 1) for length in lengths], points, where="post", linestyle=style, color=_COLOUR, label=title
        )
    for tier in report.advice.tiers if report.advice else ():
        axes.axvline(tier.max_new_tokens, color=_WARM, linestyle=":", linewidth=1)
        axes.annotate(
            tier.name, (tier.max_new_tokens, 2), color=_WARM, fontsize=8, rotation=90, ha="right", va="bottom"
        )
    _log_axis(axes)
    axes.set_ylabel("% up to this length")
    axes.set_title("share up to a length; dotted: the tiers' caps", fontsize=9, loc="left")
    axes.legend(loc="upper left", frameon=False)


def _groups(axes: Axes, column: str, groups: list[tuple[str, Histogram]]) -> None:
    places = list(range(len(groups)))
    low, middle, high = ([max(1, histogram.quantile(p)) for _, histogram in groups] for p in (0.5, 0.9, 0.99))
    axes.hlines(places, low, high, color=_COLOUR, alpha=0.4, linewidth=3)
    for values, colour, name in ((low, _COLOUR, "p50"), (middle, "#6fb1aa", "p90"), (high, _WARM, "p99")):
        axes.scatter(values, places, color=colour, s=26, zorder=3, label=name)
    _log_axis(axes)
    axes.set_yticks(places, [shortened(name) for name, _ in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_title(f"answers by {column}: p50, p90, p99", fontsize=9, loc="left")

"""The plots of docs/evidence.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evidence_parts.caps import CAPS, cut, lengths, waste
from evidence_parts.data import MEDIAN, NAMES, Floats, HeldOut
from evidence_parts.remaining import METHODS, Moment, truth_and_said
from evidence_parts.runaways import Cost
from evidence_parts.traffic import Replay
from suffice.budget.length_model.evaluate import EVALUATED

GREEN, LIGHT, WARM, GREY, BLUE = "#2b7a78", "#6fb1aa", "#c2571a", "#9a9a9a", "#3b5b92"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,
}


def _figure(path: Path, columns: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def _log2(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(ticks), [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def caps(data: Path, path: Path) -> None:
    """Share of answers cut and tokens reserved per token used, by cap."""
    shown = {
        "GSM8K": (LIGHT, "-"),
        "IFEval": (GREEN, "-"),
        "MATH level 5": (GREEN, "--"),
        "GAOKAO (zh)": (WARM, "-"),
        "Arena-Hard v2.0": (WARM, "--"),
        "all, 500 each": ("black", "-"),
        "ServeGen m-large": (BLUE, "-"),
        "ServeGen DeepSeek-R1": (BLUE, "--"),
        "Azure 2023 conversation": (GREY, "-"),
    }
    found = {name: tokens for name, tokens in lengths(data).items() if name in shown}
    grid = [round(2**at) for at in np.linspace(6, 13, 57)]
    with rc_context(_STYLE):
        figure, (left, right) = _figure(path, 2, (9, 3.8))
        for name, tokens in found.items():
            colour, line = shown[name]
            left.plot(grid, [100 * cut(tokens, cap) for cap in grid], color=colour, linestyle=line, label=name)
            right.plot(grid, [waste(tokens, cap) for cap in grid], color=colour, linestyle=line)
        for axes in (left, right):
            _log2(axes, (64, *CAPS, 8192))
            axes.set_xlabel("max_new_tokens")
        left.set_title("answers longer than the cap, %")
        left.legend(fontsize=8)
        right.set_yscale("log")
        right.set_yticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
        right.set_title("tokens reserved for each one used, where the cap is reserved")
        figure.savefig(path, dpi=130)


def frontier(held: HeldOut, replay: Replay, path: Path) -> None:
    """Answers longer than a first reservation against what the reservation sets aside: real answers and a trace."""
    methods = {"history": (BLUE, "^"), "the prompt": (WARM, "s"), "both": (GREEN, "o")}
    with rc_context(_STYLE):
        figure, (left, right) = _figure(path, 2, (9, 3.8))
        _fixed(left, held.truth)
        for name, (colour, marker) in methods.items():
            _quantile_line(left, held.truth, held.said[name], name, colour, marker)
        left.set_title("real answers of ten sources")
        _fixed(right, replay.truth)
        for name, label, colour, marker in (
            ("everyone", "everyone's quantiles", GREY, "v"),
            ("per client", "quantiles per client", BLUE, "^"),
            ("ours", "the length model", GREEN, "o"),
        ):
            _quantile_line(right, replay.truth, replay.said[name], label, colour, marker)
        right.set_title("ServeGen m-large")
        for axes in (left, right):
            axes.set_xlabel("tokens reserved for each one used")
            axes.set_ylabel("answers longer than the reservation, %")
            axes.set_xlim(0.9, 8)
            axes.set_ylim(0, 55)
            axes.grid(alpha=0.25)
            axes.legend()
        figure.savefig(path, dpi=130)


def _fixed(axes: Axes, truth: Floats) -> None:
    grid = np.unique(np.quantile(truth, np.linspace(0.4, 0.999, 80)))
    used = [max(1.0, cap) / np.minimum(truth, cap).mean() for cap in grid]
    axes.plot(used, [100 * (truth > cap).mean() for cap in grid], color="black", label="one fixed number")
    for cap in (cap for cap in CAPS if waste(truth, cap) < 8):
        place = (waste(truth, cap), 100 * cut(truth, cap))
        axes.plot(*place, color="black", marker="|", markersize=9)
        axes.annotate(f"{cap:,}", place, xytext=(4, 5), textcoords="offset points", fontsize=8)


def _quantile_line(axes: Axes, truth: Floats, said: Floats, label: str, colour: str, marker: str) -> None:
    points = [
        (said[:, at].mean() / np.minimum(truth, said[:, at]).mean(), 100 * (truth > said[:, at]).mean())
        for at in range(MEDIAN, len(EVALUATED))
    ]
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, label=label)


def failures(tasks: Mapping[str, float], repaired: Mapping[str, Sequence[float]], path: Path) -> None:
    """Pinball loss of the length model inside one task, and on a task never seen while traffic teaches it."""
    with rc_context(_STYLE):
        figure, (left, right) = _figure(path, 2, (9, 3.9))
        names = sorted(tasks, key=lambda name: -tasks[name])
        left.barh(names, [tasks[name] for name in names], color=GREEN, height=0.6)
        left.axvline(1, color=WARM, linestyle="--", linewidth=1)
        left.set_title("one task, trained on it: pinball loss / constant's")
        left.grid(axis="x", alpha=0.25)
        for at, name in enumerate(names):
            left.text(tasks[name] - 0.01, at, f"{tasks[name]:.2f}", color="white", fontsize=8, ha="right", va="center")
        colours = (GREEN, WARM, BLUE, GREY, LIGHT)
        for at, (name, steps) in enumerate(repaired.items()):
            style = "-" if at < len(colours) else "--"
            right.plot(range(len(steps)), steps, style, marker="o", color=colours[at % len(colours)], label=name)
        right.axhline(1, color="black", linestyle=":", linewidth=1)
        right.set_yscale("log")
        right.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
        right.minorticks_off()
        right.set_xticks([0, 1, 2], ["1–25", "26–100", "101–500"])
        right.set_xlabel("answers of the new task seen by then")
        right.set_title("a task never seen, learning from its traffic")
        right.grid(alpha=0.25)
        right.legend(fontsize=7, ncols=2)
        figure.savefig(path, dpi=130)


def runaways(found: Sequence[Cost], path: Path) -> None:
    """Tokens by what they were spent on, for every model whose texts are known."""
    read = [cost for cost in found if cost.tally.tokens]
    labels = [f"{NAMES[cost.source]}, {cost.name}" for cost in read]
    whole = np.array([cost.tally.tokens for cost in read], float)
    saved = 100 * np.array([cost.tally.saved for cost in read]) / whole
    limited = 100 * np.array([cost.limited_tokens for cost in read]) / np.array([cost.tokens for cost in read])
    places = np.arange(len(read))
    with rc_context(_STYLE):
        figure, (axes,) = _figure(path, 1, (8, 0.34 * len(read) + 1.2))
        axes.barh(places, limited, color="#e4c4ae", height=0.7, label="in answers that ran into their limit")
        axes.barh(places, saved, color=GREEN, height=0.4, label="never generated, if loops are stopped")
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        axes.set_xlabel("% of all tokens")
        axes.grid(axis="x", alpha=0.25)
        axes.legend(loc="lower right")
        figure.savefig(path, dpi=130)


def remaining(found: Sequence[Moment], path: Path) -> None:
    """What is said to be left against what is left, and the error as an answer grows."""
    with rc_context(_STYLE):
        figure, (left, right) = _figure(path, 2, (9, 3.8))
        truth, said = truth_and_said([one for one in found if one.part == 0])
        edges = 2.0 ** np.arange(3, 11.5, 0.5)
        for at, (name, colour) in enumerate(zip(METHODS, (GREEN, LIGHT, WARM), strict=True)):
            if name == "length only":
                continue
            bins = np.digitize(said[:, at], edges)
            points = [
                (said[bins == b, at].mean(), *np.quantile(truth[bins == b], (0.1, 0.5, 0.9)))
                for b in range(1, len(edges))
                if (bins == b).sum() >= 200
            ]
            x, low, middle, high = (np.maximum(1, np.array(each)) for each in zip(*points, strict=True))
            left.plot(x, middle, color=colour, marker="o", markersize=4, label=name)
            left.fill_between(x, low, high, color=colour, alpha=0.15)
        left.plot([8, 2048], [8, 2048], color="black", linestyle=":", linewidth=1)
        _log2(left, (8, 32, 128, 512, 2048))
        left.set_yscale("log", base=2)
        left.set_yticks([8, 32, 128, 512, 2048], ["8", "32", "128", "512", "2,048"])
        left.set_xlabel("tokens said to be left")
        left.set_title("tokens that came: median, and 10 to 90 %")
        left.legend()
        _errors(right, found)
        figure.savefig(path, dpi=130)


def _errors(axes: Axes, found: Sequence[Moment]) -> None:
    parts = (25, 50, 75)
    for at, (name, colour) in enumerate(zip(METHODS, (GREEN, LIGHT, WARM), strict=True)):
        errors = []
        for part in parts:
            truth, said = truth_and_said([one for one in found if one.part == part])
            errors.append(np.abs(said[:, at] - truth).mean())
        axes.bar(np.arange(3) + 0.27 * (at - 1), errors, width=0.25, color=colour, label=name)
    axes.set_xticks(range(3), [f"{part} %" for part in parts])
    axes.margins(y=0.3)
    axes.set_xlabel("of the answer written")
    axes.set_title("mean error in tokens")
    axes.grid(axis="y", alpha=0.25)
    axes.legend()

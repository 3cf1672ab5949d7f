"""The picture of the README, from a table in docs/evidence.md: what is reserved for each token used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).parent.parent
WHOLE, OURS = "#b9b9b3", "#0b6b57"


def table(text: str, name: str) -> Iterator[list[str]]:
    """The cells of each row below the head of a table that `benchmarks/evidence.py` wrote."""
    lines = text.partition(f"<!-- table: {name} -->\n")[2].partition("<!-- /table")[0].splitlines()
    for line in lines[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def draw(text: str) -> Figure:
    """Pairs of bars on a logarithmic scale: the whole cap reserved, and the predicted 90 % quantile."""
    bars: dict[str, dict[str, tuple[str, float]]] = defaultdict(dict)
    for traffic, first, *_, used, _share, _least in table(text, "reservations"):
        kind = "whole" if first.startswith("the cap") else "ours" if first.endswith("(auto)") else ""
        if kind:
            bars[traffic][kind] = first, float(used)
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    axes = figure.subplots()
    for place, pair in enumerate(reversed(bars.values())):
        (first, whole), (_, ours) = pair["whole"], pair["ours"]
        cap = first.removeprefix("the cap, ")
        axes.barh(place + 0.2, whole, 0.36, color=WHOLE)
        axes.barh(place - 0.2, ours, 0.36, color=OURS)
        axes.text(
            whole * 1.04,
            place + 0.2,
            f"{whole:g} where max_new_tokens = {cap} is reserved",
            va="center",
            fontsize=9,
            color="#555",
        )
        axes.text(ours * 1.04, place - 0.2, f"{ours:.1f} with Suffice", va="center", fontsize=9, color=OURS)
    axes.set_yticks(range(len(bars)), reversed(bars))
    axes.set_xscale("log")
    axes.set_xlim(1, 4000)
    axes.set_xticks([1, 3, 10, 30, 100], ["1", "3", "10", "30", "100"])
    axes.minorticks_off()
    axes.set_xlabel("tokens of KV cache reserved for each token used")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    evidence = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    draw(evidence).savefig(ROOT / "docs/images/reserved.png", dpi=130)

"""Draws a run: loss, learning rate and memory over the steps."""

from __future__ import annotations

import json
from pathlib import Path

from suffice.train.checkpoint_folders import LOG

__all__ = ["plot_run"]

_PANELS = (
    ("loss", (("loss", "training"), ("eval_loss", "validation"))),
    ("learning rate", (("learning_rate", ""),)),
    ("memory, GiB", (("memory_bytes", ""),)),
)


def plot_run(run: Path) -> Path | None:
    """Draw `training.png` from the run's log. None where there is nothing to draw, or matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    log = run / LOG
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()] if log.is_file() else []
    if not entries:
        return None
    figure = Figure(figsize=(7, 8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, series) in zip(figure.subplots(len(_PANELS), 1, sharex=True), _PANELS, strict=True):
        for key, label in series:
            points = [(entry["step"], entry[key]) for entry in entries if key in entry]
            scale = 2**30 if key == "memory_bytes" else 1
            steps, values = [step for step, _ in points], [value / scale for _, value in points]
            axes.plot(steps, values, marker=".", label=label or None)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if len(series) > 1:
            axes.legend()
    axes.set_xlabel("step")
    figure.savefig(run / "training.png", dpi=110)
    return run / "training.png"

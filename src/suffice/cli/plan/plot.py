"""A plan as a picture: where the memory goes, and how many requests run at once for each length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.errors import UsageError
from suffice.memory.concurrency import TrafficLengths, concurrent_running

if TYPE_CHECKING:
    from suffice.memory import TrainingForecast
    from suffice.memory.plan import ServingPlan

__all__ = ["plot_plan", "plot_training"]

_ENDINGS = (".png", ".svg", ".pdf")
_COLOURS = {
    "in use already": "#9aa0a6",
    "weights": "#3b6fb6",
    "adapter": "#8c6bb1",
    "gradients": "#b0679f",
    "optimizer": "#d1798f",
    "activations": "#e8a33d",
    "logits": "#c9c04c",
    "overhead": "#6c757d",
    "KV cache": "#4a9d6e",
    "left unused": "#e3e6e8",
    "free": "#e3e6e8",
}


def plot_plan(plan: ServingPlan, path: Path) -> None:
    """Draw memory as one stacked bar, and the requests at once over the length of a request.

    Raises:
        UsageError: matplotlib is missing, or the file's ending is not known.
    """
    figure = _figure(path, height=5.6)
    bar, frontier = figure.subplots(2, 1, height_ratios=[1, 3.2])
    parts = [(name, size) for name, size in plan.memory.parts() if size and name != "left unused"]
    parts += [("KV cache", max(0, plan.memory.kv_room)), ("left unused", plan.memory.unused)]
    _stack(bar, parts, plan.memory.device)
    asked = plan.question
    bar.set_title(f"{asked.model.name} ({asked.serving.weight_bits:.3g}-bit) on {asked.hardware}")
    _frontier(frontier, plan)
    figure.savefig(path, dpi=130)


def plot_training(model: str, card: str, forecast: TrainingForecast, free: int, path: Path) -> None:
    """Draw the forecast of a training step as one stacked bar, and what the card has.

    Raises:
        UsageError: as `plot_plan`.
    """
    figure = _figure(path, height=2.4)
    bar = figure.subplots()
    names = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead")
    parts = [(name, getattr(forecast, name)) for name in names]
    _stack(bar, [*parts, ("free", max(0, free - forecast.total))], free)
    bar.set_title(f"training {model} on {card}")
    figure.savefig(path, dpi=130)


def _figure(path: Path, height: float) -> Any:
    if path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(_ENDINGS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("--plot needs the package matplotlib: pip install matplotlib") from None
    return Figure(figsize=(8, height), layout="constrained")


def _stack(axes: Any, parts: list[tuple[str, int]], capacity: int) -> None:
    left = 0.0
    for name, size in parts:
        width = size / 2**30
        if width > 0:
            axes.barh([0], [width], left=left, color=_COLOURS[name], label=f"{name} {width:.2f}", edgecolor="white")
        left += width
    axes.axvline(capacity / 2**30, color="#c0392b", linewidth=1.5)
    axes.set_yticks([])
    axes.set_xlabel("GiB (red: what the card has)")
    axes.set_xlim(0, max(left, capacity / 2**30) * 1.02)
    axes.legend(ncols=4, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.18), frameon=False)


def _frontier(axes: Any, plan: ServingPlan) -> None:
    if plan.memory.kv_room < plan.layout.bytes_for(1, plan.question.serving.kv_value_bytes):
        axes.text(0.5, 0.5, "no room for a KV cache", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    value, room, layout = plan.question.serving.kv_value_bytes, max(0, plan.memory.kv_room), plan.layout
    prompt = min(plan.question.prompts)
    context = plan.question.model.config.get("max_position_embeddings") or 32_768
    answers = [round(32 * 2 ** (step / 4)) for step in range(60) if 32 * 2 ** (step / 4) + prompt <= context]
    reserved = [room // layout.bytes_for(prompt + answer, value) for answer in answers]
    paged = [
        concurrent_running(TrafficLengths.of([(prompt, answer)]), layout, room, value, plan.question.serving.page_size)
        for answer in answers
    ]
    axes.plot(answers, paged, color="#4a9d6e", label="paged: memory grows with the answer")
    axes.plot(answers, reserved, color="#3b6fb6", label="reserved: prompt + max_new_tokens")
    if plan.traffic is not None:
        axes.axhline(
            plan.traffic.paged, color="#4a9d6e", linestyle=":", label=f"your traffic, paged: {plan.traffic.paged}"
        )
        label = f"your traffic, {plan.traffic.max_new_tokens:,} reserved: {plan.traffic.reserved}"
        axes.axhline(plan.traffic.reserved, color="#3b6fb6", linestyle=":", label=label)
    if plan.question.concurrency is not None:
        axes.axhline(plan.question.concurrency, color="#c0392b", linewidth=1, label="asked for")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else "")
    axes.set_xlabel(f"tokens of the answer (prompt: {prompt:,})")
    axes.set_ylabel("requests at once")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)

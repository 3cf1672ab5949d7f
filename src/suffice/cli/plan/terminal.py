"""A plan in words and figures, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from suffice.memory.device import human_bytes

if TYPE_CHECKING:
    from suffice.memory import TrainingForecast
    from suffice.memory.plan import ServingPlan

__all__ = ["plan_lines", "training_lines"]


def plan_lines(plan: ServingPlan, price: float | None) -> list[str]:
    """The plan, the answer to the question first; `price` is of the card, per hour."""
    sections = [_verdicts(plan), _memory(plan), _traffic(plan), _table(plan), _speed(plan, price)]
    return [line for section in sections if section for line in (*section, "")][:-1]


def training_lines(title: str, forecast: TrainingForecast, free: int, changes: Sequence[str]) -> list[str]:
    """The forecast of a training step against `free` bytes, and the changes that would make it fit."""
    fits = forecast.total <= free
    verdict = f"{'yes' if fits else 'no'}: {title} {'fits' if fits else 'does not fit'}: "
    verdict += f"{human_bytes(forecast.total)} of {human_bytes(free)}"
    advice = [f"  would fit: {change}" for change in changes] or ["  no change would make it fit"]
    return [verdict, *([] if fits else advice), *forecast.lines()]


def _verdicts(plan: ServingPlan) -> list[str]:
    lines = []
    for verdict in plan.verdicts:
        lines.append(f"{'yes' if verdict.fits else 'no'}: {verdict.reason}")
        lines += [f"  would fit: {change}" for change in verdict.changes]
    return lines


def _memory(plan: ServingPlan) -> list[str]:
    asked, memory = plan.question, plan.memory
    serving = asked.serving
    notes = {
        "weights": f"{serving.weight_bits:.3g}-bit",
        "activations": f"{serving.step_tokens} tokens in one step, logits of {serving.step_requests} requests",
        "overhead": "the runtime: an allowance",
        "left unused": f"--utilization {asked.utilization:g}",
    }
    rows = [(name, human_bytes(size), notes.get(name, "")) for name, size in memory.parts() if size]
    per_token = plan.layout.bytes_per_token(serving.kv_value_bytes)
    if memory.kv_room > 0:
        note = f"{plan.kv_tokens:,} tokens of {per_token:,} bytes"
        if plan.layout.windows:
            note += (
                f", of which windows of {', '.join(f'{each:,}' for each in plan.layout.windows)} keep only the newest"
            )
        rows.append(("KV cache", human_bytes(memory.kv_room), note))
    else:
        rows.append(("missing", human_bytes(-memory.kv_room), "no room for a KV cache"))
    width = max(len(size) for _, size, _ in rows)
    head = f"{asked.model.name} on {asked.hardware}, {human_bytes(memory.device)}"
    head += f" each (tensor parallelism over {asked.cards}); on each card:" if asked.cards > 1 else ""
    about = [f"note: {asked.model.note}"] if asked.model.note else []
    return [head, *(f"  {name:<14} {size:>{width}}  {text}".rstrip() for name, size, text in rows), *about]


def _table(plan: ServingPlan) -> list[str]:
    if plan.memory.kv_room <= 0:
        return []
    answers = sorted({cell.max_new_tokens for cell in plan.cells})
    found = {(cell.prompt_tokens, cell.max_new_tokens): cell for cell in plan.cells}
    lines = [
        "requests at once: reserved for prompt + max_new_tokens / paged, every answer at its limit",
        "  " + f"{'prompt':>8}" + "".join(f"{f'{answer:,} new':>14}" for answer in answers),
    ]
    for prompt in sorted({cell.prompt_tokens for cell in plan.cells}):
        cells = [found[prompt, answer] for answer in answers]
        lines.append("  " + f"{prompt:>8,}" + "".join(f"{f'{cell.reserved} / {cell.paged}':>14}" for cell in cells))
    return lines


def _traffic(plan: ServingPlan) -> list[str]:
    traffic = plan.traffic
    if traffic is None:
        return []
    prompt, answer = traffic.lengths.mean()
    _, high = traffic.lengths.quantile(0.99)
    limit = f"max_new_tokens={traffic.max_new_tokens:,}"
    skipped = f", {traffic.lengths.skipped:,} rows without both lengths left out" if traffic.lengths.skipped else ""
    return [
        f"with your traffic: {traffic.paged} requests at once on a paged engine; with {limit} reserved for each: "
        f"{traffic.reserved}",
        f"  {traffic.lengths.rows:,} requests, prompts {prompt:,.0f} and answers {answer:,.0f} tokens on average, 99 % "
        f"of the answers within {high:,}{skipped}",
        f"  {limit} would cut {100 * traffic.cut_share:.1f} % of the answers; 99 % of all moments fit",
    ]


def _speed(plan: ServingPlan, price: float | None) -> list[str]:
    best = plan.speed
    if best is None:
        return []
    first = f"{1000 * best.first_token:.0f} ms to the first token after a prompt of {best.prompt_tokens:,.0f} tokens, "
    first += f"{1000 * best.per_token:.1f} ms per token"
    lines = [
        f"at best, by bandwidth and arithmetic alone, {best.concurrency} at once{_links(plan)}:",
        f"  {first}, {best.answer_seconds:.1f} s for an answer of {best.answer_tokens:,.0f} tokens, "
        f"{best.answers_per_hour:,.0f} answers per hour",
    ]
    if price is not None:
        cards = plan.question.cards
        each = f" for each of {cards} cards" if cards > 1 else ""
        lines.append(f"  {best.cost(price * cards):.3g} per 1,000 answers at {price:g} per hour{each}")
    return lines


def _links(plan: ServingPlan) -> str:
    """What several cards cost, as far as it is counted."""
    asked = plan.question
    if asked.cards == 1 or asked.card.link is None:
        return ""
    return f" (cards linked with {asked.card.link / 1e9:,.0f} GB/s, two sums per layer, their start not counted)"

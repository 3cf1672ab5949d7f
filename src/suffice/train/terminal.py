"""What a run will learn and what it will take, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from suffice.memory import human_bytes
from suffice.train.forecast import RunForecast
from suffice.train.prepare import Prepared
from suffice.train.rows import RowSet, places

__all__ = ["forecast_lines", "prepared_lines"]

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def prepared_lines(prepared: Prepared, max_length: int) -> list[str]:
    """The rows per dataset, why some were dropped, and the lengths of those that are learned from."""
    rows = f"{len(prepared.train)} rows to train on, {len(prepared.validation)} to validate"
    lengths = [
        f"{'tokens':<8}" + "".join(f"{name:>7}" for name in _QUANTILES),
        f"{'prompt':<8}" + _quantiles([row.prompt_tokens for row in prepared.train]),
        f"{'answer':<8}" + _quantiles([row.answer_tokens for row in prepared.train]),
    ]
    return [*_datasets(prepared), *_reasons(prepared, max_length), *prepared.found.notes, rows, *lengths]


def forecast_lines(forecast: RunForecast) -> list[str]:
    """The memory part by part, whether it fits and what would, the steps and the time."""
    if forecast.memory is None:
        return ["memory: no forecast for this architecture", f"{forecast.steps} steps"]
    needed, verdict = human_bytes(forecast.memory.total), "fits" if forecast.fits else "does not fit"
    lines = [*forecast.memory.lines(), f"{verdict}: {needed} of {human_bytes(forecast.free)} free"]
    if not forecast.fits:
        lines += [f"would fit: {change}" for change in forecast.suggestions] or ["nothing would make it fit here"]
    seconds = forecast.seconds or 0
    time = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return [*lines, f"{forecast.steps} steps, roughly {time} (measured by a matrix product)"]


def _datasets(prepared: Prepared) -> list[str]:
    counts = [(spec, read, prepared.kept[spec]) for spec, read in prepared.found.read.items()]
    width = max(7, *(len(spec) for spec, _, _ in counts))
    lines = [f"{spec:<{width}}  {read:>7}  {kept:>7}  {read - kept:>7}" for spec, read, kept in counts]
    return [f"{'dataset':<{width}}  {'read':>7}  {'kept':>7}  {'dropped':>7}", *lines]


def _reasons(prepared: Prepared, max_length: int) -> list[str]:
    found = prepared.found
    lines = _dropped(found)
    if prepared.cut:
        lines.append(f"cut at max_length {max_length}: {prepared.cut} rows, whose answers do not end any more")
    if again := found.duplicates():
        lines.append(f"duplicates, kept: {len(again)} ({places(again)})")
    if found.filled:
        lines.append(f"names filled in: {found.filled} rows")
    return lines


def _dropped(found: RowSet) -> list[str]:
    lines = []
    for reason in dict.fromkeys(each.reason for each in found.dropped):
        rows = [each for each in found.dropped if each.reason == reason]
        lines.append(f"dropped, {reason}: {len(rows)} ({places(rows)})")
        if rows[0].detail:
            lines.append(f"  {rows[0].source} line {rows[0].line}: {rows[0].detail}")
    return lines


def _quantiles(values: Sequence[int]) -> str:
    ordered = sorted(values)
    return "".join(f"{ordered[round(q * (len(ordered) - 1))]:>7}" for q in _QUANTILES.values())

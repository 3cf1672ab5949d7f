"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from suffice.cli.terminal import is_live

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.progress import Progress as Bar
    from rich.progress import Task

__all__ = ["ProgressBar", "fitting"]

_PLAIN_SECONDS = 5.0  # between two plain lines
_BAR_COLUMNS = 16
_ORDER = ("what", "bar", "counts", "rate", "time", "note")


class ProgressBar:
    """Shows how far a piece of work of `total` units is (None: unknown). Use it as a context manager.

    Where the terminal is narrow, the note goes first, then the bar, and rate and time left go last; how much is done
    of how much stays.
    """

    def __init__(self, what: str, total: int | None, unit: str = "rows") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._note = 0, ""
        self._shown: tuple[int, str] | None = None
        self._started = self._shown_at = time.monotonic()
        self._bar = _new_bar() if is_live(sys.stderr) else None
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=total, rate="", note="")

    def update(self, done: int, note: str = "") -> None:
        """`done` units are done in all; `note` is shown beside them."""
        self._done, self._note = done, note
        if self._bar is not None:
            self._bar.update(self._task, completed=done, rate=f"{self._rate():.1f} {self._unit}/s", note=note)
        elif time.monotonic() - self._shown_at >= _PLAIN_SECONDS:
            self._plain()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._shown != (self._done, self._note):  # the last step may have been shown as it was done
            self._plain()

    def _rate(self) -> float:
        return self._done / max(1e-9, time.monotonic() - self._started)

    def _plain(self) -> None:
        self._shown_at = time.monotonic()
        left = ""
        if self._total and self._done and self._done < self._total:
            left = f", {(self._total - self._done) / self._rate():.0f} s left"
        of = f"/{self._total}" if self._total else ""
        line = f"{self._what}: {self._done}{of} {self._unit}, {self._rate():.1f} {self._unit}/s{left}  {self._note}"
        print(line.rstrip(), file=sys.stderr, flush=True)
        self._shown = self._done, self._note


def fitting(width: int, counts: str, parts: dict[str, str], note: str) -> dict[str, str]:
    """What of a line fits into `width` columns, with two between its parts.

    `counts` always; of `parts` as many as fit, the first ones first; of `note` as much as is left room for, up to a
    comma.
    """
    shown, left = {"counts": counts}, width - len(counts)
    for name, text in parts.items():
        if text and len(text) + 2 > left:
            return shown
        if text:
            shown[name] = text
            left -= len(text) + 2
    while note and len(note) + 2 > left:
        note = note.rpartition(", ")[0]
    return shown | ({"note": note} if note else {})


def _new_bar() -> Bar:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress_bar import ProgressBar as Stripe
    from rich.table import Table

    class FittingBar(Bar):
        """One line, made for the width that the terminal has now."""

        def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
            table = Table.grid(padding=(0, 2, 0, 0))
            for task in tasks:
                # a line that fills its row makes some terminals begin another one
                cells: dict[str, Any] = dict(fitting(self.console.width - 1, *_parts(task)))
                if "bar" in cells:
                    cells["bar"] = Stripe(task.total or 100, task.completed, _BAR_COLUMNS, pulse=task.total is None)
                table.add_row(*(cells[name] for name in _ORDER if name in cells))
            return table

    return FittingBar(console=Console(stderr=True))


def _parts(task: Task) -> tuple[str, dict[str, str], str]:
    """What `fitting` is asked about a task, the most important first."""
    left = None if task.finished else task.time_remaining
    return (
        f"{task.completed:.0f}" + ("" if task.total is None else f"/{task.total:.0f}"),
        {
            "time": "" if left is None else f"{_clock(left)} left",
            "rate": task.fields["rate"],
            "what": task.description,
            "bar": "-" * _BAR_COLUMNS,
        },
        task.fields["note"],
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

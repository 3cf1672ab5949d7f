"""Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["ProgressBar"]

_PLAIN_SECONDS = 5.0  # between two plain lines


class ProgressBar:
    """Shows how far a piece of work of `total` units is (None: unknown). Use it as a context manager."""

    def __init__(self, what: str, total: int | None, unit: str = "rows") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done, self._note = 0, ""
        self._shown: tuple[int, str] | None = None
        self._started = self._shown_at = time.monotonic()
        self._bar = _new_bar() if sys.stderr.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(what, total=total, note="")

    def update(self, done: int, note: str = "") -> None:
        """`done` units are done in all; `note` is shown beside them."""
        self._done, self._note = done, note
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=f"{self._rate():.1f} {self._unit}/s  {note}")
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


def _new_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )

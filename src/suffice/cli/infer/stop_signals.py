"""Ctrl-C and SIGTERM while a dataset is answered: the first one ends the work in order, the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["STOPPED", "StopSignals"]

STOPPED = 130
"""The exit status of a program that Ctrl-C has stopped (128 + SIGINT)."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Takes both signals while it is entered, in the main thread; elsewhere it does nothing.

    The first signal cancels the task that `watch` was called in, or raises KeyboardInterrupt before that. The second
    ends the process there and then: a result file survives that as it survives a crash.
    """

    def __init__(self) -> None:
        self.received = False
        self._cancel: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._before: dict[int, Any] = {}

    def watch(self) -> None:
        """The task that runs now is the one to cancel."""
        task = asyncio.current_task()
        assert task is not None
        self._cancel = asyncio.get_running_loop(), task
        if self.received:
            task.cancel()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._on_signal) for each in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(STOPPED)
        self.received = True
        if self._cancel is None:
            raise KeyboardInterrupt
        loop, task = self._cancel
        if not loop.is_closed():  # else all is answered, and what is left takes a moment
            loop.call_soon_threadsafe(self._stop, task)

    def _stop(self, task: asyncio.Task[Any]) -> None:
        """In the event loop, where a line can be written: a signal may come in the middle of another one."""
        print("stopping (once more leaves at once)", file=sys.stderr)
        task.cancel()

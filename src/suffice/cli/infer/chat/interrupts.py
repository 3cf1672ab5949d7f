"""Ctrl-C while something is awaited: once, and however often it is pressed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["interruptible"]

_T = TypeVar("_T")
_PATIENCE = 3
"""At this press, whatever still holds the work up is cancelled too."""


async def interruptible(work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` returns. Ctrl-C cancels it, and pressing it again while it ends does not cost what it returns.

    Raises:
        KeyboardInterrupt: it was cancelled, and returned nothing.
    """
    loop, task, presses = asyncio.get_running_loop(), asyncio.ensure_future(work), 0

    def press() -> None:
        nonlocal presses
        presses += 1
        if presses == 1 or presses >= _PATIENCE:
            task.cancel()

    try:
        loop.add_signal_handler(signal.SIGINT, press)
    except (NotImplementedError, ValueError):  # Windows, or another thread: the runner cancels
        return await task
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)

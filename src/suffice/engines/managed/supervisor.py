"""Runs one command, and ends it with everything that it has started, whatever happens to whoever wanted it.

A program of its own (`python -I -S supervisor.py SECONDS COMMAND...`), because a process that is killed can clean up
nothing. Standard input is a pipe whose other end Suffice holds: when it closes, because Suffice wants the end or has
died, the command gets SIGTERM, and after SECONDS all that is left gets SIGKILL. It imports nothing of Suffice, and
exits as the command did (128 and the signal's number, where a signal ended it).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["main"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LOOK_EVERY = 1.0  # seconds between two looks at whether the parent is still there, should its pipe have been inherited
_LAST_SECONDS = 1.0  # for what a dead command leaves behind to end by itself
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> int:
    grace, command = float(arguments[0]), arguments[1:]
    parent = os.getppid()
    prctl = _prctl()
    prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what the command's children start is ours when they die
    woken = _signal_pipe()
    # single-threaded here, so code between fork and exec is safe
    server = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    )
    status = _until_over(server.pid, parent, woken)
    if status is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGTERM)
        status = _until_gone(server.pid, time.monotonic() + grace)
    _end_the_rest(time.monotonic() + min(grace, _LAST_SECONDS))
    server.returncode = 0  # it has been waited for
    return status if status is not None else 128 + signal.SIGKILL


def _until_over(pid: int, parent: int, woken: int) -> int | None:
    """The command's exit status, or None when it is to be ended."""
    while True:
        ready, _, _ = select.select([0, woken], [], [], _LOOK_EVERY)
        signals = os.read(woken, 64) if woken in ready else b""
        if (status := _reap(pid)) is not None:
            return status
        gone = 0 in ready and not os.read(0, 64)
        if gone or os.getppid() != parent or any(each in signals for each in _STOP):
            return None


def _until_gone(pid: int, deadline: float) -> int | None:
    while time.monotonic() < deadline:
        if (status := _reap(pid)) is not None:
            return status
        time.sleep(0.02)
    return None


def _end_the_rest(deadline: float) -> None:
    """SIGTERM to every descendant, and SIGKILL to those that are left at the deadline."""
    asked: set[int] = set()
    while left := set(_descendants()):
        late = time.monotonic() >= deadline
        for pid in left if late else left - asked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= left
        _reap(-1)
        time.sleep(0.02)


def _reap(wanted: int) -> int | None:
    """Wait for every child that has ended; the exit status of `wanted`, if it is among them."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == wanted:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else 128 - code
    return found


def _descendants() -> Iterator[int]:
    """Processes that this one has started, and those that they have, from /proc (Linux)."""
    parents = {}
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = each.read_text(errors="replace").rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(each.parent.name)] = int(parent)
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
        yield from more


def _signal_pipe() -> int:
    """A pipe's end that can be read after each signal, with the signals' numbers."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for each in (signal.SIGCHLD, *_STOP):
        signal.signal(each, lambda *_: None)
    return read


def _prctl() -> Callable[[int, int], object]:
    """Linux's prctl(2); elsewhere nothing."""
    if sys.platform != "linux":
        return lambda option, value: None
    return ctypes.CDLL(None).prctl


def _remove_own_folder() -> None:
    """The folder that was made for this run, with this copy of the program in it."""
    folder = Path(__file__).parent
    if folder.name.startswith("engine-"):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    finally:
        _remove_own_folder()

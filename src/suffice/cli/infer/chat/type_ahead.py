"""Keeps what is typed while an answer is being written for the next prompt, instead of mixing it into the answer."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["keep_pastes_whole", "quiet_terminal"]

_PASTES_MARKED, _PASTES_PLAIN = "\x1b[?2004h", "\x1b[?2004l"


@contextmanager
def quiet_terminal() -> Iterator[None]:
    """While the chat lasts, nothing that is typed is echoed, edited or thrown away by the terminal itself.

    What is typed during an answer waits, line by line or half a line, until the next prompt reads it. Ctrl-C is a
    signal as ever, but flushes neither that nor the answer's text on its way to the screen.
    """
    try:
        import termios
    except ImportError:  # Windows, whose console keeps what is typed by itself
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    mode = termios.tcgetattr(terminal)
    mode[0] &= ~termios.ICRNL  # Enter stays Enter, as prompts read it
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    mode[3] |= termios.ISIG | termios.NOFLSH
    old = signal.signal(signal.SIGTERM, _leave)  # which would end the program at once, and leave the terminal so
    termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
    try:
        keep_pastes_whole()
        yield
    finally:
        print(_PASTES_PLAIN, end="", flush=True)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, old)


def keep_pastes_whole() -> None:
    """Have the terminal mark what is pasted from now on, so that its lines stay together."""
    print(_PASTES_MARKED, end="", flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)

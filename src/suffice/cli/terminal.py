"""What the terminal can do, and text that comes from others made safe for it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import IO

__all__ = ["columns_of", "is_live", "visible"]

_DANGEROUS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, what reorders text (CVE-2021-42574), and half characters."""


def visible(text: str) -> str:
    r"""`text` with every character that could command a terminal or reorder the line written out, as `\x1b`.

    Answers, thinking and errors of servers are somebody else's text: an escape sequence in them could clear the screen,
    set the title or the clipboard, or make the terminal type for the user.
    """
    return _DANGEROUS.sub(_written_out, text.replace("\r\n", "\n"))


def _written_out(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def is_live(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal whose cursor can be moved: not a file, and not a dumb terminal."""
    if not stream.isatty():
        return False
    if sys.platform != "win32":
        return os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    from rich.console import Console  # it knows the consoles of Windows that take no escape sequences

    return not Console(file=stream).legacy_windows


def columns_of(stream: IO[str]) -> int:
    """The width of the terminal behind `stream`; 0 where it cannot be known.

    The terminal itself is asked first: the variable COLUMNS does not follow a window that changes its size.
    """
    try:
        columns = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):  # there is no terminal behind it
        columns = 0
    return columns or shutil.get_terminal_size((0, 0)).columns

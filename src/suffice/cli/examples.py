"""Examples of a help page: a command, and what it does after two spaces or more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from textwrap import wrap
from unicodedata import east_asian_width

__all__ = ["example_lines"]

_CONTINUES = "    "
_WORD = r"""(?:[^\s'"]|'[^']*'|"[^"]*")+"""


def example_lines(examples: str, width: int) -> Iterator[str]:
    """The examples as lines of at most `width` columns.

    Where a line is too long, what the command does goes before it, as a comment, and the command continues on the next
    line, so that it can be copied as it stands. A part without a space is never broken.
    """
    lines = [line.strip() for line in examples.strip().splitlines()]
    fits = all(_columns(line) <= width for line in lines)
    for line in lines:
        command, about = [*re.split(r" {2,}", line, maxsplit=1), ""][:2]
        if fits or (_columns(line) <= width and not about):
            yield line
            continue
        if about:
            yield from wrap(about, width, initial_indent="# ", subsequent_indent="# ")
        yield from _continued(command, width)


def _continued(command: str, width: int) -> Iterator[str]:
    """A command over several lines, broken before a flag or a word, never inside quotes or before a flag's value."""
    parts = re.findall(rf"--[\w-]+ (?!-){_WORD}|{_WORD}", command)
    line, lines = "", []
    for part, after in zip_longest(parts, parts[1:]):
        longer = f"{line} {part}" if line else part
        if line and _columns(longer) > width - (2 if after is not None else 0):
            lines.append(line)
            longer = _CONTINUES + part
        line = longer
    lines.append(line)
    yield from (f"{each} \\" for each in lines[:-1])
    yield lines[-1]


def _columns(text: str) -> int:
    return sum(2 if east_asian_width(sign) in "WF" else 1 for sign in text)

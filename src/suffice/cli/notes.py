"""Lines on standard error about what is going on: faint, safe, and wrapped at words where that is a terminal."""

from __future__ import annotations

import sys

from suffice.cli.terminal import columns_of, is_live, visible
from suffice.cli.word_wrap import wrapped

__all__ = ["dim", "note"]


def dim(text: str) -> str:
    """`text` in the terminal's faint style; unchanged where standard error is not a terminal that has one."""
    return f"\x1b[2m{text}\x1b[0m" if is_live(sys.stderr) else text


def note(text: str) -> None:
    """Print `text`, one line or several, of which anything may come from a model or a server."""
    columns = columns_of(sys.stderr) if is_live(sys.stderr) else 0
    print(dim(wrapped(text, columns) if columns else visible(text)), file=sys.stderr, flush=True)

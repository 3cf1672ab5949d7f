"""Lines on standard error about what is going on: safe, and wrapped at words where that is a terminal."""

from __future__ import annotations

import sys

from suffice.cli.terminal import columns_of, is_live, visible

__all__ = ["dim", "note", "tell"]


def dim(text: str) -> str:
    """`text` in the terminal's faint style; unchanged where standard error is not a terminal that has one."""
    return f"\x1b[2m{text}\x1b[0m" if is_live(sys.stderr) else text


def note(text: str) -> None:
    """Print `text`, one line or several, of which anything may come from a model or a server; it is faint."""
    print(dim(_placed(text)), file=sys.stderr, flush=True)


def tell(text: str) -> None:
    """Print `text` as `note` does, but not faint: errors, notices, what a run sums up."""
    print(_placed(text), file=sys.stderr, flush=True)


def _placed(text: str) -> str:
    columns = columns_of(sys.stderr) if is_live(sys.stderr) else 0
    if not columns:
        return visible(text)
    from suffice.cli.word_wrap import wrapped  # rich takes a hundredth of a second

    return wrapped(text, columns)

"""A streamed answer on a terminal: its text on standard output, notes about it, faint, on standard error."""

from __future__ import annotations

import shutil
import sys
import unicodedata

from suffice.session import Event, Progress, Repetition, Text, Thinking

__all__ = ["Screen", "dim"]

_SAVE, _RESTORE, _ERASE = "\x1b7", "\x1b8", "\x1b[K"


def dim(text: str) -> str:
    """`text` in the terminal's faint style; unchanged where standard error is not a terminal."""
    return f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text


class Screen:
    """Shows the events of one answer as they come.

    What is left (`about 350 tokens, 12 s left`) is shown after the text where the line has room for it, and is erased
    before more text comes; thinking and notes are shown only if standard error is a terminal.

    Args:
        stream: show the answer's text too.
    """

    def __init__(self, *, stream: bool) -> None:
        self.watched = sys.stderr.isatty() and (sys.stdout.isatty() or not stream)
        """Whether a person sees the text and the notes, so that `Progress` events are useful."""
        self._stream, self._faint = stream, sys.stderr.isatty()
        self._column = 0
        self._thinking = self._noted = False

    def show(self, event: Event) -> None:
        match event:
            case Progress() if self.watched:
                self._note(f"about {event.remaining_tokens} tokens, {event.remaining_seconds:.0f} s left")
            case Thinking(text) if self._faint and self._stream:
                self._thinking = True
                self._write(text, sys.stderr, dim(text))
            case Text(text) if self._stream:
                if self._thinking:
                    self._write("\n\n", sys.stderr, "\n\n")
                self._thinking = False
                self._write(text, sys.stdout, text)
            case Repetition() if self._stream or self._faint:
                about = "\n" + _about_loop(event) + "\n"
                self._write(about, sys.stderr, dim(about))

    def close(self) -> None:
        if self._noted:
            print(_ERASE, end="", file=sys.stderr, flush=True)
            self._noted = False

    def _write(self, text: str, where: object, shown: str) -> None:
        self.close()
        print(shown, end="", file=where, flush=True)  # type: ignore[call-overload]
        last = text.rpartition("\n")
        self._column = (0 if last[1] else self._column) + sum(map(_width, last[2]))

    def _note(self, text: str) -> None:
        """Behind the text, if the line has room: a note that wraps could not be taken back."""
        width = shutil.get_terminal_size().columns
        if self._column % width + len(text) + 3 < width:
            print(f"{_SAVE}  {dim(text)}{_ERASE}{_RESTORE}", end="", file=sys.stderr, flush=True)
            self._noted = True


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _about_loop(loop: Repetition) -> str:
    what = "thinking" if loop.thinking else "the answer"
    words = f"({what} loops: {loop.period} {loop.unit} again and again"
    if loop.copies:
        words += f"; the last {loop.copies[1] - loop.copies[0]} characters are copies"
    return words + ("; stopped)" if loop.stopped else ")")

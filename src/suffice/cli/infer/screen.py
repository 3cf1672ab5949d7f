"""A streamed answer on a terminal: its text on standard output, notes about it, faint, on standard error."""

from __future__ import annotations

import sys
from typing import IO

from suffice.cli.live_text import LiveText
from suffice.cli.notes import dim
from suffice.cli.terminal import columns_of, is_live, visible
from suffice.session import Event, Progress, Repetition, Text, Thinking

__all__ = ["Screen"]


class Screen:
    """Shows the events of one answer as they come.

    A file or a pipe gets the answer as the model wrote it. A terminal gets it with words that wrap whole and control
    characters written out, and on the row below what is left (`about 350 tokens, 12 s left`). Thinking and notes are
    shown only if standard error is a terminal. A terminal that cannot move its cursor gets no more than text.

    Args:
        stream: show the answer's text as it comes.
        raw: give a terminal, too, the text as the model wrote it: its control characters act.
    """

    def __init__(self, *, stream: bool, raw: bool = False) -> None:
        self._stream, self._raw = stream, raw
        self._thinking = False
        terminals = [each for each in (sys.stderr, sys.stdout) if each.isatty()]
        live = terminals and not raw and all(map(is_live, terminals)) and columns_of(terminals[0])
        self._live = LiveText(terminals[0]) if live else None
        seen = sys.stderr.isatty() and (sys.stdout.isatty() or not stream)
        self.watched = seen and self._live is not None
        """Whether a person sees the text and the note below it, so that `Progress` events are useful."""

    def show(self, event: Event) -> None:
        match event:
            case Progress() if self._live is not None and self.watched:
                self._live.note(f"about {event.remaining_tokens} tokens, {event.remaining_seconds:.0f} s left")
            case Thinking(text) if self._stream and sys.stderr.isatty():
                self._thinking = True
                self._write(text, sys.stderr, faint=True)
            case Text(text) if self._stream:
                self.write(text)
            case Repetition() if self._stream and (event.thinking or not event.stopped):
                self._flush()
                self._write("\n" + _about_loop(event) + "\n", sys.stderr, faint=True)

    def write(self, text: str) -> None:
        """Show a piece of the answer, or all of it."""
        if self._thinking:
            self._flush()
            self._write("\n\n", sys.stderr)
        self._thinking = False
        self._write(text, sys.stdout)

    def close(self) -> None:
        """Show the last word and take the note away. More may follow, on a row that is begun for it."""
        self._flush()
        if self._live is not None:
            self._live.note("")

    def _flush(self) -> None:
        if self._live is not None:
            self._live.flush(sys.stderr if self._thinking else sys.stdout, faint=self._thinking)

    def _write(self, text: str, where: IO[str], *, faint: bool = False) -> None:
        if self._live is not None and where.isatty():
            self._live.write(text, where, faint=faint)
        else:
            shown = text if self._raw or not where.isatty() else visible(text)
            print(dim(shown) if faint else shown, end="", file=where, flush=True)


def _about_loop(loop: Repetition) -> str:
    """Of a loop that does not end the answer: the line about the answer says what ended it."""
    what = "thinking" if loop.thinking else "the answer"
    then = "it is closed here, and the answer follows" if loop.stopped else "it goes on"
    return f"({what} loops: {loop.period} {loop.unit} again and again; {then})"

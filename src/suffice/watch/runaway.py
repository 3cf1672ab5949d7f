"""The runaway detector: does this answer say the same thing again and again, so that only a limit would end it?

What is told is a loop to the letter, and a numbered list of prose that is stuck on one sentence. What advances, however
little, is left alone: docs/runaways.md has the rule and its reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from suffice.watch.numbered_list import NumberedList
from suffice.watch.repetition_score import VerbatimRun
from suffice.watch.repetition_wanted import prompt_text, turns_wanted
from suffice.watch.units import TextUnits, TokenUnits

__all__ = ["Notice", "Runaway", "RunawayDetector"]

_NOTICEABLE = 200  # lines
_MOST_PIECES = 256  # kept for a line to come to its end


@dataclass(frozen=True, slots=True)
class Runaway:
    """A loop that an answer fell into, in tokens where `push` found it and in characters where `push_text` did."""

    onset: int
    """Where its first turn begins: the tokens or characters before it. In a stuck list: where its last item begins."""
    period: int
    """The length of that turn."""
    at: int
    """How much of the answer had been taken when the loop was told."""

    @property
    def keep(self) -> int:
        """`onset + period`: how much is kept when the loop is cut back to its first full turn: `answer[:keep]`.

        What follows, up to `at`, is a copy of that turn to the letter. A stuck list is kept whole, up to `at`.
        """
        return self.onset + self.period


@dataclass(frozen=True, slots=True)
class Notice:
    """An answer that has written line after line which differ in numbers only. It advances: nothing needs to stop."""

    lines: int
    """How many such lines in a row there were."""
    at: int
    """How much of the answer had been taken then, in tokens or characters."""


class RunawayDetector:
    """Watches one answer as it is generated and tells once when it has become a loop.

    Call either `push` for every token id or `push_text` for every piece of text, not both. After the report both return
    None; `runaway` keeps it. Work per token is constant (amortised), memory is bounded by some 130 KB whatever the
    answer's length. Not safe for several threads at once; one detector belongs to one answer.

    Args:
        prompt: what was asked, a string, chat messages or a `Prompt`; it is read only when a loop is about to be told,
            and grants as many turns as it asks for or shows itself.
        decode: the text of one token id, for `push`. Without it every token counts as a word, and stuck lists are not
            seen. What it returns is remembered for as long as the function lives: give every detector of one model
            the same function.
    """

    def __init__(self, prompt: object = None, decode: Callable[[int], str] | None = None) -> None:
        self._prompt = prompt
        self._units = TokenUnits.of(decode)
        self._text = TextUnits()
        self._run = VerbatimRun()
        self._list = NumberedList()
        self._pieces: list[str] = []  # what the list has not read yet
        self._taken = 0
        self.runaway: Runaway | None = None
        """The report, once there is one."""
        self.notice: Notice | None = None
        """The answer goes on and on, and advances; once there are 200 such lines."""

    def push(self, token_id: int) -> Runaway | None:
        """Take the next token id; the report if the answer loops by now."""
        if self.runaway is not None:
            return None
        unit = self._units[token_id]
        looping = self._run.take(unit, self._taken)
        self._taken += 1
        stuck = self._stuck(unit.text)
        return self._tell(looping) if looping or stuck else None

    def push_text(self, piece: str) -> Runaway | None:
        """Take the next piece of text, cut anywhere; the report if the answer loops by now."""
        if self.runaway is not None:
            return None
        self._taken += len(piece)
        looping = False
        for start, unit in self._text.push(piece):
            looping = self._run.take(unit, start)
        stuck = self._stuck(piece)
        return self._tell(looping) if looping or stuck else None

    def _stuck(self, text: str) -> bool:
        """Whether `text` ends a line that leaves a numbered list stuck."""
        pieces = self._pieces
        pieces.append(text)
        if "\n" not in text and len(pieces) < _MOST_PIECES:
            return False
        stuck = self._list.take("".join(pieces), self._taken)
        pieces.clear()
        if self.notice is None and self._list.alike >= _NOTICEABLE:
            self.notice = Notice(self._list.alike, self._taken)
        return stuck

    def _tell(self, looping: bool) -> Runaway | None:
        """The report, unless the prompt asks for as much."""
        if self._prompt is not None:
            self._run.granted, self._prompt = turns_wanted(prompt_text(self._prompt)), None
            looping = looping and self._run.look()
        if looping:
            begin, end = self._run.turn(self._taken)
        elif self._list.number > self._run.granted:
            begin, end = self._list.last_item
        else:
            return None
        self.runaway = Runaway(begin, end - begin, self._taken)
        return self.runaway

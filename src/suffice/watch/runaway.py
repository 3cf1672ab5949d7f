"""The runaway detector: does this answer say the same thing again and again, so that only a limit would end it?

What is told is a loop to the letter, a numbered list of prose that is stuck on one sentence, and what has gone far past
a number that the prompt asks for. What advances otherwise is left alone: docs/runaways.md has the rule and its reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from suffice.watch.advance import LONGEST_ROW, Advance
from suffice.watch.number_wanted import LEAST_BOUND, Bounds, bounds
from suffice.watch.numbered_list import NumberedList
from suffice.watch.repetition_score import VerbatimRun
from suffice.watch.repetition_wanted import prompt_text, turns_wanted
from suffice.watch.units import CHARACTERS, TextUnits, TokenUnits

__all__ = ["Notice", "Runaway", "RunawayDetector", "RunawayKind"]

_NOTICEABLE = 200  # lines
_MOST_PIECES = 256  # kept for a line to come to its end
_LONGEST_LINE = 4000  # characters read


RunawayKind = Literal["verbatim", "stuck_list", "beyond_request"]
"""A loop to the letter; a list that says the same under one number after another; far more than the prompt asks for."""


@dataclass(frozen=True, slots=True)
class Runaway:
    """A loop that an answer fell into, in tokens where `push` found it and in characters where `push_text` did."""

    onset: int
    """Where its first turn begins: the tokens or characters before it. In a list: where its last item begins."""
    period: int
    """The length of that turn."""
    at: int
    """How much of the answer had been taken when the loop was told."""
    kind: RunawayKind = "verbatim"

    @property
    def keep(self) -> int:
        """`onset + period`: how much is kept when the loop is cut back to its first full turn: `answer[:keep]`.

        What follows, up to `at`, is a copy of that turn to the letter. A list is kept whole, up to `at`.
        """
        return self.onset + self.period


@dataclass(frozen=True, slots=True)
class Notice:
    """An answer that has written row after row which differ in numbers only. It advances: nothing needs to stop."""

    lines: int
    """How many lines of such rows there were."""
    at: int
    """How much of the answer had been taken then, in tokens or characters."""


class RunawayDetector:
    """Watches one answer as it is generated and tells once when it has become a loop.

    Call either `push` for every token id or `push_text` for every piece of text, not both. After the report both return
    None; `runaway` keeps it. Work per token is constant (amortised), memory is bounded by some 130 KB whatever the
    answer's length. Not safe for several threads at once; one detector belongs to one answer.

    Args:
        prompt: what was asked, a string, chat messages or a `Prompt`. It is read once when a loop is about to be told,
            and grants as many turns as it asks for or shows itself; and once when more than a hundred items were made,
            for a number of them that it asks for.
        decode: the text of one token id, for `push`. Without it every token counts as a word, and stuck lists are not
            seen. What it returns is remembered for as long as the function lives: give every detector of one model
            the same function.
    """

    def __init__(self, prompt: object = None, decode: Callable[[int], str] | None = None) -> None:
        self._prompt = prompt
        self._granted: int | None = None
        self._bounds: Bounds | None = None
        self._units = TokenUnits.of(decode)
        self._text = TextUnits()
        self._run = VerbatimRun()
        self._list = NumberedList()
        self._advance = Advance()
        self._pieces: list[str] = []  # what has not been read for lists and rows yet
        self._line = ""
        self._begin = self._end = 0  # of what was read for lists and rows last
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
        far = self._far(unit.text)
        return self._tell(looping, far) if looping or far else None

    def push_text(self, piece: str) -> Runaway | None:
        """Take the next piece of text, cut anywhere; the report if the answer loops by now."""
        if self.runaway is not None:
            return None
        self._taken += len(piece)
        self._run.unit_size = CHARACTERS
        looping = False
        for start, unit in self._text.push(piece):
            looping = self._run.take(unit, start)
        far = self._far(piece)
        return self._tell(looping, far) if looping or far else None

    def _far(self, text: str) -> Literal["", "stuck_list", "beyond_request"]:
        """Whether `text` ends an item that leaves a list stuck, or is far past what was asked for."""
        pieces = self._pieces
        pieces.append(text)
        if "\n" not in text and len(pieces) < _MOST_PIECES:
            return ""
        text = "".join(pieces)
        self._begin, self._end = self._end, self._taken
        pieces.clear()
        *lines, line = (self._line + text).split("\n")
        self._line = line[:_LONGEST_LINE]
        stuck = False
        for each in lines:
            stuck |= self._list.read(each, self._taken)
            self._advance.read(each)
        self._advance.count(text)
        return "stuck_list" if stuck else "beyond_request" if self._many() and self._past() else ""

    def _many(self) -> bool:
        """Whether there is enough of anything to look at; notices rows."""
        rows = self._advance.alike
        if self.notice is None and rows >= _NOTICEABLE - LONGEST_ROW and self._advance.lines >= _NOTICEABLE:
            self.notice = Notice(self._advance.lines, self._taken)
        return max(rows + 1, self._list.items - 1, self._advance.counted) >= LEAST_BOUND

    def _past(self) -> bool:
        """Whether far more was made than the prompt wants, and the last of it is complete."""
        if self._line.strip() and not self._advance.between:
            return False
        if self._bounds is None:
            self._bounds = bounds(self._prompt)
        made = (self._list.items - 1, self._advance.rows, self._advance.counted)  # the last item may go on
        return any(count >= bound for count, bound in zip(made, self._bounds, strict=True))

    def _tell(self, looping: bool, far: RunawayKind | Literal[""]) -> Runaway | None:
        """The report, unless the prompt asks for as much."""
        if self._granted is None:
            self._run.granted = self._granted = turns_wanted(prompt_text(self._prompt))
            looping = looping and self._run.look()
        if looping:
            begin, end = self._run.turn(self._taken)
        elif far == "beyond_request":
            begin, end = self._begin, self._taken
        elif far and self._list.number > self._granted:
            begin, end = self._list.last_item
        else:
            return None
        kind: RunawayKind = "verbatim" if looping or not far else far
        self.runaway = Runaway(begin, end - begin, self._taken, kind)
        return self.runaway

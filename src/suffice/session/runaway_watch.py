"""The runaway detector on an engine's chunks: a loop in tokens or text becomes a place in the text."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from suffice.engines.base import Chunk
from suffice.watch import Runaway, RunawayDetector

__all__ = ["Loop", "RunawayWatch"]


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop, and where its first turn and the copies of it stand."""

    onset: int
    """Tokens or characters before the loop."""
    period: int
    """Length of its first turn."""
    unit: Literal["tokens", "characters"]
    begin: int
    """Characters of the text up to the beginning of the first turn."""
    keep: int
    """Characters of the text up to the end of the first turn."""
    end: int
    """Characters of the text when the loop was told. From `keep` up to here there are copies of the first turn."""

    def __str__(self) -> str:
        return f"a loop of {self.period} {self.unit} after {self.onset}"


class RunawayWatch:
    """Watches one answer: by its tokens where the engine says what text came with each, else by its text."""

    def __init__(self, prompt: object, decode: Callable[[int], str] | None) -> None:
        self._detector = RunawayDetector(prompt, decode)
        self._ends = array("L")  # characters after each token
        self._characters = 0

    def push(self, chunk: Chunk) -> Loop | None:
        """Take the next chunk; the loop, once, when there is one."""
        if not chunk.lengths:
            by_tokens = bool(self._ends)  # then this is the rest of a character, at the end
            found = self._detector.push_text(chunk.text) if chunk.text and not by_tokens else None
            return Loop(found.onset, found.period, "characters", found.onset, found.keep, found.at) if found else None
        told: Runaway | None = None
        for token, length in zip(chunk.token_ids, chunk.lengths, strict=True):
            self._characters += length
            self._ends.append(self._characters)
            told = self._detector.push(token) or told
        if told is None:
            return None
        begin, keep, end = map(self._end, (told.onset, told.keep, told.at))
        return Loop(told.onset, told.period, "tokens", begin, keep, end)

    def _end(self, tokens: int) -> int:
        """Characters of so many tokens."""
        return self._ends[tokens - 1] if tokens else 0

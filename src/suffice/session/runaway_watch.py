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
    """A loop, and where its first turn ends."""

    onset: int
    """Tokens or characters before the loop."""
    period: int
    """Length of its first turn."""
    unit: Literal["tokens", "characters"]
    keep: int
    """Characters of the text up to the end of the first turn."""

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
            return Loop(found.onset, found.period, "characters", found.keep) if found else None
        told: Runaway | None = None
        for token, length in zip(chunk.token_ids, chunk.lengths, strict=True):
            self._characters += length
            self._ends.append(self._characters)
            told = self._detector.push(token) or told
        return Loop(told.onset, told.period, "tokens", self._ends[told.keep - 1]) if told else None

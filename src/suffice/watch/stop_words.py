"""Stop words in streamed text, wherever its pieces are cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["StopMatch", "StopWords"]


@dataclass(frozen=True, slots=True)
class StopMatch:
    """What one piece of text became."""

    text: str
    """Safe to show: it cannot be the beginning of a stop word."""
    word: str | None = None
    """The stop word that ended the answer, if one did."""


class StopWords:
    """Finds stop words in streamed text, wherever the pieces are cut, without looking at any character twice for long.

    The answer ends where the first stop word is *complete*, so the result does not depend on how the text was cut.

    Args:
        words: any strings; empty ones are ignored.
        keep: leave the stop word in the text instead of removing it.
    """

    def __init__(self, words: Sequence[str], *, keep: bool = False) -> None:
        self._words = tuple(dict.fromkeys(word for word in words if word))
        self._longest = max(map(len, self._words), default=0)
        self._keep = keep
        self._held = ""

    def push(self, piece: str) -> StopMatch:
        """Take the next piece; once a match has a `word`, the answer is over."""
        if not self._words:
            return StopMatch(piece)
        text = self._held + piece
        found = [(start + len(word), start, word) for word in self._words if (start := text.find(word)) >= 0]
        if found:
            end, start, word = min(found)
            self._held = ""
            return StopMatch(text[: end if self._keep else start], word)
        held = self._beginning_at_end(text)
        self._held = text[len(text) - held :]
        return StopMatch(text[: len(text) - held])

    def flush(self) -> str:
        """What was held back, when the answer ends without a stop word."""
        held, self._held = self._held, ""
        return held

    def _beginning_at_end(self, text: str) -> int:
        """Length of the longest end of `text` that could become a stop word."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(word.startswith(tail) for word in self._words):
                return length
        return 0

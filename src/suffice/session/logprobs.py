"""Which log-probabilities belong to which characters: what is held back or cut takes its tokens along."""

from __future__ import annotations

from collections import deque

from suffice.engines.base import Chunk, TokenLogprob

__all__ = ["LogprobAligner"]


class LogprobAligner:
    """The tokens of one answer by where they begin in the engine's text. End tokens begin behind it and never come."""

    def __init__(self) -> None:
        self._seen = 0
        self._waiting: deque[tuple[int, TokenLogprob]] = deque()

    def push(self, chunk: Chunk) -> None:
        at, end = self._seen, self._seen + len(chunk.text)
        lengths = chunk.lengths if len(chunk.lengths) == len(chunk.logprobs) else map(_characters, chunk.logprobs)
        for entry, length in zip(chunk.logprobs, lengths, strict=True):
            self._waiting.append((min(at, end), entry))
            at += length
        self._seen = end

    def between(self, begin: int, end: int) -> tuple[TokenLogprob, ...]:
        """The tokens that have not been given out and begin before `end`; those before `begin` never are."""
        found = []
        while self._waiting:
            start, entry = self._waiting[0]
            if start > end or (start == end and not _continues(entry)):
                break
            self._waiting.popleft()
            if start >= begin:
                found.append(entry)
        return tuple(found)


def _continues(entry: TokenLogprob) -> bool:
    """Whether a token begins inside a character."""
    return bool(entry.data) and entry.data[0] & 0xC0 == 0x80  # type: ignore[index]


def _characters(entry: TokenLogprob) -> int:
    """Characters that begin in a token."""
    return len(entry.token) if entry.data is None else sum(byte & 0xC0 != 0x80 for byte in entry.data)

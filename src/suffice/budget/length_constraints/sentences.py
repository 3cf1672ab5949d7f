"""The sentence around a number in a prompt."""

from __future__ import annotations

__all__ = ["sentence_after", "sentence_before"]


def sentence_before(text: str, start: int, ends: str) -> str:
    """The part of the sentence that stands before `start`, at most 160 characters.

    Args:
        text: the prompt.
        start: where the number begins.
        ends: the characters that end a sentence.
    """
    before = text[max(0, start - 160) : start]
    cut = max(before.rfind(mark) for mark in ends)
    return before[cut + 1 :]


def sentence_after(text: str, end: int, ends: str) -> str:
    """The part of the sentence that comes after `end`, at most 80 characters."""
    after = text[end : end + 80]
    cuts = [at for mark in ends if (at := after.find(mark)) >= 0]
    return after[: min(cuts, default=80)]

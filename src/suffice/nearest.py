"""Which of the words that are known was probably meant."""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["did_you_mean", "nearest"]

_ALIKE = 0.62
_BESIDE_THE_BEST = 0.08
"""Ratios of `difflib`: one mistyped word reaches 0.8 and more, and two words by chance stay below 0.6."""


def nearest(word: str, known: Collection[str], *, most: int = 3) -> list[str]:
    """The words that resemble `word`, the best first, and only those that are about as good as the best."""
    ratios = sorted(((_ratio(word.lower(), each.lower()), each) for each in known), key=lambda pair: -pair[0])
    best = ratios[0][0] if ratios else 0.0
    return [each for ratio, each in ratios[:most] if ratio >= max(_ALIKE, best - _BESIDE_THE_BEST)]


def _ratio(word: str, known: str) -> float:
    """How alike two words are; a word that was begun and not finished is alike."""
    from difflib import SequenceMatcher  # only where something is wrong

    ratio = SequenceMatcher(None, word, known).ratio()
    return max(ratio, 0.9) if len(word) >= 3 and known.startswith(word) else ratio


def did_you_mean(word: str, known: Collection[str], *, most: int = 3) -> str:
    """`; did you mean bfloat16?`, or nothing where no known word is near."""
    near = nearest(word, known, most=most)
    return f"; did you mean {' or '.join(near)}?" if near else ""

"""One length that a prompt asks for, the sentence around it, and how many tokens an answer of that length has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from suffice.token_ratios import TextRatios

__all__ = ["Bound", "LengthConstraint", "Unit", "sentence_around"]

Unit = Literal["word", "hanzi", "character", "sentence", "paragraph", "item", "piece", "page", "line"]
Bound = Literal["about", "at least", "at most"]

_SHOWN: dict[Unit, str] = {"hanzi": "character", "item": "point", "piece": "text"}
_ITEM_TOKENS = 45  # a list entry with its share of introduction and explanation: the median; bare bullets have 17 (en)
_PIECE_TOKENS = 250  # a whole text of its own: a version, a poem, an e-mail
_LINE_WORDS = 9  # a line of verse
_QWEN2 = TextRatios().languages


@dataclass(frozen=True, slots=True)
class LengthConstraint:
    unit: Unit
    amount: float
    """How many of the unit; the upper end of a range."""
    bound: Bound
    text: str
    """The words of the prompt that say so."""
    each: bool = False
    """It speaks of each part ("100 words each"), not of the whole answer."""

    def __str__(self) -> str:
        name = _SHOWN.get(self.unit, self.unit) + ("" if self.amount == 1 else "s")
        prefix = "" if self.bound == "about" else f"{self.bound} "
        return f"{prefix}{self.amount:g} {name} ({' '.join(self.text.split())})"

    def tokens(self, language: str, ratios: TextRatios) -> float:
        """Tokens of an answer in `language` that does exactly what the constraint says."""
        own, english = ratios.languages[language], ratios.languages["en"]
        finer = own.sentence / _QWEN2[language].sentence  # how many times as many tokens as with Qwen2's tokenizer
        per_unit = {
            "word": english.word if language in ("zh", "ja") else own.word,
            "hanzi": own.word,
            "character": own.character,
            "line": _LINE_WORDS * own.word,
            "sentence": own.sentence,
            "paragraph": own.paragraph,
            "page": own.word * own.words_per_page,
            "item": _ITEM_TOKENS * finer,
            "piece": _PIECE_TOKENS * finer,
        }[self.unit]
        return self.amount * per_unit


def sentence_around(text: str, start: int, end: int, ends: str) -> tuple[str, str]:
    """The parts of a sentence before `start` and after `end`, at most 160 and 80 characters; `ends` are the characters
    that end a sentence."""
    before, after = text[max(0, start - 160) : start], text[end : end + 80]
    begin = max(before.rfind(mark) for mark in ends) + 1
    return before[begin:], after[: min((at for mark in ends if (at := after.find(mark)) >= 0), default=80)]

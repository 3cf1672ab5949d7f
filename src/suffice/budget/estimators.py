"""Who guesses the length: explicit wishes, texts to transform, keywords, and at last what answers usually have.

None of them ends an answer. They say what to expect, and how much room, *with head-room*, a long answer needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from suffice.budget.answer_language import answer_language
from suffice.budget.length_constraints.find import find_constraints
from suffice.budget.types import Bound, LengthConstraint, LengthEstimate, Question, Unit
from suffice.token_ratios import TextRatios, estimate_tokens

__all__ = ["ExplicitLength", "KeywordClass", "Keywords", "TextTransform", "UsualLength", "wish_tokens"]


@dataclass(frozen=True, slots=True)
class _Headroom:
    """room = floor + factor x expected, the factor by what the prompt says about the bound."""

    floor: int
    at_most: float
    about: float
    at_least: float

    def room(self, expected: float, bound: Bound) -> float:
        factor = {"at most": self.at_most, "about": self.about, "at least": self.at_least}[bound]
        return self.floor + factor * expected


# Measured on answers that ended by themselves, as answer tokens / tokens that the wish says, 95th and 99th percentile:
#   words        at most 1.0, 1.7    about 1.6, 21 (misread wishes)    at least 1.6, 2.0
#   sentences    at most 1.3, 1.9    about 1.4, 2.5                    at least 2.7, 5.6
#   paragraphs   2.1, 2.8            list entries 4.5, 8.0             whole texts 1.7, 2.2
# Models: Qwen2.5-7B/14B/32B, gpt-4, gpt-4o and Claude on IFEval; gpt-4, Llama-3.1-8B and o3-mini on Arena-Hard. Chinese
# wishes: 31 answers only, so they share the English factors. The floor is for titles, politeness and small numbers.
# Of 1,658 answers to prompts with a wish, 11 (0.7 %) needed more: `benchmarks/budget_cuts.py`.
_COUNTED = _Headroom(floor=256, at_most=2.5, about=3.0, at_least=4.0)
_STRUCTURE = _Headroom(floor=320, at_most=3.0, about=3.5, at_least=6.0)
_LIST = _Headroom(floor=512, at_most=6.0, about=6.0, at_least=8.0)
_HEADROOM: Mapping[Unit, _Headroom] = {
    "word": _COUNTED,
    "hanzi": _COUNTED,
    "character": _COUNTED,
    "page": _COUNTED,
    "line": _STRUCTURE,
    "sentence": _STRUCTURE,
    "paragraph": _STRUCTURE,
    "item": _LIST,
    "piece": _LIST,
}

_ITEM_TOKENS = 45  # a list entry with its share of introduction and explanation: the median; bare bullets have 17 (en)
_PIECE_TOKENS = 250  # a whole text of its own: a version, a poem, an e-mail
_LINE_WORDS = 9  # a line of verse
_UNKNOWN_PARTS = 5  # "100 words each" without a number of parts
_WISH_SPREAD = 0.4  # of log length around a wish


class ExplicitLength:
    """Lengths that the prompt asks for; a wish in the system prompt counts when the user has none."""

    def estimate(self, question: Question) -> LengthEstimate | None:
        """The most generous of the wishes, or None without one."""
        for text, where in (
            (question.instructions, "the prompt"),
            (question.system_instructions, "the system prompt"),
        ):
            wishes = _whole_answer(find_constraints(text)) if text else []
            if wishes:
                return _from_wishes(wishes, where, question)
        return None


def _whole_answer(wishes: Sequence[LengthConstraint]) -> list[LengthConstraint]:
    """Turn "three paragraphs of 100 words each" into one wish of 300 words."""
    parts = max((w.amount for w in wishes if w.unit in ("paragraph", "item", "piece") and not w.each), default=None)
    whole = []
    for wish in wishes:
        if not wish.each:
            whole.append(wish)
        elif parts is None:
            if wish.bound != "at most":  # "at most 10 words each" of who knows how many says nothing about the whole
                whole.append(LengthConstraint(wish.unit, wish.amount * _UNKNOWN_PARTS, "at least", wish.text))
        else:
            whole.append(LengthConstraint(wish.unit, wish.amount * parts, wish.bound, f"{parts:g} x {wish.text}"))
    return whole


def _from_wishes(wishes: Sequence[LengthConstraint], where: str, question: Question) -> LengthEstimate:
    language = answer_language(f"{question.system}\n{question.text}" if question.system else question.text)
    repeated = (
        estimate_tokens(question.text, question.ratios) if _rules()["repeat"].search(question.instructions) else 0
    )
    rooms = [_HEADROOM[wish.unit].room(wish_tokens(wish, language, question.ratios), wish.bound) for wish in wishes]
    room, wish = max(zip(rooms, wishes, strict=True), key=lambda pair: pair[0])
    expected = wish_tokens(wish, language, question.ratios) + repeated
    reason = f"{where} asks for {wish}: about {expected:.0f} tokens expected"
    if repeated:
        reason += f", {repeated} of them to repeat the prompt"
    return LengthEstimate.around(expected, _WISH_SPREAD, reason, room + 2 * repeated)


def wish_tokens(wish: LengthConstraint, language: str, ratios: TextRatios) -> float:
    """Tokens that an answer in `language` has when it does exactly what `wish` says."""
    own = ratios.languages[language]
    english = ratios.languages["en"]
    scale = own.sentence / TextRatios().languages[language].sentence  # how much finer than Qwen2's this tokenizer is
    per_unit = {
        "word": english.word if language in ("zh", "ja") else own.word,
        "hanzi": own.word,
        "character": own.character,
        "line": _LINE_WORDS * own.word,
        "sentence": own.sentence,
        "paragraph": own.paragraph,
        "page": own.word * own.words_per_page,
        "item": _ITEM_TOKENS * scale,
        "piece": _PIECE_TOKENS * scale,
    }[wish.unit]
    return wish.amount * per_unit


class TextTransform:
    """Translating, rewriting, correcting or summarising: the answer is about as long as the text in the prompt."""

    def estimate(self, question: Question) -> LengthEstimate | None:
        """None unless the prompt begins or ends with such a task and brings a text of some length."""
        head, tail = question.text[:400], question.text[-300:].rpartition("\n")[2]
        match = _rules()["transform"].match(head) or _rules()["transform"].match(tail)
        if match is None:
            return None
        length = estimate_tokens(question.text, question.ratios)
        if length < _MIN_TRANSFORMED:
            return None
        kind = "summary" if match["summary"] else "translation" if match["translation"] else "rewriting"
        share, factor = _TRANSFORMS[kind]
        expected = share * length
        reason = f"a {kind} of the text in the prompt ({length} tokens): about {expected:.0f} tokens expected"
        return LengthEstimate.around(expected, 0.6, reason, _TRANSFORM_FLOOR + factor * length)


_MIN_TRANSFORMED = 40  # tokens; below that the task says more about the answer than the text does
_TRANSFORM_FLOOR = 512
# (expected share, factor of the room) of the prompt's tokens. No answer of 380 to such prompts needed more; the 99th
# percentile of answer / expected is 4.4, on short texts, which the floor covers.
_TRANSFORMS = {"summary": (0.4, 1.0), "translation": (1.1, 3.0), "rewriting": (1.1, 3.0)}


@cache
def _rules() -> dict[str, re.Pattern[str]]:
    return {
        "repeat": re.compile(
            r"\brepeat (?:the|this|my|all|what|above)\b|先重复|重复(?:我的|上面|上述|这个|以上)", re.I
        ),
        "transform": re.compile(
            r"\s*(?:please\s+|can you\s+|could you\s+|help me\s+|i want you to\s+|"
            r"you (?:are|will) [^.\n]{0,80}[.\n]\s*|请|请你|帮我|麻烦|把|将|给我)*"
            r"(?:(?P<translation>translate\b|翻译|[^。\n]{0,60}(?:翻译成|译成|译为))|"
            r"(?P<summary>summari[sz]e\b|总结|概括|提炼|[^。\n]{0,20}(?:写摘要|的摘要))|"
            r"(?P<rewriting>rewrite\b|rephrase\b|paraphrase\b|proofread\b|polish\b|correct (?:the|this|my|any)\b|"
            r"fix (?:the|this|my)\b|edit (?:the|this|my)\b|改写|润色|校对|修改|改正|纠正))",
            re.I,
        ),
    }


@dataclass(frozen=True, slots=True)
class KeywordClass:
    """Words that hint at a length: one class of the keyword table."""

    name: str
    expected_tokens: int
    """Median length of answers to prompts of this class."""
    max_new_tokens: int
    """Room for such answers, head-room included: a default cap that is smaller is raised to it."""
    words: tuple[str, ...]
    """Any of these in the instructions makes the prompt one of this class. Case does not matter."""
    _pattern: list[re.Pattern[str]] = field(default_factory=list, repr=False, compare=False)
    _folded: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_folded", tuple(word.casefold() for word in self.words))

    def find(self, text: str) -> str | None:
        """The first of the words in `text`; alphabetic ones only as whole words."""
        folded = text.casefold()
        for word in self._folded:
            if word in folded:
                break
        else:
            return None  # most texts have none, and a pattern of many words takes ten times as long to say so
        if not self._pattern:
            alternatives = (rf"\b{re.escape(w)}\b" if w.isascii() else re.escape(w) for w in self.words)
            self._pattern.append(re.compile("|".join(alternatives) or r"(?!)", re.I))
        match = self._pattern[0].search(text)
        return match.group() if match else None


@dataclass(frozen=True, slots=True)
class Keywords:
    """The keyword table; where several classes fire, the longest wins."""

    classes: tuple[KeywordClass, ...]

    def estimate(self, question: Question) -> LengthEstimate | None:
        """None when no keyword occurs in the instructions of the last user message."""
        for keyword_class in sorted(self.classes, key=lambda c: c.max_new_tokens, reverse=True):
            word = keyword_class.find(question.instructions)
            if word is not None:
                return LengthEstimate.around(
                    keyword_class.expected_tokens,
                    math.log(4) / 2,
                    f"keyword '{word}' says {keyword_class.name}",
                    keyword_class.max_new_tokens,
                    guess=True,
                )
        return None


class UsualLength:
    """What is left when nothing in the prompt speaks of length: answers are as long as they usually are."""

    def estimate(self, question: Question) -> LengthEstimate:
        """Always an answer, and never more room than the default gives."""
        return LengthEstimate.around(_CHAT_MEDIAN, _CHAT_SPREAD, "no wish and no keyword: the usual length", guess=True)


_CHAT_MEDIAN = 250  # Qwen2.5-7B on IFEval: p50 250, p90 669 tokens
_CHAT_SPREAD = 0.77

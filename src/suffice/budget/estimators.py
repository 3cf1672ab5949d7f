"""The estimators that read the prompt: lengths it asks for, texts to transform, keywords, and the usual length at last.

None of them ends an answer. They say what to expect, and how much room, *with head-room*, a long answer needs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from suffice.budget.answer_language import answer_language
from suffice.budget.expectation import Expectation, LengthQuery, Room
from suffice.budget.length_constraints.constraint import Bound, LengthConstraint, Unit
from suffice.token_ratios import estimate_tokens

__all__ = ["ExplicitLength", "KeywordClass", "Keywords", "TextTransform", "UsualLength"]


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


# Measured on answers that ended by themselves, as answer tokens / tokens asked for, 95th and 99th percentile:
#   words        at most 1.0, 1.7    about 1.6, 21 (misread numbers)    at least 1.6, 2.0
#   sentences    at most 1.3, 1.9    about 1.4, 2.5                    at least 2.7, 5.6
#   paragraphs   2.1, 2.8            list entries 4.5, 8.0             whole texts 1.7, 2.2
# Models: Qwen2.5-7B/14B/32B, gpt-4, gpt-4o and Claude on IFEval; gpt-4, Llama-3.1-8B and o3-mini on Arena-Hard. There
# are 31 Chinese answers only, so they share the English factors. The floor is for titles, politeness, small numbers.
# Of 1,658 answers to prompts with a constraint, 11 (0.7 %) needed more: `benchmarks/budget_cuts.py`.
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

_UNKNOWN_PARTS = 5  # "100 words each" without a number of parts
_CONSTRAINED_SPREAD = 0.4  # of log length around what the prompt asks for

_MIN_TRANSFORMED = 40  # tokens; below that the task says more about the answer than the text does
_TRANSFORM_FLOOR, _TRANSFORM_SPREAD = 512, 0.6
# (expected share, factor of the room) of the prompt's tokens. No answer of 380 to such prompts needed more; the 99th
# percentile of answer / expected is 4.4, on short texts, which the floor covers.
_TRANSFORMS = {"summary": (0.4, 1.0), "translation": (1.1, 3.0), "rewriting": (1.1, 3.0)}

_KEYWORD_SPREAD = math.log(4) / 2
_USUAL_MEDIAN, _USUAL_SPREAD = 250, 0.77  # Qwen2.5-7B on IFEval: p50 250, p90 669 tokens


class ExplicitLength:
    """Lengths that the prompt asks for; those of the system prompt count when the user names none."""

    def estimate(self, query: LengthQuery) -> Expectation | None:
        """The most generous of the constraints, or None without one."""
        if constraints := _of_whole_answer(query.constraints):
            return _by_constraints(constraints, "the prompt", query)
        constraints = _of_whole_answer(query.system_constraints)
        return _by_constraints(constraints, "the system prompt", query) if constraints else None


def _of_whole_answer(constraints: Sequence[LengthConstraint]) -> Sequence[LengthConstraint]:
    """Turn "three paragraphs of 100 words each" into one constraint of 300 words."""
    if not any(constraint.each for constraint in constraints):
        return constraints
    lists = (each for each in constraints if each.unit in ("paragraph", "item", "piece") and not each.each)
    parts = max((each.amount for each in lists), default=None)
    whole = []
    for each in constraints:
        if not each.each:
            whole.append(each)
        elif parts is not None:
            whole.append(replace(each, amount=each.amount * parts, text=f"{parts:g} x {each.text}", each=False))
        elif each.bound != "at most":  # "at most 10 words each" of an unknown number says nothing about the whole
            whole.append(replace(each, amount=each.amount * _UNKNOWN_PARTS, bound="at least", each=False))
    return whole


def _by_constraints(constraints: Sequence[LengthConstraint], where: str, query: LengthQuery) -> Expectation:
    prompt, ratios = query.prompt, query.ratios
    language = answer_language(f"{prompt.system}\n{prompt.user}" if prompt.system else prompt.user)
    repeated = estimate_tokens(prompt.user, ratios) if _rules()["repeat"].search(prompt.instructions) else 0
    candidates = [(each.tokens(language, ratios), each) for each in constraints]
    rooms = [_HEADROOM[each.unit].room(tokens, each.bound) for tokens, each in candidates]
    room, (tokens, constraint) = max(zip(rooms, candidates, strict=True), key=lambda pair: pair[0])
    expected = tokens + repeated
    reason = f"{where} asks for {constraint}: about {expected:.0f} tokens expected"
    if repeated:
        reason += f", {repeated} of them to repeat the prompt"
    return Expectation.around(expected, _CONSTRAINED_SPREAD, reason, room + 2 * repeated)


class TextTransform:
    """Translating, rewriting, correcting or summarising: the answer is about as long as the text in the prompt."""

    def estimate(self, query: LengthQuery) -> Expectation | None:
        """None unless the prompt begins or ends with such a task and brings a text of some length."""
        text, task = query.prompt.user, _rules()["transform"]
        match = task.match(text[:400]) or task.match(text[-300:].rpartition("\n")[2])
        if match is None:
            return None
        length = estimate_tokens(text, query.ratios)
        if length < _MIN_TRANSFORMED:
            return None
        kind = "summary" if match["summary"] else "translation" if match["translation"] else "rewriting"
        share, factor = _TRANSFORMS[kind]
        expected = share * length
        reason = f"a {kind} of the text in the prompt ({length} tokens): about {expected:.0f} tokens expected"
        return Expectation.around(expected, _TRANSFORM_SPREAD, reason, _TRANSFORM_FLOOR + factor * length)


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


@dataclass(frozen=True)
class KeywordClass:
    """Words that hint at a length: one class of the keyword table."""

    name: str
    expected_tokens: int
    """Median length of answers to prompts of this class."""
    max_new_tokens: int
    """Room for such answers, head-room included: a default cap that is smaller is raised to it."""
    words: tuple[str, ...]
    """Any of these in the instructions makes the prompt one of this class. Case does not matter."""

    @cached_property
    def _folded(self) -> tuple[str, ...]:
        return tuple(word.casefold() for word in self.words)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        alternatives = (rf"\b{re.escape(w)}\b" if w.isascii() else re.escape(w) for w in self.words)
        return re.compile("|".join(alternatives) or r"(?!)", re.I)

    def find(self, text: str, folded: str | None = None) -> str | None:
        """The first of the words in `text`; alphabetic ones only as whole words. `folded` is `text.casefold()`."""
        folded = text.casefold() if folded is None else folded
        for word in self._folded:
            if word in folded:
                break
        else:
            return None  # most texts have none, and a pattern of many words takes ten times as long to say so
        match = self._pattern.search(text)
        return match.group() if match else None


@dataclass(frozen=True)
class Keywords:
    """The keyword table; where several classes fire, the longest wins."""

    classes: tuple[KeywordClass, ...]

    def estimate(self, query: LengthQuery) -> Expectation | None:
        """None when no keyword occurs in the instructions of the last user message."""
        if (found := self._find(query)) is None:
            return None
        keywords, reason = found
        return Expectation.around(keywords.expected_tokens, _KEYWORD_SPREAD, reason, keywords.max_new_tokens)

    def room(self, query: LengthQuery) -> Room | None:
        """Also where the length model says what to expect; None without a keyword."""
        found = self._find(query)
        return found and Room(found[0].max_new_tokens, found[1])

    def _find(self, query: LengthQuery) -> tuple[KeywordClass, str] | None:
        text = query.prompt.instructions
        folded = text.casefold()
        for keywords in self._longest_first:
            if (word := keywords.find(text, folded)) is not None:
                return keywords, f"keyword '{word}' says {keywords.name}"
        return None

    @cached_property
    def _longest_first(self) -> list[KeywordClass]:
        return sorted(self.classes, key=lambda keywords: keywords.max_new_tokens, reverse=True)


class UsualLength:
    """Always an answer: without a requested length and a keyword, answers are as long as they usually are."""

    def estimate(self, query: LengthQuery) -> Expectation:
        return Expectation.around(_USUAL_MEDIAN, _USUAL_SPREAD, "no requested length and no keyword: the usual length")

"""Length constraints in English: "in 200 words", "at most 3 sentences", "5 bullet points", "top 10"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from suffice.budget.length_constraints.constraint import Bound, LengthConstraint, Unit, sentence_around
from suffice.budget.length_constraints.numbers import ENGLISH_NUMBER, NUMBER_WORDS, parse_number

__all__ = ["english_constraints"]

_UNITS: dict[str, Unit] = {
    "word": "word",
    "character": "character",
    "letter": "character",
    "char": "character",
    "sentence": "sentence",
    "paragraph": "paragraph",
    "para": "paragraph",
    "page": "page",
    "line": "line",
    "bullet": "item",
    "point": "item",
    "step": "item",
    "item": "item",
}
_UNIT_WORDS = frozenset([*_UNITS, *(f"{unit}s" for unit in _UNITS)])
_ONE_WORDS = frozenset(["sentence", "paragraph", "word", "line", "page"])
_ITEM_NUMBERS = frozenset(
    ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "fifteen", "twenty"]
)
_ITEM_VERBS = (
    "list|name|give(?: me| us)?|suggest|recommend|provide|generate|come up with|share|tell me|show me|brainstorm|"
    "propose|write|create|offer|mention|identify|enumerate|describe|explain|discuss|what are"
)
_ITEM_VERB_WORDS = frozenset(["top", *(re.split(r"[ (]", verb)[0] for verb in _ITEM_VERBS.split("|"))])
_DIGIT, _WORD = re.compile(r"\d"), re.compile("[a-z]+")


@cache
def _rules() -> dict[str, re.Pattern[str]]:
    return _units_and_items(ENGLISH_NUMBER) | _bounds_before() | _context()


def _units_and_items(number: str) -> dict[str, re.Pattern[str]]:
    return {
        "amount": re.compile(
            rf"(?<![\w.$€£#/])(?P<low>{number})(?:\s?(?:-|–|~|to|and|or)\s?(?P<high>{number}))?"
            r"(?P<plus>\s?\+|\s?plus)?[ \t-]{1,2}(?:(?:short|long|full|key|main|bullet|simple|concise|single|of|"
            r"complete|different|brief|well-written|detailed|chinese|english)[\s-]){0,2}"
            r"(?P<unit>words?|char(?:acter)?s?|letters?|sentences?|para(?:graph)?s?|pages?|lines?|bullets?|points?|"
            r"steps?|items?)\b(?P<more>\s+or\s+(?:more|less|fewer)|\s+(?:max(?:imum)?|min(?:imum)?|limit)\b)?",
        ),
        "item": re.compile(
            rf"\b(?:{_ITEM_VERBS}|top)\s+(?:(?:out|the|me|up to|at least|exactly|about|top|only|just|a list of|my)\s+)"
            rf"{{0,3}}(?P<n>{number})\s+(?:[\w'-]+\s+){{0,3}}?(?P<noun>[a-z]+s|people)\b",
        ),
        "top": re.compile(rf"\btop[\s-]?(?P<n>{number})(?P<noun>)\b"),
        "not_item": re.compile(
            r"(?:words?|sentences?|characters?|letters?|paragraphs?|pages?|lines?|times|years?|days?|hours?|minutes?|"
            r"seconds?|weeks?|months?|dollars|euros|percent|degrees|miles|meters|grams|pounds|is|was|has|this|plus)$",
        ),
        "piece": re.compile(
            r"(?:versions|responses|answers|essays|articles|stories|poems|e-?mails|letters|songs|raps|posts|blogs|recipes|"
            r"chapters|sections|paragraphs|elaborations|variations|drafts|scripts|speeches|reviews|proposals|plans|reports|"
            r"scenes|dialogues|conversations|descriptions|summaries)$",
        ),
        "one": re.compile(
            r"\b(?:in|with|just|only|using)\s+(?:just\s+|only\s+)?an?\s+(?:single\s+|short\s+|brief\s+)?"
            r"(?P<unit>sentence|paragraph|word|line|page)\b"
            r"|\b(?:write|give|say|provide|make|create)\s+(?:me\s+)?a\s+(?:single\s+|short\s+|brief\s+)?"
            r"(?P<unit2>sentence|paragraph)\b",
        ),
    }


def _bounds_before() -> dict[str, re.Pattern[str]]:
    """What stands before a number and says whether it is a bound."""
    return {
        "at_most": re.compile(
            r"(?:at most|no more than|not more than|up to|less than|fewer than|under|below|within|max(?:imum)?(?: of)?|"
            r"(?:not|n't) exceed|not exceeding|limit(?:ed)?(?: \w+){0,3} to|no longer than|(?:not|n't) be longer than|"
            r"anything longer than|shorter than|<|≤|max\.)\s*(?:a total of |only |of )?$",
        ),
        "at_least": re.compile(
            r"(?:at least|no less than|not less than|no fewer than|min(?:imum)?(?: of)?|more than|over|exceed|"
            r"longer than|or more|above|≥|>)\s*(?:a total of |of )?$",
        ),
        "about": re.compile(
            r"(?:\bin|\busing|\bwith|about|around|approximately|approx\.?|roughly|exactly|nearly|some|circa|between|"
            r"of|precisely|only|just|be|count:?|length:?|to|~)\s*(?:the )?$",
        ),
    }


def _context() -> dict[str, re.Pattern[str]]:
    """What the sentence around a number says: whether the number is asked for, and of what it speaks."""
    return {
        "directive": re.compile(
            r"\b(?:(?:writ|creat|mak|giv|draft|prepar|us)ing|write|give|list|explain|describe|create|compose|answer|respond|response|reply|use|"
            r"using|generate|make|made|summari[sz]e|tell|draft|produce|provide|prepare|compare|discuss|outline|define|should|"
            r"must|need(?:s|ed)?(?: to)?|have to|has to|keep|limit|length|word count|contain|containing|include|please|"
            r"want|elaborate|rewrite|design|develop|analy[sz]e|highlight|continue|expand|say|do it|name|essay|article|"
            r"story)\b",
        ),
        "statement": re.compile(
            r"\b(?:i|we|he|she|they|it|there|file|book|document|text|essay|article|limit)(?:'ve|'s)?\s+"
            r"(?:have|has|had|wrote|am|is|are|was|were|got|read|contains?|contained|received|already)\b|"
            r"\bhow (?:many|long)\b",
        ),
        "given": re.compile(
            r"\b(?:my|his|her|their|its|this|these|those|the|that|first|last|second|next|previous|following|above|"
            r"opening|final|another|consists? of|cluster|made of|with an? average of)\s*$",
        ),
        "not_total": re.compile(
            r"\s*(?:or phrases\b|(?:in|with|that|which|are|be|starting|beginning|ending|containing|from|highlighted|"
            r"capitalized|per)\b)",
        ),
        "part": re.compile(r"\b(?:each|every|per)\b[^.,;]{0,40}$|\b(?:each|every)\b"),
        "each_after": re.compile(r"\s*(?:each|apiece|per (?:point|item|bullet|paragraph|section|answer))\b"),
        "title": re.compile(
            r"\b(?:title|headline|slogan|subject|tagline|caption|heading|abstract|intro(?:duction)?|conclusion|"
            r"hook|meta description|keywords?)\b",
        ),
    }


def english_constraints(text: str) -> Iterator[LengthConstraint]:
    rules = _rules()
    text = text.lower()  # several times cheaper than patterns that ignore case
    words = set(_WORD.findall(text))  # a pattern is only tried where the words that it needs are there
    has_digit = _DIGIT.search(text) is not None
    if not words.isdisjoint(_UNIT_WORDS):
        if has_digit or not words.isdisjoint(NUMBER_WORDS):
            found = (_constraint(text, match) for match in rules["amount"].finditer(text))
            yield from (constraint for constraint in found if constraint is not None)
        for match in rules["one"].finditer(text) if not words.isdisjoint(_ONE_WORDS) else ():
            yield LengthConstraint(_UNITS[match["unit"] or match["unit2"]], 1, "about", match.group())
    if (has_digit or not words.isdisjoint(_ITEM_NUMBERS)) and not words.isdisjoint(_ITEM_VERB_WORDS):
        for match in (*rules["item"].finditer(text), *rules["top"].finditer(text)):
            amount, noun = parse_number(match["n"]), match["noun"]
            if amount and 2 <= amount <= 500 and not rules["not_item"].match(noun):
                unit: Unit = "piece" if rules["piece"].match(noun) else "item"
                yield LengthConstraint(unit, amount, "about", match.group())


def _constraint(text: str, match: re.Match[str]) -> LengthConstraint | None:
    rules = _rules()
    low, high = parse_number(match["low"]), parse_number(match["high"] or match["low"])
    if not low or not high:
        return None
    unit = _UNITS[match["unit"].rstrip("s")]
    if (unit == "item" and high < 2) or (unit == "character" and high < 5):
        return None
    before, after = sentence_around(text, match.start(), match.end(), ".!?;\n")
    more = f"{match['plus'] or ''}{match['more'] or ''}"
    at_most, at_least = rules["at_most"].search(before), rules["at_least"].search(before)
    is_most = bool(at_most) or any(mark in more for mark in ("less", "fewer", "max"))
    is_least = not is_most and (bool(at_least) or any(mark in more for mark in ("+", "plus", "or more", "min")))
    directed = bool(rules["directive"].search(before) or rules["directive"].search(after))
    if rules["given"].search(before) or (rules["statement"].search(before) and not directed):
        return None
    if unit in ("word", "character", "sentence") and rules["title"].search(before):
        return None
    if unit in ("word", "character", "line") and high < 100 and rules["not_total"].match(after):
        return None  # "5 words in capitals", "10 words that rhyme"
    clause = before.rpartition(",")[2]
    alone = len(clause.strip(" :-(*#")) < 25 and not after.partition(",")[0].strip(" :-)*.")
    if not (is_most or is_least or directed or alone or rules["about"].search(before)):
        return None
    each = bool(rules["each_after"].match(after) or rules["part"].search(before))
    said = (at_most or at_least) if is_most or is_least else None
    bound: Bound = "at most" if is_most else "at least" if is_least else "about"
    return LengthConstraint(unit, max(low, high), bound, f"{said.group() if said else ''}{match.group()}".strip(), each)

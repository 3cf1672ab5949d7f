"""How often does the prompt want something said? Read only when a loop is about to be told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from suffice.numerals import chinese_number
from suffice.prompt import Prompt
from suffice.watch.repetition_score import VerbatimRun
from suffice.watch.units import TextUnits

__all__ = ["prompt_text", "turns_wanted"]

_LONGEST = 20_000  # characters read, from the end
_MARGIN = 1.25  # models miscount
_ENDLESS = 100  # turns granted where the prompt wants repetition without saying how much
_NAMED = {"twice": 2, "thrice": 3, "ten": 10, "dozen": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40}
_NAMED |= {"fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000}

_SENTENCE = re.compile(r"[!?。！？\n]|\.(?=\s|$)")
_MAKE = re.compile(
    r"repeat|repetition|writ|say|print|typ|copy|copies|output|sing|chant|recit|list|draw|mak(?!\w+ sure)|creat|generat"
    r"|giv|show|fill|produc|initiali|build|render|display|insert|add\b|compos|provid|nam(?:e|ing)\b|count"
    r"|r[ée]p[éeè]t|escrib|[ée]cri[vst]|g[ée]n[ée]r|haz\b|fais|faire|li[sz]t|dessin|dibuj|schreib|erstell|zeichn"
    r"|重复|反复|写|说|抄|输出|打印|念|复制|列|画|生成|给|做|编|填|造|建|繰り返|書|作|挙げ|並べ|出力|描",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    rf"\b(?P<named>{'|'.join(_NAMED)})s?\b|(?<![^\s\u2e80-\uffffx×(])(?P<number>\d{{1,3}}(?:,\d{{3}})+|\d{{1,6}})"
    r"(?=\s*[a-z\u00c0-\u024f\u2e80-\uffff×*]|-[a-z]|\W*$)\s?(?P<kilo>kib|kb|k)?(?![a-wyz])|(?P<chinese>[零〇一二两三四五六七八九十百千万]+)(?=\s*[遍次行回份个條条項项列组張张節节])",
    re.IGNORECASE,
)
_TIMES = re.compile(r"\s*(?:x|×|\*|by|乘)\s*", re.IGNORECASE)
# "500 words" and "in 1956" say nothing about repetition, nor does "the word river should appear 40 times".
_MEASURE = re.compile(
    r"[\s+-]*(?:(?:to|or|and|bis|à|a)\s\w+\s)?(?:words?|characters?|letters?|tokens?|sentences?|paragraphs?|pages?|minutes?|hours?|seconds?|years?|percent|%"
    r"|palabras?|frases?|oraciones|p[áa]rrafos?|letras?|mots?|phrases?|paragraphes?|lettres?|字|词|句|段|页|分钟|年|文字|文"
    r"|語|単語|段落)",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_THINGS = re.compile(
    r"\s*(?:times|lines|rows|copies|items|elements|entries|records|bytes|digits|numbers|zeros|ones|spaces|[遍次行个個回])"
)
_CONTENT = re.compile(
    r"appear|occur|includ|contain|mention|\bus(?:e|ing)\b|apare|appara|含|出现|使用|使って", re.IGNORECASE
)
_HOW_OFTEN = re.compile(r"\s*(?:times|fois|veces|vezes|mal\b|次|回)", re.IGNORECASE)
_WITHOUT_END = re.compile(
    r"over and over|again and again|keep (?:repeating|saying|writing|printing)|\bforever\b|\bendlessly\b"
    r"|不断(?:地)?重复|一直重复|反复(?:地)?(?:写|说|输出|重复)|无限(?:地)?重复|不停(?:地)?(?:重复|写|说|输出)",
    re.IGNORECASE,
)


def prompt_text(prompt: object) -> str:
    """The text of a prompt, a string or chat messages; anything else has none."""
    return Prompt.of(prompt).text if isinstance(prompt, Prompt | str | Sequence) else ""


def turns_wanted(prompt: str) -> int:
    """How many turns of a repetition the prompt asks for, or shows in itself, with a margin; 0 where it does neither.

    A number of things to be made counts ("100 times", "40 rows", "20x20", 「重复一百遍」), a wish without end counts as
    100 turns, and a prompt that says something again and again itself counts as often as it does.
    """
    text = prompt[-_LONGEST:]
    endless = _ENDLESS if _WITHOUT_END.search(text) else 0
    asked = [count for sentence in _SENTENCE.split(text) for count in _counts(sentence)]
    turns = int(max([0, endless, _shown(text), *asked]) * _MARGIN)
    return turns if turns > 1 else 0


def _counts(sentence: str) -> Iterator[int]:
    """The numbers of things that `sentence` asks for, and their products ("20 by 30")."""
    verb = _MAKE.search(sentence)
    if verb is None:
        return
    product, end = 1, -1
    for match in _NUMBER.finditer(sentence, verb.end()):
        before, after = sentence[: match.start()], sentence[match.end() :]
        year = _YEAR.fullmatch(match.group().strip()) and not _THINGS.match(after)
        often = _HOW_OFTEN.match(after) and _CONTENT.search(before)
        if year or often or _MEASURE.match(after):
            continue
        joined = end >= 0 and _TIMES.fullmatch(sentence, end, match.start())
        product, end = _number(match) * (product if joined else 1), match.end()
        yield product


def _number(match: re.Match[str]) -> int:
    if named := match["named"]:
        return _NAMED[named.lower()]
    if digits := match["number"]:
        return int(digits.replace(",", "")) * (1024 if match["kilo"] else 1)
    return chinese_number(match["chinese"]) or 0


def _shown(text: str) -> int:
    """How often a part of the prompt is said in a row."""
    units, run, turns = TextUnits(), VerbatimRun(), 0.0
    for start, unit in units.push(text + "\n"):
        run.take(unit, start)
        turns = max(turns, run.turns)
    return int(turns)

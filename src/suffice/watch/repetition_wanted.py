"""How often does the prompt want something said? Read only when a loop is about to be told."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from suffice.numerals import chinese_number
from suffice.prompt import Prompt
from suffice.watch.repetition_score import VerbatimRun
from suffice.watch.units import TextUnits

__all__ = ["NUMERAL", "prompt_text", "turns_wanted"]

_LONGEST = 10_000  # characters read at each end
_TERSE = 60  # characters of a prompt that may name what it wants without a verb: "drum tab of 16 bars"
_SHOWN = 60  # units that a repetition in the prompt has at least; half of what can be a loop at all
_MARGIN = 4  # one in so many turns more, and one at least: models miscount
_MOST = 10**9  # turns
_ENDLESS = 100  # turns granted where the prompt wants repetition without saying how much
_FEW = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_NAMED = {"twice": 2, "thrice": 3, "ten": 10, "dozen": 12, "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40}
_NAMED |= {"fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000}

_SENTENCE = re.compile(r"[!?。！？\n]|\.(?=\s|$)")
_MAKE = re.compile(
    r"repeat|repetition|writ|say|print|typ|copy|copies|output|sing|chant|recit|list|draw|mak(?!\w{1,4} sure)|creat"
    r"|generat|giv|show|fill|produc|initiali|build|render|display|insert|add\b|compos|provid|nam(?:e|ing)\b|count"
    r"|r[ée]p[éeè]t|escrib|[ée]cri[vst]|g[ée]n[ée]r|haz\b|fais|faire|li[sz]t|dessin|dibuj|schreib|erstell|zeichn"
    r"|重复|反复|写|说|抄|输出|打印|念|复制|列|画|生成|给|做|编|填|造|建|繰り返|書|作|挙げ|並べ|出力|描",
    re.IGNORECASE,
)
NUMERAL = "[零〇一二两三四五六七八九十百千万]"
_NUMBER = re.compile(
    rf"\b(?P<named>{'|'.join(_NAMED)})s?\b"
    rf"|\b(?P<few>{'|'.join(_FEW)})(?=\s(?:\w{{1,12}}\s)?(?:times|copies))"
    r"|(?<![^\s\u2e80-\uffffx×(])(?P<number>\d{1,3}(?:,\d{3}){1,5}|\d{1,6})"
    r"(?=\s*[a-z\u00c0-\u024f\u2e80-\uffff×*]|-[a-z]|\W*$)\s?(?P<kilo>kib|kb|k)?(?![a-wyz])"
    rf"|(?<!{NUMERAL})(?P<chinese>{NUMERAL}{{1,16}})(?=\s*[遍次行回份个條条項项列组張张節节])",
    re.IGNORECASE,
)
_IDEOGRAPH = re.compile("[\u2e80-\uffff]")  # so many Chinese characters are no terse prompt
_TIMES = re.compile(r"\s*(?:x|×|\*|by|乘)\s*", re.IGNORECASE)
# "500 words" and "in 1956" say nothing about repetition, nor does "the word river should appear 40 times".
_MEASURE = re.compile(
    r"[\s+-]*(?:(?:to|or|and|bis|à|a)\s\w+\s)?(?:words?|characters?|letters?|tokens?|sentences?|paragraphs?|pages?"
    r"|minutes?|hours?|seconds?|years?|percent|%"
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
    text = prompt if len(prompt) <= 2 * _LONGEST else f"{prompt[:_LONGEST]}\n{prompt[-_LONGEST:]}"
    endless = _ENDLESS if _WITHOUT_END.search(text) else 0
    asked = [count for sentence in _SENTENCE.split(text) for count in _counts(sentence, _terse(text))]
    turns = max([0, endless, _shown(text), *asked])
    return turns + max(1, turns // _MARGIN) if turns > 1 else 0


def _terse(prompt: str) -> bool:
    """Whether it names a thing, such as "a 16x16 matrix of ones", and asks no question."""
    return len(prompt) <= _TERSE and "?" not in prompt and not _IDEOGRAPH.search(prompt)


def _counts(sentence: str, terse: bool) -> Iterator[int]:
    """The numbers of things that `sentence` asks for, and their products ("20 by 30")."""
    verb = _MAKE.search(sentence)
    if verb is None and not terse:
        return
    content = _CONTENT.search(sentence)
    content_end = content.end() if content else len(sentence)
    product, end = 1, -1
    for match in _NUMBER.finditer(sentence, verb.end() if verb and not terse else 0):
        year = _YEAR.fullmatch(match.group().strip()) and not _THINGS.match(sentence, match.end())
        often = content_end <= match.start() and _HOW_OFTEN.match(sentence, match.end())
        if year or often or _MEASURE.match(sentence, match.end()):
            continue
        joined = end >= 0 and _TIMES.fullmatch(sentence, end, match.start())
        product, end = min(_number(match) * (product if joined else 1), _MOST), match.end()
        yield product


def _number(match: re.Match[str]) -> int:
    if named := match["named"]:
        return _NAMED[named.lower()]
    if few := match["few"]:
        return _FEW[few.lower()]
    if digits := match["number"]:
        return int(digits.replace(",", "")) * (1024 if match["kilo"] else 1)
    return chinese_number(match["chinese"]) or 0


def _shown(text: str) -> int:
    """How often a part of the prompt is said in a row."""
    units, run, turns = TextUnits(), VerbatimRun(), 0.0
    for start, unit in units.push(text + "\n"):
        if run.take(unit, start):
            run.granted = int(2 * run.turns) + 1  # a look takes as long as the run is: the next one when it has doubled
        if run.length >= _SHOWN:
            turns = max(turns, run.turns)
    return int(turns)

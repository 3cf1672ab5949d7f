"""How many items a prompt asks for at most, where it says so beyond doubt: an answer that is far past that may stop.

Read only when an answer has made a hundred and one. A short prompt in English or Chinese, the first of its
conversation, that lists a number of things ("Name five rivers"), makes a number of rows or counts to a number, with no
word that multiplies it ("for each", "all", "more"). The bound is four times the product of all numbers in the prompt,
and a hundred more than that at least.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from suffice.numerals import chinese_number
from suffice.prompt import Prompt
from suffice.watch.repetition_wanted import NUMERAL, prompt_text

__all__ = ["LEAST_BOUND", "Bounds", "bounds"]

_LONGEST = 600  # characters of a prompt that is read; longer ones have material with numbers of its own
_TIMES, _MORE = 4, 100
LEAST_BOUND = 1 + _MORE
"""No bound is lower."""

_WORDS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_WORDS |= {"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17}
_WORDS |= {"eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60}
_WORDS |= {"seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000, "dozen": 12, "twice": 2}
_A_NUMBER = rf"(?:\d[\d,]{{0,9}}|(?:{'|'.join(_WORDS)})\b(?:[ -](?:{'|'.join(_WORDS)})\b){{0,3}})"
_A_CHINESE_NUMBER = rf"(?:\d{{1,6}}|{NUMERAL}{{1,8}})"
_NUMBERS = re.compile(rf"\d[\d,]*|\b(?:{'|'.join(_WORDS)})(?=s?\b)|{NUMERAL}{{1,16}}", re.IGNORECASE)

_MULTIPLIED = re.compile(
    r"\b(?:each|every|per|all|both|many|several|more|least|minimum|long|lots?|plenty|continu\w*|keep"
    r"|go on|extend\w*|complet\w*|full|whole|entire|following|below|above|as (?:many|much)|daily|weekly|monthly|times"
    r"|weeks?|months?|years?|alphabet\w*|a to z|a-z|countries|states|without end|forever|endless\w*"
    r"|infinite\w*|repeat\w*|[mb]illions?|trillions?|half|halves|quarters?|scores?|everything|anything|whatever|rest"
    r"|others?|another|further|next|additional|extra)\b"
    r"|\d\+|\d\s*%|[x×*^/]\s*\d|\d[.'’_]\d|\d\s\d|\d(?:\s?[km]\b|e\d)|[:：]"
    r"|每|各|所有|全|更多|许多|很多|多个|至少|以上|不少于|继续|不断|重复|任意|乘|倍|亿|其他|其余|下一|再|周|月|年|如下|以下",
    re.IGNORECASE,
)
_ITEMS = re.compile(
    rf"\b(?:list|name|enumerate)\s+(?:(?:me|us|out|exactly|only|just|the|up to|at most|top|any|first|last)\s+){{0,4}}"
    rf"{_A_NUMBER}\s+(?!(?:\w+\s+)?(?:columns?|tables?|lists?|groups?|sets?|categor\w+|sections?|chapters?|parts?|types?"
    rf"|kinds?|levels?|stages?|phases?|pages?|files?|days?|hours?)\b)[a-z]"
    rf"|(?:列出|列举|举出|说出)(?:最多|仅|只|恰好)?\s*{_A_CHINESE_NUMBER}\s*[个条種种项句行位座首]",
    re.IGNORECASE,
)
_ROWS = re.compile(
    rf"\b(?:write|give|make|generate|create|produce|print|show|output|insert|add|list|provide)\b[^.!?\n]{{0,40}}?"
    rf"\b{_A_NUMBER}\s+(?:[\w-]+\s+){{0,2}}(?:rows|lines|records|entries|items|bullets|statements|inserts)\b"
    rf"|(?:写|生成|插入|造|给|打印|输出|列)[^，。！？\n]{{0,10}}?{_A_CHINESE_NUMBER}\s*[行条]",
    re.IGNORECASE,
)
_COUNTING = re.compile(
    rf"\bcount(?:ing)?\b[^.!?\n]{{0,40}}?\b(?:to|until|till|through)\s+{_A_NUMBER}"
    rf"|\bnumbers?\s+(?:from\s+)?{_A_NUMBER}\s*(?:to|through|[-–])\s*{_A_NUMBER}"
    rf"|数到\s*{_A_CHINESE_NUMBER}|从\s*{_A_CHINESE_NUMBER}\s*[数写]?\s*到\s*{_A_CHINESE_NUMBER}",
    re.IGNORECASE,
)


class Bounds(NamedTuple):
    """How much is so far past what was asked for that the answer may be stopped; infinite where that is not sure."""

    items: float = math.inf
    """Numbered one by one."""
    rows: float = math.inf
    """That differ in their digits only."""
    counted: float = math.inf
    """Numbers counted."""


def bounds(prompt: object) -> Bounds:
    """What `prompt` bounds: a string, a `Prompt` or messages, of which one is the user's."""
    text = prompt_text(prompt)
    if not text or len(text) > _LONGEST or _MULTIPLIED.search(text) or not _asked_once(prompt):
        return Bounds()
    asked = math.prod(number for number in _numbers(text) if number)
    bound = max(_TIMES * asked, asked + _MORE)
    rows = bound if _ROWS.search(text) else math.inf
    items = bound if _ITEMS.search(text) else rows
    return Bounds(items, rows, bound if _COUNTING.search(text) else math.inf)


def _asked_once(prompt: object) -> bool:
    """Whether there is nothing before that the last wish may go back to."""
    messages = Prompt.of(prompt).messages if isinstance(prompt, Prompt | str | Sequence) else ()
    return sum(message["role"] not in ("system", "developer") for message in messages) <= 1


def _numbers(text: str) -> Iterator[int]:
    """Every number in `text`, of things or not."""
    for match in _NUMBERS.finditer(text):
        said = match.group().lower().replace(",", "")
        yield int(said) if said.isdecimal() else _WORDS.get(said) or chinese_number(said) or 1

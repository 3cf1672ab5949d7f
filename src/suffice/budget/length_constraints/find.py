"""Lengths that a prompt asks for, in any language that we read."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from suffice.budget.length_constraints.chinese import chinese_wishes
from suffice.budget.length_constraints.english import english_wishes
from suffice.budget.types import LengthConstraint

__all__ = ["find_constraints"]


def find_constraints(text: str) -> list[LengthConstraint]:
    """Every length constraint in `text` (instructions only: see `suffice.prompt.instructions`).

    Numbers that describe something else ("I have 200 words in my file", 这800字) are no wishes.
    """
    return list(_found(text))


@lru_cache(maxsize=1024)  # the budget and the length model ask the same, and system prompts come again and again
def _found(text: str) -> tuple[LengthConstraint, ...]:
    found = [*english_wishes(text), *chinese_wishes(text)]
    if not found:
        return ()
    rules, text = _rules(), text.lower()
    if rules["code"].search(text):
        # A limit in a programming task ("truncate to at most 100 characters") is about data.
        found = [wish for wish in found if _survives_code(wish)]
    if rules["more"].search(text) or len(rules["parts"].findall(text)) > 1:
        # The wish is for the final answer, or for one of several, while the rest is as long as it needs to be.
        found = [wish for wish in found if wish.bound == "at least"]
    return tuple(found)


def _survives_code(wish: LengthConstraint) -> bool:
    if wish.unit in ("word", "hanzi"):
        return wish.amount >= _CODE_WORDS
    return wish.unit in ("sentence", "paragraph") and not wish.text.startswith(("in ", "with ", "using "))


_CODE_WORDS = 150  # words from which on a number in a programming task is about a text to write


@cache
def _rules() -> dict[str, re.Pattern[str]]:
    return {
        "more": re.compile(
            r"step[- ]by[- ]step|chain of thought|your (?:reasoning|work|thinking)\b|reasoning process|first reason|"
            r"think (?:first|carefully|aloud)|一步一步|逐步|思考过程|推理过程|解题过程|【解析】",
        ),
        "parts": re.compile(
            r"(?:^|[\n。；;.?？])[ \t]*[（(][1-9一二三四五][）)]|^[ \t]*(?:question|task|part) \d", re.M
        ),
        "code": re.compile(
            r"\b(?:functions?|python|javascript|typescript|java|c\+\+|c#|sql|regex|regexp|html|css|bash|script|algorithm|"
            r"program|class|api|code)\b|代码|函数|程序|脚本|正则|编程",
        ),
    }

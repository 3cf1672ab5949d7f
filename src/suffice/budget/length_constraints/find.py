"""Finds the lengths that a prompt asks for, in every language that is read: Chinese and English."""

from __future__ import annotations

import re
from functools import cache

from suffice.budget.length_constraints.chinese import chinese_constraints
from suffice.budget.length_constraints.constraint import LengthConstraint
from suffice.budget.length_constraints.english import english_constraints

__all__ = ["find_constraints"]

_CODE_WORDS = 150  # words from which on a number in a programming task is about a text to write


def find_constraints(text: str) -> list[LengthConstraint]:
    """Every length constraint in `text` (instructions only: see `suffice.prompt.instructions`).

    Numbers that describe something else ("I have 200 words in my file", 这800字) are not constraints.
    """
    found = [*english_constraints(text), *chinese_constraints(text)]
    if not found:
        return []
    rules, text = _rules(), text.lower()
    if rules["code"].search(text):
        # A limit in a programming task ("truncate to at most 100 characters") is about data.
        found = [constraint for constraint in found if _survives_code(constraint)]
    if rules["more"].search(text) or len(rules["parts"].findall(text)) > 1:
        # The limit is for the final answer, or for one of several, while the rest is as long as it needs to be.
        found = [constraint for constraint in found if constraint.bound == "at least"]
    return found


def _survives_code(constraint: LengthConstraint) -> bool:
    if constraint.unit in ("word", "hanzi"):
        return constraint.amount >= _CODE_WORDS
    in_passing = constraint.text.startswith(("in ", "with ", "using "))
    return constraint.unit in ("sentence", "paragraph") and not in_passing


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

"""Finds the lengths that a prompt asks for, in every language that is read: Chinese and English."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from suffice.budget.length_constraints.chinese import chinese_constraints
from suffice.budget.length_constraints.constraint import LengthConstraint
from suffice.budget.length_constraints.english import english_constraints

__all__ = ["find_constraints"]

_CODE_WORDS = 150  # words from which on a number in a programming task is about a text to write


@lru_cache(maxsize=1024)  # applications repeat themselves; instructions have at most some 2,400 characters
def find_constraints(text: str) -> tuple[LengthConstraint, ...]:
    """Every length constraint in `text` (instructions only: see `suffice.prompt.instructions`).

    Numbers that describe something else ("I have 200 words in my file", 这800字) are not constraints.
    """
    found = [*english_constraints(text), *chinese_constraints(text)]
    if not found:
        return ()
    text = text.lower()
    if _says("code", text):
        # A limit in a programming task ("truncate to at most 100 characters") is about data.
        found = [constraint for constraint in found if _survives_code(constraint)]
    if _says("more", text) or _says("parts", text, times=2):
        # The limit is for the final answer, or for one of several, while the rest is as long as it needs to be.
        found = [constraint for constraint in found if constraint.bound == "at least"]
    return tuple(found)


def _says(rule: str, text: str, times: int = 1) -> bool:
    """Whether a rule's pattern is in `text` so often. One of its marks is, if it is; most texts have none, and that is
    found out faster."""
    pattern, marks = _rules()[rule]
    return any(mark in text for mark in marks) and len(pattern.findall(text)) >= times


def _survives_code(constraint: LengthConstraint) -> bool:
    if constraint.unit in ("word", "hanzi"):
        return constraint.amount >= _CODE_WORDS
    in_passing = constraint.text.startswith(("in ", "with ", "using "))
    return constraint.unit in ("sentence", "paragraph") and not in_passing


@cache
def _rules() -> dict[str, tuple[re.Pattern[str], tuple[str, ...]]]:
    """Patterns, each with strings of which a match has at least one."""
    return {
        "more": (
            re.compile(
                r"step[- ]by[- ]step|chain of thought|your (?:reasoning|work|thinking)\b|reasoning process|"
                r"first reason|think (?:first|carefully|aloud)|一步一步|逐步|思考过程|推理过程|解题过程|【解析】",
            ),
            ("by", "chain", "your ", "reason", "think ", "步", "过程", "解析"),
        ),
        "parts": (
            re.compile(r"(?:^|[\n。；;.?？])[ \t]*[（(][1-9一二三四五][）)]|^[ \t]*(?:question|task|part) \d", re.M),
            ("(", "（", "question ", "task ", "part "),
        ),
        "code": (
            re.compile(
                r"\b(?:functions?|python|javascript|typescript|java|c\+\+|c#|sql|regex|regexp|html|css|bash|script|"
                r"algorithm|program|class|api|code)\b|代码|函数|程序|脚本|正则|编程",
            ),
            (
                *("function", "python", "script", "java", "c++", "c#", "sql", "regex", "html", "css", "bash"),
                *("algorithm", "program", "class", "api", "code", "代码", "函数", "程序", "脚本", "正则", "编程"),
            ),
        ),
    }

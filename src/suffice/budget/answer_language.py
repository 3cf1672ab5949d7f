"""The language in which a prompt will probably be answered."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["answer_language"]


def answer_language(text: str) -> str:
    """The language that the answer will probably be in: zh, ja, en, fr, es, or `other` for rarer scripts.

    It is the prompt's own unless the prompt names another ("in Hindi", 用英文).
    """
    patterns = _patterns()
    sample = text if len(text) <= 2000 else text[:1000] + text[-1000:]
    named = patterns["named"].search(sample.lower())
    if named is not None:
        return next(code for code, name in named.groupdict().items() if name)
    if sample.isascii():
        return "en"
    han = len(patterns["chinese"].findall(sample))
    if patterns["kana"].search(sample):
        return "ja"
    if han > len(patterns["letters"].findall(sample)):
        return "zh"
    return "other" if len(patterns["script"].findall(sample)) > len(sample) / 4 else "en"


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {
        "chinese": re.compile(r"[\u4e00-\u9fff]"),
        "kana": re.compile(r"[\u3040-\u30ff]"),
        "script": re.compile(r"[\u0370-\u1fff]"),
        "named": re.compile(
            r"\b(?:in|into|to|only|using|the)\s+(?:only\s+|the\s+)?(?:(?P<fr>french)|(?P<es>spanish|portuguese|italian|german)|"
            r"(?P<ja>japanese)|(?P<other>hindi|bengali|tamil|telugu|kannada|marathi|gujarati|punjabi|urdu|nepali|arabic|"
            r"persian|farsi|thai|korean|russian|greek|hebrew|ukrainian|bulgarian|malayalam|burmese|khmer|amharic|swahili|"
            r"vietnamese|finnish))\b|(?P<en>用英[文语]|英语作文|英文(?:写|回答|介绍|作文|摘要))",
        ),
        "letters": re.compile(r"[A-Za-z]{2,}"),
    }

"""What of a prompt may hold a wish: the last user message and the system prompt, less quotes and code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from suffice.errors import UsageError

__all__ = ["answer_language", "instructions", "sentence_after", "sentence_before", "split_prompt"]

_HEAD = 1200  # characters at the beginning, and at the end, of a long prompt where people say what they want
_TAIL = 800


def split_prompt(prompt: str | Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """(last user message, system prompt, everything as one text) of a raw prompt or a conversation.

    Raises:
        UsageError: a message has no role or content, or a content that is neither text nor a list of parts.
    """
    if isinstance(prompt, str):
        return prompt, "", prompt
    user, system, all_texts = "", "", []
    for index, message in enumerate(prompt):
        try:
            role, text = message["role"], _content_text(message.get("content"))
        except (KeyError, TypeError, AttributeError):
            raise UsageError(
                f"message {index} is not one: {str(message)[:80]!r}; write {{'role': 'user', 'content': 'text'}}"
            ) from None
        all_texts.append(text)
        if role == "user":
            user = text
        elif role in ("system", "developer"):
            system = f"{system}\n{text}" if system else text
    return user, system, "\n".join(all_texts)


def _content_text(content: object) -> str:
    if content is None:  # an assistant's turn that only calls tools
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise TypeError
    return "\n".join(part["text"] for part in content if part.get("type", "text") == "text")


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    return {
        "fence": re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.S),
        "quote": re.compile(r"“[^”]*”|「[^」]*」|『[^』]*』|《[^》]*》|\"[^\"\n]*\"|`[^`\n]*`|^>.*$", re.M),
        # "Translate this into English: ..." names a text that is not the caller's own voice.
        "material": re.compile(
            r"\b(?:translate|translation of|summari[sz]e|paraphrase|rewrite|rephrase|proofread|correct|edit|polish|"
            r"fix|shorten|repeat|say|classify|extract)\b[^:：\n]{0,160}[:：]"
            r"|(?:翻译|译成|译为|总结|概括|摘要|改写|润色|校对|修改|纠正|缩写|改正|重复|分类|提取)[^:：\n。]{0,60}[:：]"
            r"|(?:^|\n)[ \t]*(?:请)?翻译\s",
            re.I,
        ),
        "chinese": re.compile(r"[\u4e00-\u9fff]"),
        "kana": re.compile(r"[\u3040-\u30ff]"),
        "script": re.compile(r"[\u0370-\u1fff]"),
        "named": re.compile(
            r"\b(?:in|into|to|only|using|the)\s+(?:only\s+|the\s+)?(?:(?P<fr>french)|(?P<es>spanish|portuguese|italian|german)|"
            r"(?P<ja>japanese)|(?P<other>hindi|bengali|tamil|telugu|kannada|marathi|gujarati|punjabi|urdu|nepali|arabic|"
            r"persian|farsi|thai|korean|russian|greek|hebrew|ukrainian|bulgarian|malayalam|burmese|khmer|amharic|swahili|"
            r"vietnamese|finnish))\b|(?P<en>用英[文语]|英语作文|英文(?:写|回答|介绍|作文|摘要))",
            re.I,
        ),
        "letters": re.compile(r"[A-Za-z]{2,}"),
    }


def instructions(text: str) -> str:
    """The parts of `text` where its author says what to do; whatever else there is becomes a blank.

    Only the beginning and the end of a long text are looked at; quotes, code and what follows "translate:" are not.
    """
    if len(text) > _HEAD + _TAIL + 400:
        text = f"{text[:_HEAD]}\n\n{text[-_TAIL:]}"
    patterns = _patterns()
    bare = patterns["quote"].sub(" ␣ ", patterns["fence"].sub("\n", text))
    if len(bare.strip(" ␣\n")) < 8:
        bare = text  # the whole prompt is in quotes, so it is the wish itself
    material = patterns["material"].search(bare)
    if material is None:
        return bare
    head, pasted = bare[: material.end()], bare[material.end() :].strip()
    body, separator, last = pasted.rpartition("\n\n")
    return f"{head}\n{last}" if separator and body.strip() and len(last) <= 200 else head


def answer_language(text: str) -> str:
    """The language that the answer will probably be in: zh, ja, en, fr, es, or `other` for rarer scripts.

    It is the prompt's own unless the prompt names another ("in Hindi", 用英文).
    """
    patterns = _patterns()
    sample = text if len(text) <= 2000 else text[:1000] + text[-1000:]
    named = patterns["named"].search(sample)
    if named is not None:
        return next(code for code, name in named.groupdict().items() if name)
    han = len(patterns["chinese"].findall(sample))
    if patterns["kana"].search(sample):
        return "ja"
    if han > len(patterns["letters"].findall(sample)):
        return "zh"
    return "other" if len(patterns["script"].findall(sample)) > len(sample) / 4 else "en"


def sentence_before(text: str, start: int, ends: str) -> str:
    """The part of the sentence that stands before `start`, at most 160 characters.

    Args:
        text: the prompt.
        start: where the number begins.
        ends: the characters that end a sentence.
    """
    before = text[max(0, start - 160) : start]
    cut = max(before.rfind(mark) for mark in ends)
    return before[cut + 1 :]


def sentence_after(text: str, end: int, ends: str) -> str:
    """The part of the sentence that comes after `end`, at most 80 characters."""
    after = text[end : end + 80]
    cuts = [at for mark in ends if (at := after.find(mark)) >= 0]
    return after[: min(cuts, default=80)]

"""The one form of what a model is asked: a conversation, raw text or tokens, and the tools that the answer may call.

What is read of it (what the user wants, the system prompt, all of its text) is worked out once, when first needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypedDict

from suffice.errors import UsageError

__all__ = ["Message", "Prompt", "Tool", "content_text", "instructions", "is_text"]

Tool = Mapping[str, Any]
"""A function that an answer may call, in OpenAI's shape."""

_HEAD = 1200  # characters at the beginning, and at the end, of a long prompt where people say what they want
_TAIL = 800
# What instructions without quotes and pasted material do not have, which is told faster than patterns tell it.
_QUOTE_MARKS = '“「『《"`>'
_MATERIAL_VERBS = (
    *("translat", "summari", "paraphrase", "rewrite", "rephrase", "proofread", "correct", "edit", "polish", "fix"),
    *("shorten", "repeat", "say", "classify", "extract"),
    *("翻译", "译成", "译为", "总结", "概括", "摘要", "改写", "润色", "校对", "修改", "纠正", "缩写", "改正"),
    *("重复", "分类", "提取"),
)


class Message(TypedDict):
    """One turn of a conversation, in OpenAI's shape."""

    role: str
    content: Any


@dataclass(frozen=True)
class Prompt:
    """What a model is asked. Either `messages`, `raw` or `ids` are given; `of` makes one of what people write."""

    messages: tuple[Message, ...] = ()
    """A conversation, to which the model's chat template is applied."""
    raw: str | None = None
    """Raw text to continue, no template applied (OpenAI's completions)."""
    ids: tuple[int, ...] = ()
    """The same as tokens."""
    tools: tuple[Tool, ...] = ()

    @classmethod
    def of(cls, given: Prompt | str | Sequence[Mapping[str, Any]], tools: Sequence[Tool] = ()) -> Prompt:
        """A prompt of raw text, or of a conversation as `{"role": ..., "content": ...}` messages."""
        if isinstance(given, Prompt):
            return given
        if isinstance(given, str):
            return cls(raw=given, tools=tuple(tools))
        return cls(tuple(given), tools=tuple(tools))  # type: ignore[arg-type]

    @property
    def is_chat(self) -> bool:
        """Whether a chat template is applied to it."""
        return self.raw is None and not self.ids

    @property
    def user(self) -> str:
        """The last user message, or the raw text.

        Raises:
            UsageError: a message has no role or content, or a content that is neither text nor a list of parts; so do
                all that follow.
        """
        return self._parts[0]

    @property
    def system(self) -> str:
        """The system prompt; '' without one."""
        return self._parts[1]

    @property
    def text(self) -> str:
        """All of it as one text, the messages separated by line breaks. Token ids have none."""
        return self._parts[2]

    @cached_property
    def instructions(self) -> str:
        """The parts of `user` in which its author says what to do, without quotes, code and pasted text."""
        return instructions(self.user)

    @cached_property
    def system_instructions(self) -> str:
        """The same of `system`."""
        return instructions(self.system)

    @cached_property
    def known_ids(self) -> dict[object, Sequence[int]]:
        """Its tokens, by the tokenizer that made them: kept here by tokenizers, and gone with the prompt."""
        return {}

    @cached_property
    def _parts(self) -> tuple[str, str, str]:
        if not self.is_chat:
            raw = self.raw or ""
            return raw, "", raw
        user, system, texts = "", "", []
        for index, message in enumerate(self.messages):
            try:
                role, text = message["role"], content_text(message.get("content"))
            except (KeyError, TypeError, AttributeError):
                raise UsageError(
                    f"message {index} is not one: {str(message)[:80]!r}; write {{'role': 'user', 'content': 'text'}}"
                ) from None
            texts.append(text)
            if role == "user":
                user = text
            elif role in ("system", "developer"):
                system = f"{system}\n{text}" if system else text
        return user, system, "\n".join(texts)


def content_text(content: object) -> str:
    """The text of a message's content: a string, nothing (beside tool calls), or parts of which some may be text.

    Parts are separated by line breaks, as vLLM does where a chat template wants strings.

    Raises:
        KeyError, TypeError, AttributeError: it is none of these.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise TypeError
    return "\n".join(part["text"] for part in content if part.get("type", "text") == "text")


def is_text(content: object) -> bool:
    """Whether a content is nothing but text: no image, audio or file."""
    if isinstance(content, list):
        return all(
            isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str)
            for part in content
        )
    return content is None or isinstance(content, str)


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
    }


def instructions(text: str) -> str:
    """The parts of `text` where its author says what to do; whatever else there is becomes a blank.

    Only the beginning and the end of a long text are looked at; quotes, code and what follows "translate:" are not.
    """
    if len(text) > _HEAD + _TAIL + 400:
        text = f"{text[:_HEAD]}\n\n{text[-_TAIL:]}"
    patterns, bare = _patterns(), text
    if "```" in text or "~~~" in text:
        bare = patterns["fence"].sub("\n", bare)
    if any(mark in bare for mark in _QUOTE_MARKS):
        bare = patterns["quote"].sub(" ␣ ", bare)
    if len(bare.strip(" ␣\n")) < 8:
        bare = text  # the whole prompt is in quotes, so it is the wish itself
    lower = bare.lower()
    if not any(verb in lower for verb in _MATERIAL_VERBS) or (material := patterns["material"].search(bare)) is None:
        return bare
    head, pasted = bare[: material.end()], bare[material.end() :].strip()
    body, separator, last = pasted.rpartition("\n\n")
    return f"{head}\n{last}" if separator and body.strip() and len(last) <= 200 else head

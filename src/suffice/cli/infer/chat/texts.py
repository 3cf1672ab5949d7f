"""What a person types, as a message, a command or an answer to a question. Knows nothing about terminals."""

from __future__ import annotations

import re

from suffice.data.encodings import decode_text

__all__ = ["agrees", "command_word", "declines", "in_open_block", "message_text", "unquoted"]

_YES = {"y", "yes", "是", "好", "继续"}
_NO = {"", "n", "no", "否", "不", "不用"}
_QUOTES = '"""'


def agrees(text: str) -> bool:
    return text.strip().lower() in _YES


def declines(text: str) -> bool:
    return text.strip().lower() in _NO


def command_word(text: str) -> str:
    """The word that would name a command: `/set` of `/set top_p 0.9`; '' where a text is none.

    A second slash makes it a path, and a space before the first one makes it a message, whatever it says.
    """
    match = re.match(r"[/／]([^\s/／]+)(?=\s|$)", text)  # the wide slash is what Chinese input methods type
    return match[1].lower() if match else ""


def message_text(text: str) -> str:
    """The message in what was typed: without blank lines around it, and out of a block between lines of three quotes.

    Raises:
        DataError: it is not UTF-8, as from a terminal that is set to another encoding.
    """
    lines = text.rstrip().split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    marks = [place for place, line in enumerate(lines) if line.strip() == _QUOTES]
    if len(lines) > 1 and marks == [0, len(lines) - 1]:
        lines = lines[1:-1]
    whole = "\n".join(lines) if len(lines) > 1 else "".join(lines).strip()
    try:
        whole.encode()
    except UnicodeEncodeError:
        return decode_text(whole.encode("utf-8", "surrogateescape"), "what was typed")
    return whole


def in_open_block(text: str) -> bool:
    """Whether a first line of three quotes has no such line after it yet."""
    first, *others = (line.strip() for line in text.lstrip().split("\n"))
    return first == _QUOTES and _QUOTES not in others


def unquoted(text: str) -> str:
    """A file's name without the quotes that people put around one with spaces."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text

"""Separates thinking, `<think>…</think>` at the beginning of an answer, from the answer itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

__all__ = ["CLOSING", "ThinkingSplitter"]

_OPEN, _CLOSE = "<think>", "</think>"

CLOSING = f"\n{_CLOSE}\n\n"
"""Written after thinking that has used up its budget, so that the answer follows."""


class ThinkingSplitter:
    """Splits streamed text into thinking and answer, wherever the pieces are cut.

    Only a block at the beginning is thinking; the same tag later is part of the answer. The tags and the line ends
    right after them are left out.
    """

    def __init__(self) -> None:
        self.thinking = False
        """Whether a block is open."""
        self.answer_start: int | None = None
        """Characters that were taken before the answer's first one; None until it begins."""
        self._held = ""
        self._taken = 0
        self._begun = False
        self._after_tag = False

    @property
    def phase(self) -> Literal["undecided", "thinking", "answer"]:
        """What the last text belongs to; tags, and what lies between block and answer, belong to thinking."""
        if self.answer_start is not None:
            return "answer"
        return "thinking" if self._begun else "undecided"

    def open(self) -> None:
        """The prompt itself has opened a block."""
        self.thinking = self._begun = True

    def close(self) -> str:
        """End the block though its tag did not come; returns thinking that was held back."""
        held, self._held = self._held, ""
        self.thinking, self._begun, self._after_tag = False, True, True
        return held

    def push(self, piece: str) -> Iterator[tuple[bool, str]]:
        """(whether it is thinking, text) for each part that is certain by now."""
        if self.answer_start is not None and not self.thinking:
            self._taken += len(piece)
            if piece:
                yield False, piece
            return
        text, self._held = self._held + piece, ""
        self._taken += len(piece)
        if not self._begun and text:
            text = self._begin(text)
        if self.thinking and text:
            thought, text = self._until_close(text)
            if thought:
                yield True, thought
        if text and not self.thinking and self._begun:
            text = self._from_answer(text)
            if text:
                yield False, text

    def flush(self) -> tuple[bool, str]:
        """What was held back, when everything has come."""
        held, self._held = self._held, ""
        if not self.thinking and self.answer_start is None:
            self.answer_start = self._taken - len(held)
        return self.thinking, held

    def _begin(self, text: str) -> str:
        """Decide whether the text begins with a block."""
        start = text.lstrip()
        if start.startswith(_OPEN):
            self.thinking = self._begun = self._after_tag = True
            return start[len(_OPEN) :]
        if _OPEN.startswith(start):
            self._held = text
            return ""
        self._begun = True
        return text

    def _until_close(self, text: str) -> tuple[str, str]:
        """Thinking, and what follows it."""
        text = self._without_line_ends(text)
        at = text.find(_CLOSE)
        if at >= 0:
            self.thinking, self._after_tag = False, True
            return text[:at], text[at + len(_CLOSE) :]
        held = next((n for n in range(min(len(_CLOSE) - 1, len(text)), 0, -1) if _CLOSE.startswith(text[-n:])), 0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], ""

    def _from_answer(self, text: str) -> str:
        text = self._without_line_ends(text)
        if text and self.answer_start is None:
            self.answer_start = self._taken - len(text)
        return text

    def _without_line_ends(self, text: str) -> str:
        """Line ends right after a tag are left out."""
        if self._after_tag:
            text = text.lstrip("\r\n")
            self._after_tag = not text
        return text

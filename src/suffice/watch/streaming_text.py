"""Filters for streamed text: whole characters from token ids, and the text of several segments joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["IncrementalDecoder", "TextJoiner"]

_REPLACEMENT = "\ufffd"
_MAX_HELD = 3  # a UTF-8 character has at most 4 bytes, so at most 3 of them can be waiting for the last one
_WINDOW = 24  # tokens decoded together before the window moves on; any small number gives constant work per token
_OVERLAP = 6  # tokens kept when it moves, so that decoders which look at the previous token see it


class IncrementalDecoder:
    """Turns token ids into text one at a time, with constant work per token and never half a character.

    Args:
        decode: the tokenizer's own `decode` of a few ids (special tokens skipped).
        after: ids that came before and have been shown, for decoders which look at the previous token.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], after: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids: list[int] = list(after[-_OVERLAP:])
        self._shown = len(decode(self._ids)) if self._ids else 0

    @staticmethod
    def is_unfinished(text: str) -> bool:
        """Whether decoded text ends inside a character."""
        return text.endswith(_REPLACEMENT)

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes; '' while a character is unfinished."""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        held = _unfinished(text)
        piece = text[self._shown : len(text) - held]
        self._shown = max(self._shown, len(text) - held)
        if len(self._ids) >= _WINDOW:
            self._ids = self._ids[-_OVERLAP:]
            self._shown = len(self._decode(self._ids)) - held
        return piece

    def flush(self) -> str:
        """What is still held back when the answer ends: bytes that never became a character, as U+FFFD."""
        text = self._decode(self._ids) if self._ids else ""
        piece, self._shown = text[self._shown :], len(text)
        return piece


def _unfinished(text: str) -> int:
    """How many characters at the end may still turn into another one."""
    tail = text[-_MAX_HELD:]
    return len(tail) - len(tail.rstrip(_REPLACEMENT))


class TextJoiner:
    """Joins the text of an answer that was generated in several segments, so that nothing is lost or there twice.

    A segment that ends inside a character may show U+FFFD for it, and the next one writes the whole character. White
    space at the end of a segment may be missing from the prefix of the next one, which then writes it again.
    """

    def __init__(self) -> None:
        self._held = ""
        self._tail = ""

    def push(self, piece: str) -> str:
        """The part of a piece that is new, and whole."""
        piece = self._held + piece
        if self._tail and piece:
            piece = self._without_tail(piece)
        kept = piece.rstrip(_REPLACEMENT)
        self._held = piece[len(kept) :]
        return kept

    def begin(self, tail: str) -> None:
        """Begin a new segment; `tail` was shown, and may be written again."""
        self._held, self._tail = "", tail.rstrip(_REPLACEMENT)

    def flush(self) -> str:
        """What was held back, when the answer is over."""
        held, self._held = self._held, ""
        return held

    def _without_tail(self, piece: str) -> str:
        same = next((at for at, (a, b) in enumerate(zip(piece, self._tail, strict=False)) if a != b), None)
        if same is None:
            same = min(len(piece), len(self._tail))
        self._tail = self._tail[same:] if same == len(piece) else ""
        return piece[same:]

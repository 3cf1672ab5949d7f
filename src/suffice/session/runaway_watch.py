"""The runaway detector on an engine's chunks: whether it looks, and a loop in tokens or text as a place in the text."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from suffice.engines.base import Chunk, OnRunaway
from suffice.immutable import immutable
from suffice.session.request import Request
from suffice.watch import Notice, Runaway, RunawayDetector, RunawayKind

__all__ = ["Loop", "RunawayPolicy", "RunawayWatch"]

_MIN_TOKENS = ("min_tokens", "min_new_tokens")
_SAID: Mapping[RunawayKind, str] = {
    "verbatim": "a loop",
    "stuck_list": "a list that says the same again under another number, the last item",
    "beyond_request": "far more than what was asked for, the last part",
}


@immutable
class RunawayPolicy:
    """What is done about a loop in one answer, and whether something else than the caller decided that."""

    mode: OnRunaway
    min_tokens: int = 0
    """Nothing is looked for before so many tokens have come."""
    by: str = ""
    """`ignore_eos` or `min_tokens`, where that changes what was asked for."""

    @classmethod
    def of(cls, request: Request, *, ignores_end_tokens: bool = False) -> RunawayPolicy:
        """Whoever asks for more than the model would say by itself, in the words of vLLM and SGLang, gets it."""
        mode, extra = request.on_runaway, request.extra
        if mode == "off" or not (extra or ignores_end_tokens):
            return cls(mode)
        if ignores_end_tokens or extra.get("ignore_eos") in (True, "true"):
            return cls("off", by="ignore_eos")
        least = max((_count(extra[name]) for name in _MIN_TOKENS if name in extra), default=0)
        return cls(mode, least, "min_tokens" if least else "")


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop, and where its first turn and the copies of it stand."""

    onset: int
    """Tokens or characters before the loop."""
    period: int
    """Length of its first turn."""
    unit: Literal["tokens", "characters"]
    begin: int
    """Characters of the text up to the beginning of the first turn."""
    keep: int
    """Characters of the text up to the end of the first turn."""
    end: int
    """Characters of the text when the loop was told. From `keep` up to here there are copies of the first turn."""
    kind: RunawayKind = "verbatim"
    in_text: bool = True
    """Whether all of it stands in the text; else the three places mean nothing."""

    def __str__(self) -> str:
        return f"{_SAID[self.kind]} of {self.period} {self.unit} after {self.onset}"


class RunawayWatch:
    """Watches one answer: by its tokens where the engine says what text came with each, else by its text.

    Args:
        tokens, characters: how much of the answer came before.
    """

    def __init__(
        self, prompt: object, decode: Callable[[int], str] | None, tokens: int = 0, characters: int = 0
    ) -> None:
        self._detector = RunawayDetector(prompt, decode)
        self._ends = array("L")  # characters after each token
        self._tokens_before, self._before = tokens, characters
        self._characters = characters  # of the text so far
        self._elsewhere = 0  # characters that are not in the text
        self._text_from = 0  # where the text goes on behind the last of those

    def push(self, chunk: Chunk) -> Loop | None:
        """Take the next chunk; the loop, once, when there is one."""
        if chunk.lengths:
            return self._by_tokens(chunk)
        if self._ends:
            return None  # this is the rest of a character, at the end
        self._characters += len(chunk.text)
        found = self._detector.push_text(chunk.text) if chunk.text else None
        if found is None and (chunk.reasoning or chunk.tool_calls):
            found = self._push_elsewhere(chunk)
        if found is None:
            return None
        shift = self._before - self._elsewhere
        begin, keep, end = found.onset + shift, found.keep + shift, found.at + shift
        return Loop(
            found.onset + self._before,
            found.period,
            "characters",
            begin,
            keep,
            end,
            found.kind,
            begin >= self._text_from,
        )

    @property
    def notice(self) -> Notice | None:
        """That the answer goes on and on and advances, `at` so many characters of the text."""
        notice = self._detector.notice
        if notice is None:
            return None
        at = self._end(notice.at) if self._ends else notice.at + self._before - self._elsewhere
        return Notice(notice.lines, max(0, at))

    def _by_tokens(self, chunk: Chunk) -> Loop | None:
        told: Runaway | None = None
        for token, length in zip(chunk.token_ids, chunk.lengths, strict=True):
            self._characters += length
            self._ends.append(self._characters)
            told = self._detector.push(token) or told
        if told is None:
            return None
        begin, keep, end = map(self._end, (told.onset, told.keep, told.at))
        return Loop(told.onset + self._tokens_before, told.period, "tokens", begin, keep, end, told.kind)

    def _push_elsewhere(self, chunk: Chunk) -> Runaway | None:
        """Thinking that the server keeps apart, and the arguments of calls."""
        text = chunk.reasoning
        for piece in chunk.tool_calls:
            text += str((piece.get("function") or {}).get("arguments") or "")
        self._elsewhere += len(text)
        self._text_from = self._characters
        return self._detector.push_text(text) if text else None

    def _end(self, tokens: int) -> int:
        """Characters of the text up to the end of so many tokens."""
        return self._ends[tokens - 1] if tokens else self._before

"""One answer of a request, as far as it has come. Knows nothing about the wire."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from suffice.engines.base import Finish, TokenLogprob, Usage
from suffice.engines.tool_calls import ToolCalls
from suffice.session import Event, Repetition, Text, Thinking, ToolCallPiece

__all__ = ["Choice"]

_OPENAI_REASONS = {"stop": "stop", "length": "length"}
_CUT = "length"  # the nearest of OpenAI's words for any other end


@dataclass(slots=True)
class Choice:
    """Takes the events of one session stream."""

    index: int = 0
    """Its place among the answers of the request."""
    usage: Usage | None = None
    finish: Finish | None = None
    pieces: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: ToolCalls | None = None
    call_pieces: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    repetition: Repetition | None = None
    first_text: float | None = None
    """`time.perf_counter()` of the first piece."""
    frame: tuple[bytes, bytes] | None = None
    """What stands before and after a piece of its text in a stream."""
    offset: int = 0
    """Characters of text whose log-probabilities have been written."""

    def take(self, event: Event) -> None:
        """Note the next event of the session."""
        match event:
            case Text(text, logprobs):
                if self.first_text is None:
                    self.first_text = time.perf_counter()
                self.pieces.append(text)
                if logprobs:
                    self.logprobs += logprobs
            case Thinking(text):
                if self.first_text is None:
                    self.first_text = time.perf_counter()
                self.thoughts.append(text)
            case ToolCallPiece(piece):
                if self.first_text is None:
                    self.first_text = time.perf_counter()
                self.calls = self.calls or ToolCalls()
                self.calls.add(piece)
                self.call_pieces += 1
            case Repetition():
                self.repetition = event
                if event.dropped:  # in a stream it has been sent already: `suffice.repetition` says how much is void
                    self.pieces = [self.text[: -event.dropped]]
                del self.logprobs[len(self.logprobs) - event.dropped_logprobs :]
            case Usage():
                self.usage = event
            case Finish():
                self.finish = event

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """Tokens so far; pieces while the engine has not said."""
        return self.usage.answer_tokens if self.usage else len(self.pieces) + len(self.thoughts) + self.call_pieces

    @property
    def failed(self) -> bool:
        """Whether the engine gave it up."""
        return self.finish is not None and self.finish.reason in ("error", "cancelled")

    @property
    def end(self) -> tuple[str, str]:
        """Why it ended and what ended it; one without an end counts as cancelled."""
        return (self.finish.reason, self.finish.by) if self.finish is not None else ("cancelled", "")

    @property
    def finish_reason(self) -> str:
        """Why it ended, in the words that OpenAI's clients know. A call that a cap or a loop has cut is no call."""
        reason = _OPENAI_REASONS.get(self.finish.reason if self.finish else "", _CUT)
        if self.calls is None or reason == _CUT:
            return reason
        assert self.finish is not None
        return _CUT if self.finish.by == "repetition" else "tool_calls"

    def ending(self) -> dict[str, Any]:
        """What ended it, beyond OpenAI's words."""
        said: dict[str, Any] = {}
        if self.finish is not None:
            what = "" if self.failed else self.finish.what  # why it failed is an error's to say, to whom it may
            said = {"finish_detail": self.finish.by or self.finish.reason, "finish_what": what}
            said["usage_exact"] = self.usage is not None and self.usage.exact
        if self.repetition is not None:
            said["repetition"] = asdict(self.repetition)
        return said

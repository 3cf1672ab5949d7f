"""One answer of a request, as far as it has come. Knows nothing about the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from suffice.session import AnswerBuilder

__all__ = ["Choice"]

_OPENAI_REASONS = {"stop": "stop", "length": "length"}
_CUT = "length"  # the nearest of OpenAI's words for any other end


@dataclass(slots=True, kw_only=True)
class Choice(AnswerBuilder):
    """Takes the events of one session stream."""

    index: int = 0
    """Its place among the answers of the request."""
    frame: tuple[bytes, bytes] | None = None
    """What stands before and after a piece of its text in a stream."""
    offset: int = 0
    """Characters of text whose log-probabilities have been written."""

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

"""Why an answer ended, as clients are told: OpenAI's `finish_reason`, and beside it what really ended the answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from suffice.engines.base import Finish
from suffice.session import AnswerBuilder

__all__ = ["ending_of", "openai_finish_reason"]

_OPENAI_REASONS = {"stop": "stop", "length": "length"}
_CUT = "length"  # the nearest of OpenAI's words for any other end


def openai_finish_reason(answer: AnswerBuilder) -> str:
    """Why it ended, in the words that OpenAI's clients know. A call that a cap or a loop has cut is not a call."""
    finish = answer.finish or Finish("cancelled")
    reason = _OPENAI_REASONS.get(finish.reason, _CUT)
    return reason if answer.calls is None or reason == _CUT else "tool_calls"


def ending_of(answer: AnswerBuilder) -> dict[str, Any]:
    """What ended it, beyond OpenAI's words: `finish_detail` and so on."""
    said: dict[str, Any] = {}
    if answer.finish is not None:
        what = "" if answer.failed else answer.finish.what  # why it failed is told by an error, if the client may know
        said = {"finish_detail": answer.finish.by or answer.finish.reason, "finish_what": what}
        said["usage_exact"] = answer.usage is not None and answer.usage.exact
    if answer.repetition is not None:
        said["repetition"] = asdict(answer.repetition)
    if answer.notice is not None:
        said["notice"] = asdict(answer.notice)
    return said

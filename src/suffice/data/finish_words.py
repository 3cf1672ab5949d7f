"""Why answers end, in one vocabulary for the many words that servers, logs and result files have for it."""

from __future__ import annotations

__all__ = ["FINISH_REASONS", "finish_reason_of"]

FINISH_REASONS = ("stop", "length", "repetition", "cancelled", "error")
"""By themselves, by a limit, in a loop, because the client left, because generation failed."""

_OURS = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos", "eos_token", "end_token", "stop_word"), "stop"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call", "completed", "complete"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_new_tokens", "max_length", "max_output_tokens"), "length"),
    **dict.fromkeys(("model_length", "model_context_window_exceeded", "truncated", "incomplete"), "length"),
    **dict.fromkeys(("repetition", "runaway", "loop"), "repetition"),
    **dict.fromkeys(("cancelled", "canceled", "abort", "aborted"), "cancelled"),
    **dict.fromkeys(("error", "failed"), "error"),
}


def finish_reason_of(value: object) -> str | None:
    """One of `FINISH_REASONS` for a word that is known, the word in lower case for another, None for None and ''."""
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    return _OURS.get(word, word) or None

"""How one answer looks on a terminal, and as JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from suffice.cli.infer.screen import Screen, dim
from suffice.engines.base import Finish
from suffice.session import Answer, AnswerBuilder, Request, Session

__all__ = ["CHAT_HINTS", "answer_json", "answer_line", "dim", "show_answer", "why_it_ended"]

_FLAG_HINTS = {
    **dict.fromkeys(("auto", "caller", "model"), "--max-new-tokens with a larger number"),
    "tier": "a larger --tier",
    "context": "a shorter prompt, or a larger --max-length",
    "memory": "a shorter prompt, or a device with more memory",
}
"""What gives a cut answer more room, by what has cut it."""
CHAT_HINTS = {
    **dict.fromkeys(("auto", "caller", "model"), "/budget N"),
    "tier": "/set tier with a larger one",
    "context": "a shorter conversation (/drop, /clear)",
    "memory": "a shorter conversation (/drop, /clear)",
}
"""The same in the chat, where flags cannot be given any more."""


def why_it_ended(finish: Finish, hints: Mapping[str, str] = _FLAG_HINTS) -> str:
    match finish.reason:
        case "stop" if finish.by == "stop_word":
            return f"stopped at the stop word {finish.what!r}"
        case "stop":
            return f"ended by itself ({finish.what or finish.by})"
        case "length" if finish.looped:
            return f"STOPPED in a loop: {finish.what}"
        case "length" if finish.by == "reservation":
            return f"CUT at its first reservation: {finish.what}"
        case "length":
            hint = hints.get(finish.by)
            return f"CUT by the limit of {finish.what} ({finish.by})" + (f"; {hint} gives it more" if hint else "")
        case "cancelled":
            return "cancelled"
        case _:
            return f"FAILED: {finish.what}"


def answer_line(answer: Answer, hints: Mapping[str, str] = _FLAG_HINTS) -> str:
    budget, about = answer.budget, "" if answer.usage.exact else "about "
    thinking = f" ({answer.usage.thinking_tokens} of them thinking)" if answer.usage.thinking_tokens else ""
    tokens = f"{about}{answer.usage.answer_tokens} tokens{thinking}, {answer.tokens_per_second:.0f} tokens/s"
    allowed = f"budget {budget.max_new_tokens}, expected {budget.expected_tokens}: {'; '.join(budget.reasons)}"
    return f"{tokens}; {why_it_ended(answer.finish, hints)}; {allowed}"


def answer_json(answer: Answer) -> dict[str, Any]:
    finish, usage = answer.finish, answer.usage
    return {
        "text": answer.text,
        "finish_reason": finish.reason,
        "finish_by": finish.by,
        "finish_detail": why_it_ended(finish),
        "prompt_tokens": usage.prompt_tokens,
        "answer_tokens": usage.answer_tokens,
        "thinking_tokens": usage.thinking_tokens,
        "tokens_exact": usage.exact,
        "seconds": round(answer.seconds, 4),
        "first_token_seconds": None if answer.first_token_seconds is None else round(answer.first_token_seconds, 4),
        "thinking": answer.thinking,
        "repetition": None if answer.repetition is None else asdict(answer.repetition),
        "budget": answer.budget.to_dict(),
        **_beside_text(answer),
    }


def _beside_text(answer: Answer) -> dict[str, Any]:
    """What only some answers have: calls, log-probabilities."""
    said: dict[str, Any] = {"tool_calls": list(answer.tool_calls)} if answer.tool_calls else {}
    if answer.logprobs:
        from suffice.engines.openai.logprobs import chat_logprobs  # imports aiohttp

        said["logprobs"] = chat_logprobs(answer.logprobs)
    return said


async def show_answer(
    session: Session, request: Request, *, stream: bool, hints: Mapping[str, str] = _FLAG_HINTS
) -> Answer:
    """Answer a request: the text on standard output, the line about it on standard error.

    A cancelled task ends the answer, not the program: what was written so far is returned as `cancelled`.
    """
    builder, screen = AnswerBuilder(), Screen(stream=stream)
    request = replace(request, progress=screen.watched)
    async with aclosing(session.stream(request)) as events:
        try:
            async for event in events:
                builder.add(event)
                screen.show(event)
        except asyncio.CancelledError:
            if not builder.started:
                raise
    screen.close()
    answer = builder.answer()
    sys.stdout.write("\n" if stream else answer.text + "\n")
    sys.stdout.flush()
    print(dim(answer_line(answer, hints)), file=sys.stderr)
    return answer

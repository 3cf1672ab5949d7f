"""How one answer looks on a terminal, and as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import asdict, replace
from typing import Any

from suffice.budget import Budget
from suffice.cli.infer.screen import Screen
from suffice.cli.notes import note
from suffice.engines.base import Finish
from suffice.session import Answer, AnswerBuilder, Request, Session

__all__ = ["CHAT_HINTS", "answer_json", "answer_line", "show_answer", "why_it_ended"]

_FLAG_HINTS = {
    **dict.fromkeys(("auto", "caller", "model"), "a larger --max-new-tokens allows more"),
    "tier": "a larger --tier allows more",
    "context": "a shorter prompt or a larger --max-length allows more",
    "memory": "a shorter prompt or a device with more memory allows more",
}
"""What gives a cut answer more room, by what has cut it."""
CHAT_HINTS = {
    **dict.fromkeys(("auto", "caller", "model"), "/continue goes on, /budget N allows more"),
    "tier": "/continue goes on, /set tier NAME allows more",
    "context": "a shorter conversation allows more: /drop or /clear",
    "memory": "a shorter conversation allows more: /drop or /clear",
}
"""The same in the chat, where flags cannot be given any more."""
_WHOSE_BUDGET = {
    "caller": "asked for",
    "tier": "the tier's",
    "context": "what the context leaves",
    "model": "the default",
    "auto": "raised for the prompt",
}


_NOT_TO_THE_LETTER = ("a list", "far more")  # as `Finish.what` begins for what is stopped and is no loop


def why_it_ended(finish: Finish, hints: Mapping[str, str] = _FLAG_HINTS) -> str:
    match finish.reason:
        case "stop" if finish.by == "stop_word":
            return f"stopped at the stop word {finish.what!r}"
        case "stop":
            return f"ended by itself ({finish.what or finish.by})"
        case "length" if finish.looped and finish.what.startswith(_NOT_TO_THE_LETTER):
            return f"STOPPED: {finish.what}"
        case "length" if finish.looped:
            return f"STOPPED in a loop: it repeats itself ({finish.what})"
        case "length" if finish.by == "reservation":
            return f"CUT at its first reservation: {finish.what}"
        case "length":
            hint = hints.get(finish.by)
            return f"CUT by the limit of {finish.what} ({finish.by})" + (f": {hint}" if hint else "")
        case "cancelled":
            return "cancelled"
        case _:
            return f"FAILED: {finish.what}"


def answer_line(answer: Answer, hints: Mapping[str, str] = _FLAG_HINTS, *, reserved: int | None = None) -> str:
    """What there is to say about an answer: its tokens, why it ended, and what it was allowed.

    Args:
        hints: what gives a cut answer more room, by what has cut it (`Finish.by`).
        reserved: the tokens that were set aside for it at first; None where its engine sets nothing aside.
    """
    usage, about = answer.usage, "" if answer.usage.exact else "about "
    thinking = f" ({usage.thinking_tokens} of them thinking)" if usage.thinking_tokens else ""
    count = "1 token" if usage.answer_tokens == 1 else f"{usage.answer_tokens} tokens"
    tokens = f"{about}{count}{thinking}, {answer.tokens_per_second:.0f} tokens/s"
    parts = [tokens, why_it_ended(answer.finish, hints), _allowed(answer.budget, reserved)]
    if answer.finish.looped:
        begin, end = (answer.repetition and answer.repetition.copies) or (0, 0)
        copies = f"; {end - begin} characters are copies" if end else ""
        parts.insert(2, f"all {len(answer.text)} characters are kept{copies}")
    return "; ".join(parts)


def _allowed(budget: Budget, reserved: int | None) -> str:
    whose = _WHOSE_BUDGET[budget.limited_by]
    if budget.clamped_from is not None:
        whose += f", {budget.clamped_from} were asked for"
    set_aside = "" if reserved is None else f", reserved {reserved}"
    return f"budget {budget.max_new_tokens} ({whose}){set_aside}, expected {budget.expected_tokens}"


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
        "notice": None if answer.notice is None else asdict(answer.notice),
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
    session: Session,
    request: Request,
    *,
    stream: bool,
    raw: bool = False,
    hints: Mapping[str, str] = _FLAG_HINTS,
) -> Answer:
    """Answer a request: the text on standard output, the line about it on standard error.

    A cancelled task ends the answer, not the program: what was written so far is returned as `cancelled`.

    Args:
        stream: show the text as it comes, and not when it is complete.
        raw: let control characters in it act on the terminal, too.
        hints: as `answer_line` has them.
    """
    builder, screen = AnswerBuilder(), Screen(stream=stream, raw=raw)
    request = replace(request, progress=screen.watched)
    try:
        async with aclosing(session.stream(request)) as events:
            async for event in events:
                builder.add(event)
                screen.show(event)
    except asyncio.CancelledError:
        if not builder.started:
            raise
    finally:
        screen.close()
    answer = builder.answer()
    screen.write("\n" if stream else answer.text + "\n")
    screen.close()
    note(answer_line(answer, hints, reserved=session.first_reservation(request, answer.budget)))
    return answer

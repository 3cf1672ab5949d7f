"""How one answer looks on a terminal, and as JSON."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from suffice.engines.base import Finish
from suffice.session import Answer, AnswerBuilder, Event, Repetition, Request, Session, Text, Thinking

__all__ = ["answer_json", "answer_line", "dim", "show_answer", "why_it_ended"]

_CUT_HINT = {
    "auto": "--max-new-tokens with a larger number",
    "caller": "--max-new-tokens with a larger number",
    "tier": "a larger --tier",
    "context": "a shorter prompt, or a larger --max-length",
    "model": "--max-new-tokens with a larger number",
    "memory": "a shorter prompt, or a device with more memory",
}


def dim(text: str) -> str:
    """`text` in the terminal's faint style; as it is where standard error is no terminal."""
    return f"\x1b[2m{text}\x1b[0m" if sys.stderr.isatty() else text


def why_it_ended(finish: Finish) -> str:
    """The finish in words."""
    match finish.reason:
        case "stop" if finish.by == "stop_word":
            return f"stopped at the stop word {finish.what!r}"
        case "stop" if finish.by == "repetition":
            return f"STOPPED in a loop: {finish.what}"
        case "stop":
            return f"ended by itself ({finish.what or finish.by})"
        case "length" if finish.by == "reservation":
            return f"CUT at its first reservation: {finish.what}"
        case "length":
            hint = _CUT_HINT.get(finish.by)
            return f"CUT by the limit of {finish.what} ({finish.by})" + (f"; {hint} gives it more" if hint else "")
        case "cancelled":
            return "cancelled"
        case _:
            return f"FAILED: {finish.what}"


def answer_line(answer: Answer) -> str:
    """Tokens, speed, why it ended, and the budget, in one line."""
    budget, about = answer.budget, "" if answer.usage.exact else "about "
    tokens = f"{about}{answer.usage.answer_tokens} tokens, {answer.tokens_per_second:.0f} tokens/s"
    if answer.usage.thinking_tokens:
        tokens = tokens.replace(" tokens,", f" tokens ({answer.usage.thinking_tokens} of them thinking),", 1)
    allowed = f"budget {budget.max_new_tokens}, expected {budget.expected_tokens}: {'; '.join(budget.reasons)}"
    return f"{tokens}; {why_it_ended(answer.finish)}; {allowed}"


def answer_json(answer: Answer) -> dict[str, Any]:
    """Everything about an answer, as JSON can hold it."""
    return {
        "text": answer.text,
        "finish_reason": answer.finish.reason,
        "finish_by": answer.finish.by,
        "finish_detail": why_it_ended(answer.finish),
        "prompt_tokens": answer.usage.prompt_tokens,
        "answer_tokens": answer.usage.answer_tokens,
        "thinking_tokens": answer.usage.thinking_tokens,
        "tokens_exact": answer.usage.exact,
        "seconds": round(answer.seconds, 4),
        "first_token_seconds": None if answer.first_token_seconds is None else round(answer.first_token_seconds, 4),
        "thinking": answer.thinking,
        "repetition": None if answer.repetition is None else asdict(answer.repetition),
        "budget": answer.budget.to_dict(),
    }


class _Screen:
    """A streamed answer: its text on standard output; what is about it, faint, on standard error if somebody looks."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._thinking = False

    def show(self, event: Event) -> None:
        """Show what an event says, at once."""
        match event:
            case Thinking(text) if self._watched:
                self._thinking = True
                print(dim(text), end="", file=sys.stderr, flush=True)
            case Text(text):
                if self._thinking:
                    print("\n", file=sys.stderr, flush=True)
                self._thinking = False
                sys.stdout.write(text)
                sys.stdout.flush()
            case Repetition():
                print(dim(_about_loop(event)), file=sys.stderr, flush=True)


def _about_loop(loop: Repetition) -> str:
    what = "thinking" if loop.thinking else "the answer"
    words = f"\n({what} loops: {loop.period} {loop.unit} again and again"
    if loop.dropped:
        words += f"; the last {loop.dropped} characters are no part of the answer"
    return words + ("; stopped)" if loop.stopped else ")")


async def show_answer(session: Session, request: Request, *, stream: bool) -> Answer:
    """Answer a request: the text on standard output, the line about it on standard error.

    A cancelled task ends the answer, not the program: what was written so far is returned as `cancelled`.
    """
    builder, screen = AnswerBuilder(), _Screen()
    async with aclosing(session.stream(request)) as events:
        try:
            async for event in events:
                builder.add(event)
                if stream:
                    screen.show(event)
        except asyncio.CancelledError:
            if not builder.started:
                raise
    answer = builder.answer()
    sys.stdout.write("\n" if stream else answer.text + "\n")
    sys.stdout.flush()
    print(dim(answer_line(answer)), file=sys.stderr)
    return answer

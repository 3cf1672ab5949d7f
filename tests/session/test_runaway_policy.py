"""What the way through does about a loop: stopped at once, nothing taken back, told as what it is, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from suffice.batch import BatchSummary
from suffice.cli.infer.answer_view import answer_json, why_it_ended
from suffice.engines.base import Chunk, Finish, GenerationRequest
from suffice.engines.openai.engine import RemoteEngine
from suffice.session import Answer, AnswerBuilder, Event, Repetition, Request, Session, Text
from suffice.testing.fake_openai import FakeOpenAI, Reply
from suffice.testing.scripted_engine import ScriptedEngine

TURN = "The river runs down to the sea and the rain comes back to the hills again. "
LOOP = "Water goes round. " + TURN * 60


class TokensEngine(ScriptedEngine):
    """Tells how much text came with each token, as the local engine does."""

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().submit(request):
            yield replace(chunk, lengths=(1,)) if chunk.text else chunk


def answer_and_events(engine: Any, **wishes: Any) -> tuple[Answer, list[Event]]:
    async def main() -> tuple[Answer, list[Event]]:
        events, builder = [], AnswerBuilder()
        request = Request(({"role": "user", "content": "Where does water go?"},), max_new_tokens=4000, **wishes)
        async for event in Session(engine).stream(request):
            events.append(event)
            builder.add(event)
        return builder.answer(), events

    return asyncio.run(main())


@pytest.mark.parametrize("kind", [TokensEngine, ScriptedEngine])
def test_a_loop_is_stopped_at_once_and_what_was_streamed_is_the_answer(kind: Any) -> None:
    engine = kind(LOOP, context=10_000)
    answer, events = answer_and_events(engine)
    shown = "".join(event.text for event in events if isinstance(event, Text))
    (loop,) = [event for event in events if isinstance(event, Repetition)]
    assert engine.cancelled, "the generation goes on"
    assert answer.usage.answer_tokens == len(shown) < 4000
    assert answer.text == shown
    assert (answer.finish.reason, answer.finish.by) == ("length", "repetition")
    assert "loop" in why_it_ended(answer.finish)
    assert answer_json(answer)["repetition"]["period"] == loop.period == answer.repetition.period


@pytest.mark.parametrize("kind", [TokensEngine, ScriptedEngine])
@pytest.mark.parametrize("wishes", [{}, {"stop_words": ("again. X",)}])
def test_copies_are_named_and_left_out_of_what_a_conversation_goes_on_with(kind: Any, wishes: dict[str, Any]) -> None:
    answer, events = answer_and_events(kind(LOOP, context=10_000), **wishes)
    (loop,) = [event for event in events if isinstance(event, Repetition)]
    begin, end = loop.copies
    assert answer.text == LOOP[: len(answer.text)]
    assert end == len(answer.text), "what a stop word held back is part of the answer"
    assert answer.text[begin:end] == answer.text[begin - loop.period : end - loop.period]
    assert answer.text_without_copies == answer.text[:begin]
    assert answer.text_without_copies.count("the rain comes back") in (1, 2)
    assert abs(begin - loop.onset - loop.period) <= 1


def test_a_loop_that_began_in_thinking_leaves_the_answer_a_turn_of_its_own() -> None:
    engine = ScriptedEngine("<think>\n" + TURN * 2 + "</think>" + TURN * 60, context=10_000)
    answer, _ = answer_and_events(engine, max_thinking_tokens=3000)
    assert (answer.finish.reason, answer.finish.by) == ("length", "repetition")
    assert answer.text_without_copies.count("the rain comes back") in (1, 2)


def test_a_loop_is_nothing_to_be_continued() -> None:
    assert not Finish("length", "repetition").cut
    assert Finish("length", "tier").cut
    assert not Finish("stop", "end_token").cut


def test_an_engine_that_still_says_stop_is_understood() -> None:
    class Old(ScriptedEngine):
        async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
            yield Chunk("la la", finish=Finish("stop", "repetition", "a loop"))

    answer, _ = answer_and_events(Old(""))
    assert answer.finish == Finish("length", "repetition", "a loop")


def test_warn_tells_and_goes_on_and_off_does_not_look() -> None:
    answer, _ = answer_and_events(TokensEngine(LOOP, context=10_000), on_runaway="warn")
    assert (answer.finish.reason, len(answer.text)) == ("length", 4000)
    assert answer.repetition is not None
    assert not answer.repetition.stopped
    answer, _ = answer_and_events(TokensEngine(LOOP, context=10_000), on_runaway="off")
    assert (answer.finish.reason, answer.repetition) == ("length", None)


def test_an_answer_that_ends_by_itself_is_no_runaway() -> None:
    text = "".join(f"{n}. Point number {n} speaks of {chr(96 + n) * 5}. " for n in range(1, 9))
    answer, _ = answer_and_events(TokensEngine(text))
    assert (answer.text, answer.finish.by, answer.repetition) == (text, "end_token", None)


def test_a_loop_that_the_server_found_is_passed_through_and_counted() -> None:
    async def main() -> Answer:
        async with FakeOpenAI() as server, RemoteEngine(server.url) as engine:
            server.script(Reply(pieces=("la ", "la "), finish_reason="repetition"))
            return await Session(engine).answer(Request(({"role": "user", "content": "sing"},)))

    answer = asyncio.run(main())
    assert answer.finish == Finish("length", "repetition", "found by the server")
    summary = BatchSummary()
    summary.add(answer)
    assert (summary.loops, summary.runaways, summary.loop_rate) == (1, 1, 1.0)
    assert (summary.finishes, summary.truncation_rate, summary.limits) == ({"length": 1}, 0.0, {})

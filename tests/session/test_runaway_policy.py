"""What the way through does about a loop: stopped at once, nothing taken back, told as what it is, and counted."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from repetitive_answers import WANTED
from suffice.batch import BatchSummary
from suffice.cli.infer.answer_view import answer_json, why_it_ended
from suffice.engines.base import Capabilities, Chunk, Finish, GenerationRequest
from suffice.engines.openai.engine import RemoteEngine
from suffice.session import Answer, AnswerBuilder, Event, Repetition, Request, RunawayPolicy, Session, Text
from suffice.testing.fake_openai import FakeOpenAI, Reply
from suffice.testing.scripted_engine import ScriptedEngine
from suffice.watch import Notice

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


def asked_of(reply: Reply, **wishes: Any) -> Answer:
    async def main() -> Answer:
        async with FakeOpenAI() as server, RemoteEngine(server.url) as engine:
            server.script(reply)
            return await Session(engine).answer(Request(({"role": "user", "content": "sing"},), **wishes))

    return asyncio.run(main())


CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"x'}}
WHOLE = {"message": {"role": "assistant", "content": "la la "}, "index": 0, "stop_reason": "repetition_detected"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(pieces=("la ", "la "), finish_reason="repetition", stop_reason="repetition_detected"),
        Reply(pieces=("la ", "la "), finish_reason="repetition"),
        Reply(pieces=(), tool_calls=(CALL,), finish_reason="tool_calls", stop_reason="repetition_detected"),
        Reply(body={"choices": [{**WHOLE, "finish_reason": "repetition"}]}),
    ],
)
def test_a_loop_that_vllm_found_is_one_here_too_and_counted(reply: Reply) -> None:
    answer = asked_of(reply)
    assert answer.finish == Finish("length", "repetition", "found by the server")
    summary = BatchSummary()
    summary.add(answer)
    assert (summary.loops, summary.runaways, summary.loop_rate) == (1, 1, 1.0)
    assert (summary.finishes, summary.truncation_rate, summary.limits) == ({"length": 1}, 0.0, {})


def said_by_suffice(finish_reason: str, **suffice: Any) -> Reply:
    """What a gateway gets from another Suffice, as the last event of a stream."""
    delta = {"index": 0, "delta": {"content": "la la la"}, "finish_reason": None}
    last = {"choices": [{**delta, "delta": {}, "finish_reason": finish_reason}], "suffice": suffice}
    events = [{"choices": [delta], "suffice": {"budget": {}}}, last]
    return Reply(raw=[*(f"data: {json.dumps(event)}\n\n".encode() for event in events), b"data: [DONE]\n\n"])


@pytest.mark.parametrize("reason", ["length", "stop"])
def test_what_another_suffice_tells_of_a_loop_is_passed_on_in_its_words(reason: str) -> None:
    loop = {"onset": 0, "period": 3, "unit": "tokens", "copies": [3, 8], "stopped": True, "thinking": False}
    notice = {"lines": 200, "at": 7}
    detail = {"finish_detail": "repetition", "finish_what": "a loop of 3 tokens after 0"}
    answer = asked_of(said_by_suffice(reason, **detail, repetition=loop, notice=notice))
    assert answer.finish == Finish("length", "repetition", "a loop of 3 tokens after 0")
    assert answer.repetition == Repetition(0, 3, "tokens", (3, 8))
    assert (answer.text, answer.text_without_copies) == ("la la la", "la ")
    assert answer.notice == Notice(200, 7)


@pytest.mark.parametrize("loop", [None, [], {}, {"unit": "tokens"}, {"unit": "pages", "onset": 1, "period": 2}])
def test_nonsense_about_a_loop_is_not_passed_on(loop: object) -> None:
    answer = asked_of(said_by_suffice("stop", finish_detail="end_token", repetition=loop, notice={"lines": "many"}))
    assert (answer.finish.reason, answer.repetition, answer.notice) == ("stop", None, None)


def test_another_suffice_is_told_what_to_do_about_loops_and_others_are_not() -> None:
    async def main(owner: str) -> Any:
        models = ({"id": "m", "owned_by": owner},)
        async with FakeOpenAI(models=models) as server, RemoteEngine(server.url) as engine:
            await Session(engine).answer(Request("sing", on_runaway="off"))
            return server.generations[0].body.get("on_runaway")

    assert asyncio.run(main("suffice")) == "off"
    assert asyncio.run(main("vllm")) is None


@pytest.mark.parametrize("kind", [TokensEngine, ScriptedEngine])
@pytest.mark.parametrize("name", WANTED)
def test_what_advances_arrives_whole(kind: Any, name: str) -> None:
    prompt, text = WANTED[name]
    request = Request(({"role": "user", "content": prompt},), max_new_tokens=9000)
    answer = asyncio.run(Session(kind(text, context=20_000)).answer(request))
    assert (answer.text, answer.finish.by, answer.repetition) == (text, "end_token", None)


@pytest.mark.parametrize("kind", [TokensEngine, ScriptedEngine])
def test_many_lines_that_advance_are_noticed_and_not_stopped(kind: Any) -> None:
    text = "Here they are:\n" + "".join(f"Sensor {n} is on.\n" for n in range(300))
    answer, events = answer_and_events(kind("<think>hm</think>" + text, context=20_000), max_thinking_tokens=200)
    assert (answer.text, answer.finish.by, answer.repetition) == (text[: len(answer.text)], "caller", None)
    assert answer.notice is not None
    assert answer.notice.lines >= 200
    assert answer.text[: answer.notice.at].endswith(" is on.\n")
    assert isinstance(events[-3], Notice)
    assert answer_json(answer)["notice"] == {"lines": answer.notice.lines, "at": answer.notice.at}
    summary = BatchSummary()
    summary.add(answer)
    assert (summary.advancing, summary.loops, summary.runaways) == (1, 0, 0)


@pytest.mark.parametrize("kind", [TokensEngine, ScriptedEngine])
def test_what_goes_far_beyond_the_request_is_said_to_and_stays_whole(kind: Any) -> None:
    text = "".join(f"{n}. Fruit number {n} of all\n" for n in range(1, 500))
    request = Request(({"role": "user", "content": "Name 5 fruits."},), max_new_tokens=20_000)
    answer = asyncio.run(Session(kind(text, context=30_000)).answer(request))
    assert (answer.finish.reason, answer.finish.by) == ("length", "repetition")
    assert answer.finish.what.startswith("far more than what was asked for")
    assert (answer.repetition.kind, answer.repetition.copies) == ("beyond_request", None)
    assert answer.text == answer.text_without_copies == text[: len(answer.text)]
    assert why_it_ended(answer.finish) == f"STOPPED: {answer.finish.what}"


def test_an_answer_that_says_what_was_thought_is_no_loop() -> None:
    words = re.findall(r"\S+ ", TURN * 4)
    answer = asked_of(Reply(pieces=(*words, "That is it."), reasoning=words))
    assert (answer.thinking, answer.text) == (TURN * 4, TURN * 4 + "That is it.")
    assert (answer.finish.by, answer.repetition) == ("end_token", None)


@pytest.mark.parametrize(("extra", "by"), [({"ignore_eos": True}, "ignore_eos"), ({"ignore_eos": False}, "")])
def test_who_ignores_the_end_gets_the_whole_cap(extra: dict[str, Any], by: str) -> None:
    answer, _ = answer_and_events(TokensEngine(LOOP, context=10_000), extra=extra)
    assert answer.finish.by == ("caller" if by else "repetition")
    assert RunawayPolicy.of(Request("hi", extra=extra)).by == by
    assert RunawayPolicy.of(Request("hi", on_runaway="warn", extra=extra)).mode == ("off" if by else "warn")


@pytest.mark.parametrize("kind", [TokensEngine, ScriptedEngine])
def test_nothing_is_stopped_before_there_are_min_tokens(kind: Any) -> None:
    answer, _ = answer_and_events(kind(LOOP, context=10_000), extra={"min_tokens": 2000})
    assert (answer.finish.by, 2000 < len(answer.text) < 4000) == ("repetition", True)
    loop = answer.repetition
    assert loop is not None
    assert loop.onset >= 2000
    begin, end = loop.copies
    assert answer.text[begin:end] == answer.text[begin - loop.period : end - loop.period]


def test_an_engine_that_ignores_end_tokens_is_not_stopped() -> None:
    class Measured(ScriptedEngine):
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities(), ignores_end_tokens=True)

    answer, _ = answer_and_events(Measured(LOOP, context=10_000))
    assert (answer.finish.by, answer.repetition) == ("caller", None)

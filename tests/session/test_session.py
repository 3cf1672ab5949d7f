"""The way through: budget, engine, stop words, finish."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from suffice.budget import Budget
from suffice.engines.base import Finish, Usage
from suffice.errors import PromptTooLongError, UsageError
from suffice.session import Answer, Event, Request, Session, Text
from suffice.testing.scripted_engine import ScriptedEngine


def ask(engine: ScriptedEngine, prompt: str = "say hello", **wishes: Any) -> Answer:
    request = Request(({"role": "user", "content": prompt},), **wishes)
    return asyncio.run(Session(engine).answer(request))


def test_events_come_in_order_budget_text_usage_finish() -> None:
    async def main() -> list[Event]:
        request = Request(({"role": "user", "content": "hi"},))
        return [event async for event in Session(ScriptedEngine("abc")).stream(request)]

    kinds = [type(event) for event in asyncio.run(main())]
    assert kinds == [Budget, Text, Text, Text, Usage, Finish]


def test_an_answer_that_ends_by_itself_says_so() -> None:
    answer = ask(ScriptedEngine("hello"))
    assert (answer.text, answer.finish) == ("hello", Finish("stop", "end_token", "<end>"))
    assert answer.usage == Usage(len("say hello"), 5)
    assert answer.first_token_seconds is not None
    assert answer.first_token_seconds <= answer.seconds


@pytest.mark.parametrize(
    ("wishes", "by", "tokens"),
    [
        ({"max_new_tokens": 7}, "caller", 7),
        ({"max_new_tokens": 600, "tier": "short"}, "tier", 128),
        ({"max_new_tokens": 5000}, "context", 1000 - 9),
        ({"max_new_tokens": 300, "max_length": 50}, "context", 41),
    ],
)
def test_a_cut_answer_names_the_limit_that_cut_it(wishes: dict[str, Any], by: str, tokens: int) -> None:
    engine = ScriptedEngine("x" * 5000)
    answer = ask(engine, on_runaway="off", **wishes)
    assert answer.finish == Finish("length", by, f"{tokens} tokens")
    assert len(answer.text) == answer.usage.answer_tokens == answer.budget.max_new_tokens == tokens
    assert engine.asked[0].max_new_tokens == tokens


def test_a_clamped_request_is_told_so() -> None:
    budget = ask(ScriptedEngine(), max_new_tokens=5000).budget
    assert budget.clamped_from == 5000
    assert any("5000" in reason for reason in budget.reasons)


def test_a_prompt_that_does_not_fit_is_refused_with_its_numbers() -> None:
    with pytest.raises(PromptTooLongError, match=r"2000 tokens.*1000"):
        ask(ScriptedEngine(), prompt="x" * 2000)
    with pytest.raises(UsageError, match="medium"):
        ask(ScriptedEngine(), tier="medium")


@pytest.mark.parametrize(("keep", "text"), [(False, "one "), (True, "one </answer>")])
def test_a_stop_word_ends_the_answer_and_the_generation(keep: bool, text: str) -> None:
    engine = ScriptedEngine("one </answer> two")
    answer = ask(engine, stop_words=("</answer>",), keep_stop_words=keep)
    assert (answer.text, answer.finish) == (text, Finish("stop", "stop_word", "</answer>"))
    assert engine.cancelled == [engine.asked[0].id]
    assert answer.usage.answer_tokens == len("one </answer>")
    assert answer.usage.exact


def test_half_a_stop_word_at_the_end_is_part_of_the_answer() -> None:
    assert ask(ScriptedEngine("one </ans"), stop_words=("</answer>",)).text == "one </ans"


def test_what_arrived_before_a_failure_is_kept() -> None:
    answer = ask(ScriptedEngine("abcdef", fail_after=3))
    assert (answer.text, answer.finish) == ("abc", Finish("error", "engine", "the cable was pulled"))
    assert answer.usage.answer_tokens == 3


def test_closing_the_stream_cancels_the_generation() -> None:
    engine = ScriptedEngine("abcdef", slow=True)

    async def main() -> None:
        request = Request(prompt="a")
        async with aclosing(Session(engine).stream(request)) as events:
            async for event in events:
                if isinstance(event, Text):
                    break
        assert engine.cancelled == [request.id]
        assert engine.running == 0

    asyncio.run(main())


def test_many_requests_run_at_once() -> None:
    engine = ScriptedEngine("abcdef", slow=True)
    session = Session(engine)

    async def main() -> list[Answer]:
        return await asyncio.gather(*(session.answer(Request(prompt="a", max_new_tokens=n)) for n in range(1, 9)))

    answers = asyncio.run(main())
    assert [len(answer.text) for answer in answers] == [1, 2, 3, 4, 5, 6, 6, 6]
    assert [answer.finish.reason for answer in answers] == ["length"] * 5 + ["stop"] * 3
    assert engine.most_running == 8


def test_auto_uses_the_models_own_default_where_the_prompt_says_nothing() -> None:
    answer = ask(ScriptedEngine("x" * 5000, default_max_new_tokens=77), prompt="hm")
    assert (answer.budget.max_new_tokens, answer.finish.by) == (77, "model")


@pytest.mark.parametrize("text", ["<", "<thi", "a <", "a STO"])
def test_what_is_held_back_at_the_end_is_not_lost(text: str) -> None:
    answer = asyncio.run(Session(ScriptedEngine(text)).answer(Request(prompt="x", stop_words=("STOP",))))
    assert answer.text == text

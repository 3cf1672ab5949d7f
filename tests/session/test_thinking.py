"""Thinking has a budget of its own, and an answer follows it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from suffice.budget import Budget
from suffice.cli.infer.answer_view import answer_json, answer_line
from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Engine, GenerationRequest, Usage
from suffice.engines.openai.engine import RemoteEngine
from suffice.errors import CannotContinueError, UsageError
from suffice.prompt import Prompt
from suffice.session import Answer, Request, Session
from suffice.session.thinking_budget import ThinkingSplit
from suffice.testing.fake_openai import FakeOpenAI, Reply
from suffice.testing.scripted_engine import ScriptedEngine
from suffice.watch import ThinkingSplitter
from suffice.watch.thinking import CLOSING

THOUGHT = "Let me see: one, two, three, and so on. "


class Thinker(ScriptedEngine):
    """Thinks as long as it is let, and answers when its block of thinking has been closed."""

    def __init__(self, thoughts: str, answer: str = "42", *, refusal: str = "", opened: bool = False) -> None:
        super().__init__(("" if opened else "<think>\n") + thoughts + "</think>\n\n" + answer, context=5000)
        self._after, self._refusal, self._opened = answer, refusal, opened

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        run = ScriptedEngine(self.answer if request.prefix is None else self._after)
        first = self._opened
        async for chunk in run.submit(replace(request, prefix=None)):
            yield replace(chunk, thinking=first)
            first = False

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        if self._refusal:
            raise CannotContinueError(self._refusal)
        return AnswerPrefix(written.text + then)


def ask(engine: Engine, **wishes: Any) -> Answer:
    request = Request(({"role": "user", "content": "6 * 7?"},), **{"max_new_tokens": 100, **wishes})
    return asyncio.run(Session(engine).answer(request))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>\nhm, 好\n</think>\n\n42 </think>", "hm, 好\n", "42 </think>"),
        (" <think>a<b</think>c", "a<b", "c"),
        ("<thin ice>", "", "<thin ice>"),
        ("say <think> now", "", "say <think> now"),
        ("<think>never closed </thi", "never closed </thi", ""),
        ("<thi", "", "<thi"),
    ],
)
def test_thinking_is_told_from_the_answer_wherever_the_text_is_cut(
    size: int, text: str, thinking: str, answer: str
) -> None:
    splitter, parts = ThinkingSplitter(), {True: "", False: ""}
    for at in range(0, len(text), size):
        for is_thinking, part in splitter.push(text[at : at + size]):
            parts[is_thinking] += part
    is_thinking, rest = splitter.flush()
    parts[is_thinking] += rest
    assert (parts[True], parts[False]) == (thinking, answer)
    if answer:
        assert splitter.answer_start == len(text) - len(answer)


@pytest.mark.parametrize("opened", [False, True])
def test_thinking_that_ends_by_itself_is_apart_and_counted(opened: bool) -> None:
    answer = ask(Thinker("short", opened=opened), max_thinking_tokens=50)
    assert (answer.text, answer.thinking, answer.finish.reason) == ("42", "short", "stop")
    assert 0 < answer.usage.thinking_tokens < answer.usage.answer_tokens
    assert (answer_json(answer)["thinking"], answer_json(answer)["text"]) == ("short", "42")
    assert "of them thinking" in answer_line(answer)


def test_spent_thinking_is_closed_and_the_answer_written() -> None:
    engine = Thinker(THOUGHT * 20)
    answer = ask(engine, max_thinking_tokens=60)
    first, second = engine.asked
    assert (first.max_new_tokens, second.prefix.text[-len(CLOSING) :]) == (160, CLOSING)
    assert (answer.text, answer.finish.by) == ("42", "end_token")
    assert answer.usage == Usage(6, 62, thinking_tokens=60)
    assert answer.thinking == (THOUGHT * 20)[: 60 - len("<think>\n")]


def test_without_a_budget_of_its_own_thinking_leaves_a_quarter_for_the_answer() -> None:
    answer = ask(Thinker(THOUGHT * 20))
    assert (answer.text, answer.usage.thinking_tokens) == ("42", 75)


def test_the_answer_keeps_its_own_cap() -> None:
    answer = ask(Thinker("hm", "x" * 500), max_thinking_tokens=300)
    assert (answer.text, answer.finish.reason, answer.finish.by) == ("x" * 100, "length", "caller")


def test_thinking_that_loops_is_closed_too() -> None:
    answer = ask(Thinker("I must think about it once more, from the very beginning. " * 60), max_thinking_tokens=3000)
    assert (answer.text, answer.finish.by) == ("42", "end_token")
    assert answer.repetition is not None
    assert answer.repetition.thinking
    assert answer.usage.thinking_tokens < 1500


LOOPING = "I must think about it once more, from the very beginning. " * 60


def test_where_looping_thinking_cannot_be_closed_it_ends_as_a_loop_and_says_why() -> None:
    answer = ask(Thinker(LOOPING, refusal="no way"), max_thinking_tokens=3000)
    assert (answer.text, answer.finish.reason, answer.finish.by) == ("", "length", "repetition")
    assert answer.finish.what.startswith("a loop of ")
    assert answer.finish.what.endswith("in the thinking; thinking could not be closed: no way")
    assert (answer.repetition.thinking, answer.repetition.copies) == (True, None)


def test_thinking_that_loops_after_it_could_not_be_closed_is_ended_too() -> None:
    answer = ask(Thinker(THOUGHT + LOOPING, refusal="no way"), max_thinking_tokens=60, max_new_tokens=3000)
    assert answer.finish.by == "repetition"
    assert answer.usage.answer_tokens < 2000


def test_an_answer_that_loops_as_its_thinking_did_is_stopped_as_well() -> None:
    answer = ask(Thinker(LOOPING, LOOPING), max_thinking_tokens=3000, max_new_tokens=3000)
    assert (answer.finish.by, answer.repetition.thinking) == ("repetition", False)
    begin, end = answer.repetition.copies
    assert (end, answer.text_without_copies) == (len(answer.text), answer.text[:begin])
    assert answer.text_without_copies.count("once more") in (1, 2)


@pytest.mark.parametrize("owner", ["vllm", "openai"])
def test_looping_thinking_on_a_server_is_closed_by_a_continuation_where_it_can_be(owner: str) -> None:
    async def main() -> tuple[Answer, FakeOpenAI]:
        models = ({"id": "m", "owned_by": owner, "max_model_len": 9000},)
        async with FakeOpenAI(models=models) as server, RemoteEngine(server.url) as engine:
            thought = Reply(pieces=("<think>\n", *re.findall(r"\S+\s*", LOOPING)), usage=(5, 999))
            server.script(thought, Reply(pieces=("42",), usage=(200, 1)))
            request = Request(({"role": "user", "content": "6 * 7?"},), max_new_tokens=100, max_thinking_tokens=3000)
            return await Session(engine).answer(request), server

    answer, server = asyncio.run(main())
    assert answer.repetition.thinking
    if owner == "openai":
        assert (answer.text, answer.finish.reason, answer.finish.by) == ("", "length", "repetition")
        return
    assert (answer.text, answer.finish.by) == ("42", "end_token")
    continued = server.generations[1].body
    assert continued["messages"][-1]["content"].endswith(CLOSING)
    assert continued["continue_final_message"]


def test_tools_do_not_keep_looping_thinking_from_being_closed_where_calls_stand_in_the_text() -> None:
    class Local(Thinker):
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities(), calls_in_text=True)

    tools = ({"type": "function", "function": {"name": "multiply"}},)
    prompt = Prompt(({"role": "user", "content": "6 * 7?"},), tools=tools)
    for kind, text in ((Local, "42"), (Thinker, "")):
        request = Request(prompt, max_new_tokens=100, max_thinking_tokens=3000)
        assert asyncio.run(Session(kind(LOOPING)).answer(request)).text == text


def test_where_the_block_cannot_be_closed_thinking_goes_on_and_the_reason_is_told() -> None:
    answer = ask(Thinker(THOUGHT * 50, refusal="no way"), max_thinking_tokens=60, on_runaway="off")
    assert (answer.text, answer.finish.reason) == ("", "length")
    assert "no way" in answer.finish.what


def test_a_servers_reasoning_is_thinking() -> None:
    async def main() -> Answer:
        async with FakeOpenAI() as server, RemoteEngine(server.url) as engine:
            server.script(Reply(pieces=("42",), reasoning=("let me ", "see"), usage=(7, 3)))
            return await Session(engine).answer(Request(({"role": "user", "content": "hi"},)))

    answer = asyncio.run(main())
    assert (answer.text, answer.thinking, answer.usage) == ("42", "let me see", Usage(7, 3, thinking_tokens=2))


def test_reasoning_that_loops_and_that_the_server_keeps_apart_ends_as_a_loop_and_says_why() -> None:
    async def main() -> Answer:
        async with FakeOpenAI() as server, RemoteEngine(server.url) as engine:
            server.script(Reply(pieces=("42",), reasoning=re.findall(r"\S+\s*", LOOPING)))
            request = Request(({"role": "user", "content": "hi"},), max_thinking_tokens=3000)
            return await Session(engine).answer(request)

    answer = asyncio.run(main())
    assert (answer.text, answer.finish.reason, answer.finish.by) == ("", "length", "repetition")
    assert "could not be closed: the server has taken thinking out of the text" in answer.finish.what
    assert (answer.repetition.thinking, answer.repetition.copies) == (True, None)


def test_a_reservation_that_ends_inside_a_servers_reasoning_is_gone_on_with() -> None:
    """vLLM takes thinking out of the chat's text, and not out of the completion that goes on with it."""
    legs = [
        [
            {"prompt_token_ids": [1, 2], "choices": [{"delta": {"reasoning": "let "}, "token_ids": [10]}]},
            {"choices": [{"delta": {"reasoning": "me "}, "token_ids": [11], "finish_reason": "length"}]},
        ],
        [
            {"choices": [{"text": "see</think>", "token_ids": [12, 13]}]},
            {"choices": [{"text": "\n\n42", "token_ids": [14, 15], "finish_reason": "stop"}]},
        ],
    ]

    async def main() -> Answer:
        async with FakeOpenAI(models=({"id": "m", "owned_by": "vllm"},)) as server, RemoteEngine(server.url) as engine:
            server.routes = {"/detokenize": lambda body: {"prompt": "whole"}}
            server.script(*(Reply(raw=[f"data: {json.dumps(event)}\n\n".encode() for event in leg]) for leg in legs))
            request = Request(({"role": "user", "content": "hi"},), reservation=2, max_new_tokens=50)
            answer = await Session(engine).answer(request)
            assert server.generations[1].body["prompt"] == [1, 2, 10, 11]
            return answer

    answer = asyncio.run(main())
    assert (answer.text, answer.thinking, answer.finish.reason) == ("42", "let me see", "stop")
    assert (answer.usage.answer_tokens, answer.usage.thinking_tokens) == (6, 4)


@pytest.mark.parametrize(
    ("thinking", "context", "caps"),
    [
        (None, None, (100, 75, 100)),
        (50, None, (150, 50, 100)),
        (0, None, (100, 0, 100)),
        (5000, 260, (250, 150, 100)),
        (5000, 110, (100, 50, 100)),
    ],
)
def test_thinking_comes_on_top_as_far_as_the_context_has_room(
    thinking: int | None, context: int | None, caps: tuple[int, int, int]
) -> None:
    left = None if context is None else context - 10
    budget = Budget(100, 50, ((0.5, 50),), "caller", (), prompt_tokens=10, context_left=left)
    planned = ThinkingSplit.plan(Request(prompt="a", max_thinking_tokens=thinking), budget)
    assert (100 + planned.on_top, planned.thinking, 100) == caps


def test_a_negative_budget_is_refused() -> None:
    with pytest.raises(UsageError, match="max_thinking_tokens is -1"):
        ask(Thinker("a"), max_thinking_tokens=-1)


def test_on_the_local_engine_the_block_is_closed_and_the_answer_follows() -> None:
    """A raw prompt that opens a block, as chat templates of reasoning models do; the toy model knows nothing of it."""
    pytest.importorskip("transformers")
    from suffice.checkpoints.model_source import bundled_model
    from suffice.engines.base import Sampling
    from suffice.engines.local.engine import LocalEngine

    if not (bundled_model() / "config.json").is_file():
        pytest.skip("the bundled model is not there")

    async def main() -> Answer:
        request = Request(
            prompt="<|im_start|>user\nCount from 1 to 40.<|im_end|>\n<|im_start|>assistant\n<think>\n",
            max_new_tokens=40,
            max_thinking_tokens=6,
            sampling=Sampling(temperature=0),
        )
        async with LocalEngine(kv_tokens=4096) as engine:
            return await Session(engine).answer(request)

    answer = asyncio.run(main())
    assert answer.thinking
    assert answer.text
    assert answer.usage.exact
    assert 6 <= answer.usage.thinking_tokens <= 8  # a few more may be on their way when the block is closed
    assert "think>" not in answer.thinking + answer.text

"""Going on with an answer that its first reservation ended: nothing lost, nothing twice, and usage that adds up."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from suffice.engines.base import AnswerPrefix, Capabilities, Chunk, Engine, Finish, GenerationRequest, Sampling, Usage
from suffice.engines.openai.engine import RemoteEngine
from suffice.errors import CannotContinueError, PromptTooLongError, UsageError
from suffice.prompt import Prompt
from suffice.session import Answer, Request, Session
from suffice.testing.fake_openai import FakeOpenAI, Reply
from suffice.testing.scripted_engine import ScriptedEngine
from suffice.watch import TextJoiner

CHINESE = "第一点：苹果🍎。\n\n第二点：香蕉。\n  第三点：橘子。结束"
PROMPTS = ("数到20", "列出三种水果", "Count to 15.", "Tell me a story in 4 sentences.", "写一个三句话的故事", "你好！")


class LegsEngine(ScriptedEngine):
    """Ends at its reservation, as a server does, and goes on after what it has written."""

    def __init__(self, answer: str = "hello", *, refusal: str = "", charges: Any = "cap", **settings: Any) -> None:
        super().__init__(answer, **settings)
        self.refusal, self.charges = refusal, charges

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        rest = ScriptedEngine(self.answer[len(request.prefix.text) if request.prefix else 0 :])
        self.asked.append(request)
        more = request.first_cap < request.max_new_tokens
        async with aclosing(rest.submit(replace(request, max_new_tokens=request.first_cap))) as chunks:
            async for chunk in chunks:
                cut = chunk.finish is not None and chunk.finish.reason == "length" and more
                yield replace(chunk, finish=Finish("length", "reservation")) if cut else chunk

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        if self.refusal:
            raise CannotContinueError(self.refusal)
        return AnswerPrefix(written.text + then, (*written.token_ids, *map(ord, then)))

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), charges=self.charges)


def ask(engine: Engine, prompt: str = "say it", **wishes: Any) -> Answer:
    request = Request(({"role": "user", "content": prompt},), **wishes)
    return asyncio.run(Session(engine).answer(request))


@pytest.mark.parametrize("reservation", [1, 2, 3, 7, 16, 500])
@pytest.mark.parametrize("text", ["hello world " * 20, CHINESE])
def test_the_answer_is_the_same_whatever_was_reserved_at_first(text: str, reservation: int) -> None:
    whole = ask(LegsEngine(text), max_new_tokens=600, reservation="full")
    engine = LegsEngine(text)
    answer = ask(engine, max_new_tokens=600, reservation=reservation)
    assert (answer.text, answer.finish, answer.usage) == (whole.text, whole.finish, whole.usage)
    assert (len(engine.asked) > 1) == (reservation < len(text))


def test_each_leg_doubles_what_there_is_and_the_cap_holds() -> None:
    engine = LegsEngine("x" * 500)
    answer = ask(engine, max_new_tokens=100, reservation=16)
    assert [leg.first_cap for leg in engine.asked] == [16, 16, 32, 36]
    assert answer.finish == Finish("length", "caller", "100 tokens")
    assert answer.usage == Usage(6, 100)


def test_a_stop_word_across_the_seam_is_found() -> None:
    answer = ask(LegsEngine("one </answer> two"), max_new_tokens=90, reservation=7, stop_words=("</answer>",))
    assert (answer.text, answer.finish) == ("one ", Finish("stop", "stop_word", "</answer>"))
    assert answer.usage.answer_tokens == len("one </answer>")


def test_where_nothing_can_be_continued_the_caller_gets_length_and_the_reason() -> None:
    answer = ask(LegsEngine("x" * 99, refusal="it does not know how"), reservation=16)
    assert (answer.text, answer.finish) == ("x" * 16, Finish("length", "reservation", "it does not know how"))


def test_an_answer_that_leaves_no_room_to_go_on_has_met_the_context() -> None:
    class Full(LegsEngine):
        async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
            if request.prefix is not None:
                raise PromptTooLongError(50, 50, "the model's context")
            async for chunk in super().submit(request):
                yield chunk

    answer = ask(Full("x" * 99), reservation=16, max_new_tokens=90)
    assert (answer.text, answer.finish) == ("x" * 16, Finish("length", "context", "50"))


def test_auto_reserves_what_is_predicted_only_where_the_engine_charges_for_it() -> None:
    for charges, reserved in (("cap", True), ("reservation", True), ("nothing", False)):
        engine = LegsEngine("x" * 40, charges=charges)
        answer = ask(engine, "say hello in one sentence")
        assert engine.asked[0].reservation == (answer.budget.reservation if reserved else None)
        assert answer.budget.expected_tokens <= answer.budget.reservation <= answer.budget.max_new_tokens


def test_an_answer_longer_than_anybody_expected_is_not_cut() -> None:
    for prompt in ("say hello in one sentence", "Tell me a joke", "50字以内介绍北京"):
        engine = LegsEngine("".join(map(chr, range(0x4E00, 0x4E00 + 1900))), context=4000)
        answer = ask(engine, prompt)
        assert (len(answer.text), answer.finish.by) == (1900, "end_token")
        assert answer.budget.reservation < 1900
        assert len(engine.asked) > 1


@pytest.mark.parametrize("field", ["tools", "response_format"])
def test_tools_and_json_get_the_whole_cap_at_once(field: str) -> None:
    engine = LegsEngine("{}")
    ask(engine, reservation=1, extra={field: [{}]})
    assert [leg.reservation for leg in engine.asked] == [None]


def test_reservations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="reservation is 0"):
        ask(LegsEngine(), reservation=0)
    with pytest.warns(match="deprecated"), pytest.raises(UsageError, match="first_reservation is 5 and on_length is"):
        ask(LegsEngine(), first_reservation=5, on_length="stop")


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["好\ufffd", None, "的"], "好的"),  # the character is written again, whole
        (["好\ufffd"], "好\ufffd"),  # nobody completes it
        (["a\n", "\n\n", None, "\n\n", "b"], "a\n\n\nb"),  # the white space is written again
        (["a\n", None, "b"], "a\nb"),  # it is not
        (["a \n", None, " ", "b"], "a \nb"),  # other white space than before
        (["a ", None, " \t", "b"], "a \tb"),
    ],
)
def test_a_seam_shows_everything_once(pieces: list[str | None], shown: str) -> None:
    resume_point, text = TextJoiner(), ""
    for piece in pieces:
        if piece is None:
            resume_point.begin(text[len(text.rstrip()) :])
        else:
            text += resume_point.push(piece)
    assert text + resume_point.flush() == shown


# ---- remote -----------------------------------------------------------------------------------------------------


def over_http(owner: str, replies: list[Reply], *, routes: dict[str, Any] | None = None, **wishes: Any) -> Any:
    """The answer, and what the server was asked."""

    async def main() -> Any:
        async with FakeOpenAI(models=({"id": "m", "max_model_len": 4096, "owned_by": owner},)) as server:
            server.routes = routes or {}
            server.script(*replies)
            async with RemoteEngine(server.url) as engine:
                request = Request(({"role": "user", "content": "hi"},), **wishes)
                return await Session(engine).answer(request), [each.body for each in server.generations]

    return asyncio.run(main())


def test_sglang_goes_on_with_the_message_and_white_space_is_not_doubled() -> None:
    replies = [
        Reply(pieces=("Eins\n", "\n"), finish_reason="length", usage=(7, 2)),
        Reply(pieces=("\n\n", "Zwei"), finish_reason="stop", usage=(9, 2)),
    ]
    answer, bodies = over_http("sglang", replies, reservation=2, max_new_tokens=50)
    assert (answer.text, answer.finish.reason, answer.usage) == ("Eins\n\nZwei", "stop", Usage(7, 4))
    assert bodies[1]["messages"][-1] == {"role": "assistant", "content": "Eins"}
    assert (bodies[1]["continue_final_message"], bodies[1]["add_generation_prompt"]) == (True, False)
    assert [body["max_tokens"] for body in bodies] == [2, 2]


def test_an_unknown_server_is_not_asked_to_do_what_it_may_not_know() -> None:
    reply = Reply(pieces=("a", "b"), finish_reason="length", usage=(7, 2))
    answer, bodies = over_http("me", [reply], reservation=2, max_new_tokens=50)
    assert (answer.finish.reason, answer.finish.by, len(bodies)) == ("length", "reservation", 1)
    assert "--tokenizer" in answer.finish.what
    assert "127.0.0.1" not in answer.finish.what  # a gateway's clients read it


def test_vllm_goes_on_from_its_own_tokens_behind_the_last_whole_character() -> None:
    first = [
        {"prompt_token_ids": [1, 2, 3], "choices": [{"index": 0, "delta": {"content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": "好"}, "token_ids": [10]}]},
        {"choices": [{"index": 0, "delta": {"content": ""}, "token_ids": [11], "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    second = [
        {"choices": [{"index": 0, "text": "", "token_ids": [11], "prompt_token_ids": [1, 2, 3, 10]}]},
        {"choices": [{"index": 0, "text": "的", "token_ids": [12]}]},
        {"choices": [{"index": 0, "text": "", "token_ids": [2], "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 3}},
    ]
    raw = [Reply(raw=[f"data: {json.dumps(event)}\n\n".encode() for event in leg]) for leg in (first, second)]

    def detokenize(body: dict[str, Any]) -> dict[str, str]:
        return {"prompt": "好\ufffd" if body["tokens"][-1] == 11 else "好"}

    answer, bodies = over_http("vllm", raw, routes={"/detokenize": detokenize}, reservation=2, max_new_tokens=50)
    assert (answer.text, answer.usage, answer.finish.reason) == ("好的", Usage(3, 4), "stop")
    assert bodies[1]["prompt"] == [1, 2, 3, 10]
    assert bodies[0]["return_token_ids"] is True


def test_any_server_goes_on_where_the_tokenizer_is_known() -> None:
    pytest.importorskip("transformers")
    from suffice.checkpoints.model_source import bundled_model

    folder = bundled_model()
    if not (folder / "config.json").is_file():
        pytest.skip("the bundled model is not there")

    async def main() -> Any:
        async with FakeOpenAI() as server:
            server.script(
                Reply(pieces=("数", "到"), finish_reason="length", usage=(7, 2)), Reply(pieces=("十",), usage=(9, 1))
            )
            async with RemoteEngine(server.url, tokenizer=str(folder)) as engine:
                request = Request(({"role": "user", "content": "hi"},), reservation=2)
                answer = await Session(engine).answer(request)
                return answer, server.generations[1], engine._tokenizer

    answer, second, tokenizer = asyncio.run(main())
    assert (answer.text, answer.usage.answer_tokens) == ("数到十", 3)
    assert second.path == "/v1/completions"
    assert tokenizer.tokenizer.decode(second.body["prompt"]).endswith("<|im_start|>assistant\n数到")


# ---- real models ------------------------------------------------------------------------------------------------


async def both(engine: Engine, prompts: tuple[str, ...]) -> list[tuple[Answer, Answer]]:
    """One answer after the other, so that both arms are batched alike."""
    session, pairs = Session(engine), []
    for prompt in prompts:
        request = Request(({"role": "user", "content": prompt},), max_new_tokens=200, sampling=Sampling(temperature=0))
        whole = await session.answer(replace(request, reservation="full"))
        pairs.append((whole, await session.answer(replace(request, id="b", reservation=16))))
    return pairs


def same(pairs: list[tuple[Answer, Answer]]) -> None:
    assert max(whole.usage.answer_tokens for whole, _ in pairs) > 16
    for whole, continued in pairs:
        assert (continued.text, continued.finish, continued.usage) == (whole.text, whole.finish, whole.usage)


def test_the_bundled_model_says_the_same_with_a_reservation_of_16_tokens() -> None:
    pytest.importorskip("transformers")
    from suffice.checkpoints.model_source import bundled_model
    from suffice.engines.local.engine import LocalEngine

    if not (bundled_model() / "config.json").is_file():
        pytest.skip("the bundled model is not there")

    async def main() -> None:
        async with LocalEngine(kv_tokens=4096) as engine:
            same(await both(engine, PROMPTS))

    asyncio.run(main())


def test_what_is_reserved_grows_while_an_answer_runs() -> None:
    pytest.importorskip("transformers")
    from suffice.checkpoints.model_source import bundled_model
    from suffice.engines.local.engine import LocalEngine

    if not (bundled_model() / "config.json").is_file():
        pytest.skip("the bundled model is not there")

    async def main() -> None:
        async with LocalEngine(kv_tokens=4096, ignore_end_tokens=True) as engine:
            request = GenerationRequest("a", Prompt(raw="Count to 9."), 100, reservation=8)
            reserved, tokens = [], 0
            async for chunk in engine.submit(request):
                tokens += len(chunk.token_ids)
                reserved.append(engine.reserved_tokens())
                if chunk.finish is None:
                    assert reserved[-1] > tokens, "an answer has outgrown what was set aside for it"
            assert tokens == 100
            prompt = (await engine.count_tokens(Prompt(raw="Count to 9."))).tokens
            assert {each - prompt for each in reserved if each} <= {8, 16, 32, 64, 100}
            assert len(set(reserved)) > 2
            assert engine.reserved_tokens() == 0

    asyncio.run(main())


def test_a_request_that_loses_its_cache_keeps_growing() -> None:
    """Under memory pressure transformers begins a request anew, with what it has generated as its prompt."""
    pytest.importorskip("transformers")
    from suffice.engines.local.growing_request import GrowingRequest
    from suffice.engines.local.logprobs import LogprobRecorder

    state = GrowingRequest(
        reservation=4, request_id="a", initial_tokens=[1, 2], max_new_tokens=10, eos_token_id=[99], streaming=True
    )
    from transformers.generation.continuous_batching.requests import RequestStatus

    state._status = RequestStatus.DECODING
    limits = []
    for token in range(5):
        assert not state.update_and_check_completion(token, None)
        limits.append(state.reserved_tokens)
    assert limits == [4, 4, 4, 8, 8]
    anew = state.create_equivalent_initial_request()
    assert isinstance(anew, GrowingRequest)
    assert (anew.initial_tokens, anew.max_new_tokens, anew.reserved_tokens) == ([1, 2, 0, 1, 2, 3, 4], 5, 4)
    state.recorder = LogprobRecorder(2, 0, lambda token: ("", b""))
    assert getattr(state.create_equivalent_initial_request(), "recorder", None) is state.recorder  # and not a copy
    anew._status = RequestStatus.DECODING
    assert [anew.update_and_check_completion(token, None) for token in range(5, 10)] == [False] * 4 + [True]
    assert anew.to_generation_output().generated_tokens == list(range(10))


@pytest.mark.slow
def test_vllm_says_the_same_with_a_reservation_of_16_tokens() -> None:
    url = os.environ.get("SUFFICE_TEST_VLLM")
    if not url:
        pytest.skip("set SUFFICE_TEST_VLLM to the URL of a vLLM that serves the bundled model in float32")

    async def main() -> None:
        async with RemoteEngine(url) as engine:
            same(await both(engine, PROMPTS))

    asyncio.run(main())

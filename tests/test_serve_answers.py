"""What one request may ask for beyond one text: several answers, several prompts, tool calls, log-probabilities."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from fake_openai import FakeOpenAI
from fake_openai import Reply as Scripted
from scripted import ScriptedEngine
from serving import LONG, Server, serving
from suffice.engines.base import Capacity, Chunk, GenerationRequest
from suffice.engines.local import LocalEngine
from suffice.engines.remote import RemoteEngine
from suffice.errors import EngineError
from suffice.session import Request, Session

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL: tuple[dict[str, Any], ...] = (
    {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 0, "function": {"arguments": '"北京"}'}},
)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine("你好 hello")


@pytest.fixture
def hello(engine: ScriptedEngine) -> Iterator[Server]:
    with serving(engine) as server:
        yield server


@pytest.fixture
def gateway(server: FakeOpenAI) -> Iterator[Server]:
    with serving(RemoteEngine(server.url), upstreams=(server.url,)) as gateway:
        yield gateway


def rows(server: Server) -> list[dict[str, Any]]:
    """What the ledger has taken and not yet written."""
    return [dict(row) for row in server.service.ledger._rows]


def merged(events: list[Any], index: int = 0) -> tuple[str, str | None]:
    """The text and the finish reason of one choice of a stream."""
    choices = [choice for event in events for choice in event["choices"] if choice["index"] == index]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return text, next((choice["finish_reason"] for choice in choices if choice["finish_reason"]), None)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# Several answers


def test_n_answers_have_their_index_ids_and_seeds_and_count_the_prompt_once(
    hello: Server, engine: ScriptedEngine
) -> None:
    reply = hello.chat("abc", n=3, seed=7, max_tokens=6)
    said = reply.json
    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in said["choices"]] == ["你好 hel"] * 3
    assert [choice["finish_reason"] for choice in said["choices"]] == ["length"] * 3
    assert [choice["suffice"]["finish_detail"] for choice in said["choices"]] == ["caller"] * 3
    assert said["usage"] == {"prompt_tokens": 3, "completion_tokens": 18, "total_tokens": 21}
    request_id = reply.headers["x-request-id"]
    assert [asked.id for asked in engine.asked] == [f"{request_id}-{i}" for i in range(3)]
    assert [asked.sampling.seed for asked in engine.asked] == [7, 8, 9]
    assert not hello.service.tickets
    assert not hello.service.admission.running


def test_a_seed_at_the_end_of_its_range_begins_anew(hello: Server, engine: ScriptedEngine) -> None:
    assert hello.chat(n=2, seed=2**63 - 1).status == 200
    assert [asked.sampling.seed for asked in engine.asked] == [2**63 - 1, -(2**63)]


def test_a_stream_of_n_answers_ends_each_and_then_itself(hello: Server) -> None:
    events = hello.chat(n=2, stream=True, stream_options={"include_usage": True}).events
    assert [merged(events, index) for index in (0, 1)] == [("你好 hello", "stop")] * 2
    roles = [event["choices"][0]["index"] for event in events[:2] if event["choices"][0]["delta"].get("role")]
    assert roles == [0, 1]
    assert events[0]["suffice"]["budget"]["max_new_tokens"] > 0
    assert (events[-1]["choices"], events[-1]["usage"]["completion_tokens"]) == ([], 16)
    ends = [event["choices"][0] for event in events[:-1] if event["choices"][0]["finish_reason"]]
    assert [end["suffice"]["finish_detail"] for end in ends] == ["end_token"] * 2


def test_one_request_is_one_row_and_one_reservation(hello: Server) -> None:
    hello.chat("abc", n=4)
    [row] = rows(hello)
    assert (row["prompt_tokens"], row["answer_tokens"], row["finish"]) == (3, 32, "stop")
    lines = hello.ask("GET", "/metrics").body.decode().splitlines()
    count = next(line for line in lines if line.startswith("suffice_request_answer_tokens_count"))
    assert count.endswith(" 4.0")
    assert any(line.startswith("suffice_prompt_tokens_total") and line.endswith(" 3.0") for line in lines)


def test_completions_take_n_and_lists_of_prompts_in_openais_order(hello: Server, engine: ScriptedEngine) -> None:
    said = hello.post("/v1/completions", {"prompt": ["a", "bcd"], "n": 2, "max_tokens": 2, "seed": 1}).json
    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2, 3]
    assert [asked.prompt for asked in engine.asked] == ["a", "a", "bcd", "bcd"]
    assert [asked.sampling.seed for asked in engine.asked] == [1, 2, 1, 2]  # as each prompt would get alone
    assert said["usage"] == {"prompt_tokens": 4, "completion_tokens": 8, "total_tokens": 12}
    assert len(said["suffice"]["budgets"]) == 2
    events = hello.post("/v1/completions", {"prompt": ["a", "b"], "stream": True}).events
    texts = ["".join(e["choices"][0]["text"] for e in events if e["choices"][0]["index"] == i) for i in (0, 1)]
    assert texts == ["你好 hello"] * 2
    assert hello.post("/v1/completions", {"prompt": "a", "n": 2, "best_of": 2}).status == 200
    for prompt in ([], [""], ["a", 1], [["a"]], [[]], [-1], [1, True], {}):
        refused = hello.post("/v1/completions", {"prompt": prompt})
        assert (refused.status, refused.json["error"]["param"]) == (400, "prompt")


def test_prompts_of_one_request_share_the_tier_that_holds_them_all(hello: Server) -> None:
    budget = hello.post("/v1/budget", {"prompt": ["a", "b"]})
    assert (budget.status, budget.json["error"]["param"]) == (400, "prompt")
    said = hello.post("/v1/completions", {"prompt": ["Answer in 900 words: x", "yes or no?"]}).json
    tiers = {"short": 128, "standard": 512, "long": 1024}
    largest = max(each["max_new_tokens"] for each in said["suffice"]["budgets"])
    assert largest <= tiers[said["suffice"]["tier"]]


def test_more_answers_than_the_server_gives_are_refused_with_the_number(engine: ScriptedEngine) -> None:
    with serving(engine, max_choices=2) as server:
        reply = server.chat(n=3)
        assert (reply.status, reply.json["error"]["param"]) == (400, "n")
        assert "at most 2" in reply.json["error"]["message"]
        assert server.post("/v1/completions", {"prompt": ["a", "b", "c"]}).json["error"]["param"] == "prompt"
        assert server.chat(n=2).status == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_all_answers(stream: bool) -> None:
    engine = ScriptedEngine("x" * 900, slow=True)
    with serving(engine) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        body = {"messages": [{"role": "user", "content": "hi"}], "n": 3, "stream": stream}
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        wait_for(lambda: engine.running == 3)
        connection.close()
        wait_for(lambda: len(engine.cancelled) == 3)
        wait_for(lambda: not server.service.tickets and not server.service.admission.running)


class OneFails(ScriptedEngine):
    """The second answer of a request breaks after a piece; the others would go on for long."""

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().submit(request)) as chunks:
            async for chunk in chunks:
                yield chunk
                if request.id.endswith("-1") and len(self.asked) % 3 == 0:
                    raise EngineError("the cable was pulled")


def test_one_answer_that_fails_ends_the_request() -> None:
    engine = OneFails(LONG, slow=True)
    with serving(engine) as server:
        refused = server.chat(n=3)
        assert (refused.status, refused.json["error"]["message"]) == (502, "the cable was pulled")
        assert len(engine.cancelled) == 3
        *_, used, error = server.chat(n=3, stream=True).events
        assert error["error"]["message"] == "the cable was pulled"
        assert used["usage"]["completion_tokens"] >= 1
        assert [row["finish"] for row in rows(server)] == ["error", "error"]


def test_upstreams_are_asked_for_each_answer(server: FakeOpenAI, gateway: Server) -> None:
    said = gateway.chat("one two three", n=2, seed=5).json
    assert [choice["message"]["content"] for choice in said["choices"]] == ["one two three"] * 2
    assert said["usage"]["completion_tokens"] == 6
    assert sorted(sent.body["seed"] for sent in server.generations) == [5, 6]
    assert all("n" not in sent.body for sent in server.generations)


# Prompts as tokens


def test_token_ids_go_to_the_upstream_as_they_are(server: FakeOpenAI, gateway: Server) -> None:
    said = gateway.post("/v1/completions", {"prompt": [[5, 6, 7], [8]], "max_tokens": 3}).json
    assert sorted(sent.body["prompt"] for sent in server.generations) == [[5, 6, 7], [8]]
    assert [choice["text"] for choice in said["choices"]] == ["5 6 7", "8"]


def test_token_ids_are_read_locally_and_must_be_in_the_vocabulary() -> None:
    with serving(LocalEngine()) as server:
        engine: Any = server.service.models["suffice-tiny"].pool.upstreams[0].engine
        text = "<|im_start|>user\nCount from 1 to 3.<|im_end|>\n<|im_start|>assistant\n"
        ids = engine.tokenizer(text)["input_ids"]
        by_text = server.post("/v1/completions", {"prompt": text, "temperature": 0}).json
        by_ids = server.post("/v1/completions", {"prompt": ids, "temperature": 0}).json
        assert by_ids["choices"][0]["text"] == by_text["choices"][0]["text"]
        assert by_ids["usage"]["prompt_tokens"] == len(ids)
        refused = server.post("/v1/completions", {"prompt": [10**6]})
        assert (refused.status, "1000000" in refused.json["error"]["message"]) == (400, True)


# Tools


def test_tools_go_to_the_upstream_and_calls_come_back_whole(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=("Let me see.",), tool_calls=CALL, finish_reason="tool_calls", usage=(9, 20)))
    fields = {"tools": [WEATHER], "tool_choice": "auto", "parallel_tool_calls": False}
    said = gateway.chat("weather?", **fields).json
    [choice] = said["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    [call] = choice["message"]["tool_calls"]
    assert call == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "北京"}'},
    }
    assert said["usage"]["completion_tokens"] == 20
    assert {name: server.generations[-1].body[name] for name in fields} == fields

    events = gateway.chat("weather?", stream=True, **fields).events
    deltas = [event["choices"][0]["delta"] for event in events]
    assert [piece for delta in deltas for piece in delta.get("tool_calls", ())] == list(CALL)
    assert merged(events) == ("Let me see.", "tool_calls")


def test_a_call_without_text_has_null_content_and_is_accounted(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=(), tool_calls=CALL, finish_reason="tool_calls", usage=None))
    said = gateway.chat("weather?", tools=[WEATHER]).json
    assert said["choices"][0]["message"]["content"] is None
    assert said["usage"]["completion_tokens"] == 3  # pieces, where the server does not say


@pytest.mark.parametrize(("tokens", "reason"), [(8, "length"), (7, "tool_calls")])
def test_a_call_that_the_cap_has_cut_says_length(server: FakeOpenAI, gateway: Server, tokens: int, reason: str) -> None:
    server.script(Scripted(pieces=(), tool_calls=CALL[:2], finish_reason="tool_calls", usage=(9, tokens)))
    [choice] = gateway.chat("weather?", tools=[WEATHER], max_tokens=8).json["choices"]
    assert choice["finish_reason"] == reason
    server.script(Scripted(pieces=(), tool_calls=CALL, finish_reason="tool_calls", usage=(9, 8)))
    [choice] = gateway.chat("weather?", tools=[WEATHER], max_tokens=8).json["choices"]
    assert choice["finish_reason"] == "tool_calls"  # it was whole just in time


def test_arguments_that_loop_are_ended(server: FakeOpenAI, gateway: Server) -> None:
    spin = [{"index": 0, "function": {"arguments": "\\n \\n "}}] * 400
    server.script(Scripted(pieces=(), tool_calls=(CALL[0], *spin), finish_reason="tool_calls", usage=(9, 401)))
    said = gateway.chat("weather?", tools=[WEATHER]).json
    assert said["suffice"]["finish_detail"] == "repetition"
    assert said["choices"][0]["finish_reason"] == "length"  # half a call is none


def test_a_conversation_with_calls_goes_on_as_it_is(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted())
    messages = [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    assert gateway.post("/v1/chat/completions", {"messages": messages}).status == 200
    assert server.generations[-1].body["messages"] == messages


def test_tools_are_counted_with_the_prompt(server: FakeOpenAI, gateway: Server) -> None:
    server.tokenize = 33
    gateway.chat("weather?", tools=[WEATHER])
    counted = [request.body for request in server.requests if request.path == "/tokenize"]
    assert counted[-1]["tools"] == [WEATHER]


def test_a_template_without_tools_refuses_them() -> None:
    with serving(LocalEngine()) as server:
        reply = server.chat("weather?", tools=[WEATHER])
        assert reply.status == 400
        assert "chat template has no tools" in reply.json["error"]["message"]
        assert server.chat("Count from 1 to 3.", tools=[WEATHER], tool_choice="none").status == 200
        called = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
        messages = [{"role": "user", "content": "hi"}, called, {"role": "tool", "content": "4", "tool_call_id": "a"}]
        assert server.post("/v1/chat/completions", {"messages": messages}).status == 400


class Calling(ScriptedEngine):
    """Writes its calls into the text, as a model does."""

    def capacity(self) -> Capacity:
        return replace(super().capacity(), calls_in_text=True)


def test_calls_in_the_text_of_a_local_model_are_taken_out() -> None:
    one, two = (
        f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
        for city in ("北京", "Rom")
    )
    with serving(Calling(f"Let me see.\n{one}\n{two}\n")) as server:
        said = server.chat("weather?", tools=[WEATHER]).json
        [choice] = said["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Let me see.")
        calls = choice["message"]["tool_calls"]
        assert [json.loads(call["function"]["arguments"])["city"] for call in calls] == ["北京", "Rom"]
        assert len({call["id"] for call in calls}) == 2
        events = server.chat("weather?", tools=[WEATHER], stream=True).events
        assert merged(events) == ("Let me see.", "tool_calls")
        plain = server.chat("weather?").json  # who gives no tools gets what the model wrote
        assert plain["choices"][0]["message"]["content"].count("<tool_call>") == 2
        cut = server.chat("weather?", tools=[WEATHER], max_tokens=40).json["choices"][0]
        assert cut["finish_reason"] == "length"
        assert cut["message"]["content"] == f"Let me see.\n{one}"[:40]  # nothing is lost
        assert "tool_calls" not in cut["message"]


# Log-probabilities


@pytest.mark.parametrize("whole", [False, True])
def test_logprobs_of_an_upstream_come_back_in_openais_shape(server: FakeOpenAI, gateway: Server, whole: bool) -> None:
    server.script(Scripted(pieces=("你", "好 ", "hello"), usage=(1, 3), done=True))
    fields: dict[str, Any] = {"logprobs": True, "top_logprobs": 2}
    if whole:
        content = gateway.chat(**fields).json["choices"][0]["logprobs"]["content"]
    else:
        events = gateway.chat(**fields, stream=True).events
        parts = [event["choices"][0]["logprobs"] for event in events if event["choices"][0]["logprobs"]]
        assert len(parts) == 3  # with the piece that they belong to
        content = [entry for part in parts for entry in part["content"]]
    assert [entry["token"] for entry in content] == ["你", "好 ", "hello"]
    assert content[0]["bytes"] == [0xE4, 0xBD, 0xA0]
    assert content[2]["logprob"] == pytest.approx(-0.2)
    assert [[other["token"] for other in entry["top_logprobs"]] for entry in content] == [["other0", "other1"]] * 3
    assert (server.generations[-1].body["logprobs"], server.generations[-1].body["top_logprobs"]) == (True, 2)


def test_logprobs_of_completions_are_columns(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=("one", " two"), usage=(1, 2)))
    said = gateway.post("/v1/completions", {"prompt": "x", "logprobs": 1}).json["choices"][0]["logprobs"]
    assert said == {
        "tokens": ["one", " two"],
        "token_logprobs": [pytest.approx(-1 / 3), -0.25],
        "top_logprobs": [{"other0": -2.0}] * 2,
        "text_offset": [0, 3],
    }
    assert server.generations[-1].body["logprobs"] == 1
    events = gateway.post("/v1/completions", {"prompt": "x", "logprobs": 0, "stream": True}).events
    offsets = [event["choices"][0]["logprobs"]["text_offset"] for event in events if event["choices"][0]["logprobs"]]
    assert offsets == [[0], [3]]


def test_what_a_stop_word_cuts_takes_its_logprobs_along(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=("one ", "S", "T", "OP", " two"), usage=(1, 5)))
    [choice] = gateway.chat(logprobs=True, stop=["STOP"]).json["choices"]
    assert choice["message"]["content"] == "one "
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["one "]
    server.script(Scripted(pieces=("one ", "S", "T", "AR"), usage=(1, 4)))
    [choice] = gateway.chat(logprobs=True, stop=["STOP"]).json["choices"]
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["one ", "S", "T", "AR"]


def test_what_a_loop_cuts_takes_its_logprobs_along(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=("Well, ",) + ("go ", "on ", "and ") * 300, usage=(1, 901)))
    said = gateway.chat(logprobs=True).json
    assert said["suffice"]["finish_detail"] == "repetition"
    choice = said["choices"][0]
    assert "".join(entry["token"] for entry in choice["logprobs"]["content"]) == choice["message"]["content"]


def test_thinking_has_no_logprobs(server: FakeOpenAI, gateway: Server) -> None:
    server.script(Scripted(pieces=("<think>", "hm", "</think>", "\n\n", "yes"), usage=(1, 5)))
    [choice] = gateway.chat(logprobs=True).json["choices"]
    assert choice["message"]["reasoning_content"] == "hm"
    assert [entry["token"] for entry in choice["logprobs"]["content"]] == ["yes"]


def test_a_server_that_cuts_characters_keeps_their_bytes(server: FakeOpenAI, gateway: Server) -> None:
    def event(text: str, token: str, *data: int) -> bytes:
        entry = {"token": token, "logprob": -1, "bytes": list(data), "top_logprobs": []}
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}}
        return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()

    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
    blocks = (event("", "\ufffd", 0xE4), event("你", "\ufffd", 0xBD, 0xA0), event("", "<|im_end|>", 60), end)
    server.script(Scripted(raw=blocks))
    [choice] = gateway.chat(logprobs=True).json["choices"]
    data = [byte for entry in choice["logprobs"]["content"] for byte in entry["bytes"]]
    assert bytes(data).decode() == choice["message"]["content"] == "你"  # and the end token is no part of it


def test_the_local_engine_says_how_likely_its_tokens_are() -> None:
    with serving(LocalEngine()) as server:
        ask = {"temperature": 0, "logprobs": True, "top_logprobs": 3, "max_tokens": 60}
        alone = server.chat("Spell the word hello. 你好", **ask).json["choices"][0]
        content = alone["logprobs"]["content"]
        text = b"".join(bytes(entry["bytes"]) for entry in content).decode()
        assert text == alone["message"]["content"]
        for entry in content:
            tops = [other["logprob"] for other in entry["top_logprobs"]]
            assert tops == sorted(tops, reverse=True)
            assert entry["logprob"] == pytest.approx(tops[0])  # greedy takes the likeliest
            assert sum(map(math.exp, tops)) <= 1 + 1e-6
        penalised = server.chat("Spell the word hello. 你好", **ask | {"repetition_penalty": 3}).json["choices"][0]
        assert penalised["message"]["content"] != alone["message"]["content"]
        first = penalised["logprobs"]["content"][0]
        top = [each["logprob"] for each in content[0]["top_logprobs"]]  # the model's own, before penalties
        assert [each["logprob"] for each in first["top_logprobs"]] == pytest.approx(top, abs=1e-4)
        engine: Any = server.service.models["suffice-tiny"].pool.upstreams[0].engine
        assert not engine._manager.logit_processor.likely  # nothing is left behind
        several = server.post("/v1/completions", {"prompt": ["a", "b"], "logprobs": 1, "max_tokens": 5, "n": 2}).json
        for choice in several["choices"]:
            assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_seeds_make_n_answers_differ_and_repeat() -> None:
    with serving(LocalEngine()) as server:
        ask = {"n": 3, "seed": 11, "temperature": 1.5, "max_tokens": 24}
        texts = [[c["message"]["content"] for c in server.chat("Tell a story.", **ask).json["choices"]] for _ in "ab"]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) == 3


# The rest


def test_infer_is_text_alone(hello: Server) -> None:
    for field in ({"n": 2}, {"tools": [WEATHER]}, {"logprobs": True}):
        reply = hello.post("/infer/short", {"prompt": "hi", **field})
        assert (reply.status, reply.json["error"]["param"]) == (400, next(iter(field)))
    assert hello.post("/infer/short", {"prompt": "hi", "n": 1, "tools": [], "logprobs": False}).status == 200


def test_response_format_goes_through_and_is_refused_locally(
    server: FakeOpenAI, gateway: Server, hello: Server
) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    assert gateway.chat(response_format=schema).status == 200
    assert server.generations[-1].body["response_format"] == schema
    refused = hello.chat(response_format=schema)
    assert (refused.status, refused.json["error"]["param"]) == (400, "response_format")


@pytest.mark.parametrize("text", ["<", "<thi", "a <", "a STO"])
def test_what_is_held_back_at_the_end_is_not_lost(text: str) -> None:
    import asyncio

    answer = asyncio.run(Session(ScriptedEngine(text)).answer(Request(prompt="x", stop_words=("STOP",))))
    assert answer.text == text

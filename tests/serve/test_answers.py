"""Several answers to one request, several prompts, and prompts as tokens, over real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from serving import LONG, Server, serving
from suffice.engines.base import Chunk, GenerationRequest
from suffice.engines.local.engine import LocalEngine
from suffice.errors import EngineError
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.scripted_engine import ScriptedEngine


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine("你好 hello")


@pytest.fixture
def hello(engine: ScriptedEngine) -> Iterator[Server]:
    with serving(engine) as server:
        yield server


def noted_rows(server: Server) -> list[Any]:
    """A list that will have the row of each request that ends from now on."""
    rows: list[Any] = []
    add = server.service.writer.add
    server.service.writer.add = lambda row, observations=(): (rows.append(row), add(row, observations))[1]
    return rows


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
    assert [asked.id for asked in engine.asked] == [f"{request_id}/{i}" for i in range(3)]
    assert [asked.sampling.seed for asked in engine.asked] == [7, 8, 9]
    wait_for(lambda: not hello.service.requests and not hello.service.admission.running)


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
    rows = noted_rows(hello)
    hello.chat("abc", n=4)
    wait_for(lambda: rows)
    [row] = rows
    assert (row["prompt_tokens"], row["answer_tokens"], row["finish"]) == (3, 32, "stop")
    lines = hello.ask("GET", "/metrics").body.decode().splitlines()
    count = next(line for line in lines if line.startswith("suffice_request_answer_tokens_count"))
    assert count.endswith(" 4.0")
    assert any(line.startswith("suffice_prompt_tokens_total") and line.endswith(" 3.0") for line in lines)


def test_completions_take_n_and_lists_of_prompts_in_openais_order(hello: Server, engine: ScriptedEngine) -> None:
    said = hello.post("/v1/completions", {"prompt": ["a", "bcd"], "n": 2, "max_tokens": 2, "seed": 1}).json
    assert [choice["index"] for choice in said["choices"]] == [0, 1, 2, 3]
    assert [asked.prompt.raw for asked in engine.asked] == ["a", "a", "bcd", "bcd"]
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


def test_prompts_of_one_request_share_the_largest_of_their_tiers(hello: Server) -> None:
    budget = hello.post("/v1/budget", {"prompt": ["a", "b"]})
    assert (budget.status, budget.json["error"]["param"]) == (400, "prompt")
    prompts = ["yes or no?", "Write 300 words."]
    tiers = [hello.post("/v1/completions", {"prompt": each}).json["suffice"]["tier"] for each in (*prompts, prompts)]
    assert tiers[0] != tiers[1]
    assert tiers[2] == tiers[1]


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
        wait_for(lambda: not server.service.requests and not server.service.admission.running)


class OneFails(ScriptedEngine):
    """The second answer of a request breaks after a piece; the others would go on for long."""

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        async with aclosing(super().submit(request)) as chunks:
            async for chunk in chunks:
                yield chunk
                if request.id.endswith("/1") and len(self.asked) % 3 == 0:
                    raise EngineError("the cable was pulled")


def test_one_answer_that_fails_ends_the_request() -> None:
    engine = OneFails(LONG, slow=True)
    with serving(engine) as server:
        rows = noted_rows(server)
        refused = server.chat(n=3)
        assert (refused.status, refused.json["error"]["message"]) == (502, "the cable was pulled")
        assert len(engine.cancelled) == 3
        *_, used, error = server.chat(n=3, stream=True).events
        assert error["error"]["message"] == "the cable was pulled"
        assert used["usage"]["completion_tokens"] >= 1
        wait_for(lambda: len(rows) == 2)
        assert [row["finish"] for row in rows] == ["error", "error"]


class Busy(ScriptedEngine):
    """Refuses answers whose id ends in a certain way, and lets the others wait."""

    refused = ""

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        if request.id.endswith(self.refused):
            raise EngineError("too busy", status=429)
        await asyncio.Event().wait()
        yield Chunk()


def test_several_answers_are_begun_again_only_while_the_one_that_failed_has_somewhere_to_go() -> None:
    one, other = Busy(), Busy()
    other.refused = "/0"
    with serving([one, other], request_timeout=5) as server:
        assert server.chat(n=3).status == 503
        assert len(one.asked) + len(other.asked) <= 12
        wait_for(lambda: not server.service.requests and not server.service.admission.running)


def test_upstreams_are_asked_for_each_answer(server: FakeOpenAI, gateway: Server) -> None:
    said = gateway.chat("one two three", n=2, seed=5).json
    assert [choice["message"]["content"] for choice in said["choices"]] == ["one two three"] * 2
    assert said["usage"]["completion_tokens"] == 6
    assert sorted(sent.body["seed"] for sent in server.generations) == [5, 6]
    assert all("n" not in sent.body for sent in server.generations)


def test_token_ids_go_to_the_upstream_as_they_are(server: FakeOpenAI, gateway: Server) -> None:
    said = gateway.post("/v1/completions", {"prompt": [[5, 6, 7], [8]], "max_tokens": 3}).json
    assert sorted(sent.body["prompt"] for sent in server.generations) == [[5, 6, 7], [8]]
    assert [choice["text"] for choice in said["choices"]] == ["5 6 7", "8"]


def test_token_ids_are_read_locally_and_must_be_in_the_vocabulary() -> None:
    with serving(LocalEngine()) as server:
        engine: Any = server.service.pool.upstreams[0].engine
        text = "<|im_start|>user\nCount from 1 to 3.<|im_end|>\n<|im_start|>assistant\n"
        ids = engine.tokenizer(text)["input_ids"]
        by_text = server.post("/v1/completions", {"prompt": text, "temperature": 0}).json
        by_ids = server.post("/v1/completions", {"prompt": ids, "temperature": 0}).json
        assert by_ids["choices"][0]["text"] == by_text["choices"][0]["text"]
        assert by_ids["usage"]["prompt_tokens"] == len(ids)
        refused = server.post("/v1/completions", {"prompt": [10**6]})
        assert (refused.status, "1000000" in refused.json["error"]["message"]) == (400, True)


def test_infer_is_text_alone(hello: Server) -> None:
    for field in ({"n": 2}, {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"logprobs": True}):
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

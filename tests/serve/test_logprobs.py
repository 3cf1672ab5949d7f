"""Log-probabilities of tokens, in front of servers and on the local engine, over real HTTP."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest

from serving import Server, serving
from suffice.engines.local.engine import LocalEngine
from suffice.engines.openai.engine import RemoteEngine
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.fake_openai import Reply as Scripted


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


def test_a_loop_keeps_the_logprobs_of_all_that_was_written(server: FakeOpenAI, gateway: Server) -> None:
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
        engine: Any = server.service.pool.upstreams[0].engine
        assert not engine._streams  # nothing is left behind, recorders of log-probabilities included
        several = server.post("/v1/completions", {"prompt": ["a", "b"], "logprobs": 1, "max_tokens": 5, "n": 2}).json
        for choice in several["choices"]:
            assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


def test_seeds_make_n_answers_differ_and_repeat() -> None:
    with serving(LocalEngine()) as server:
        ask = {"n": 3, "seed": 11, "temperature": 1.5, "max_tokens": 24}
        texts = [[c["message"]["content"] for c in server.chat("Tell a story.", **ask).json["choices"]] for _ in "ab"]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) == 3


@pytest.mark.slow
def test_n_answers_of_a_real_vllm_with_logprobs_streamed_and_not() -> None:
    url = os.environ.get("SUFFICE_TEST_VLLM")
    if url is None:
        pytest.skip("set SUFFICE_TEST_VLLM to the URL of a vLLM that serves the bundled model in float32")
    with serving(RemoteEngine(url), upstreams=(url,)) as gateway:
        ask = {"n": 3, "seed": 3, "temperature": 1.2, "max_tokens": 24, "logprobs": True, "top_logprobs": 2}
        said = gateway.chat("讲一个故事。", **ask).json
        texts = [choice["message"]["content"] for choice in said["choices"]]
        assert len(set(texts)) == 3
        for choice, text in zip(said["choices"], texts, strict=True):
            data = b"".join(bytes(entry["bytes"]) for entry in choice["logprobs"]["content"])
            assert data.decode("utf-8", "ignore") == text.rstrip("\ufffd")
        choices = [event["choices"][0] for event in gateway.chat("讲一个故事。", **ask, stream=True).events]
        streamed = ["".join(c["delta"].get("content") or "" for c in choices if c["index"] == i) for i in range(3)]
        assert streamed == texts  # seeded

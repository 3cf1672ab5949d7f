"""The server's routes over real HTTP: shapes, streams, budgets, refusals."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import LONG, Server, serving
from suffice.engines.local.engine import LocalEngine
from suffice.engines.openai.engine import RemoteEngine
from suffice.prompt import Prompt
from suffice.serve.api.routes import ROUTES
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.fake_openai import Reply as Scripted
from suffice.testing.scripted_engine import ScriptedEngine

USER = [{"role": "user", "content": "say hello"}]


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine("你好 hello")


@pytest.fixture(scope="module")
def hello(engine: ScriptedEngine) -> Iterator[Server]:
    with serving(engine) as server:
        yield server


@pytest.fixture(scope="module")
def endless() -> Iterator[Server]:
    with serving(ScriptedEngine(LONG, context=3000)) as server:
        yield server


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_chat_answer_has_openais_shape_and_the_budget(hello: Server) -> None:
    reply = hello.post("/v1/chat/completions", {"messages": USER, "model": "scripted"})
    assert reply.status == 200
    said = reply.json
    assert said["object"] == "chat.completion"
    assert said["id"] == "chatcmpl-" + reply.headers["x-request-id"]
    [choice] = said["choices"]
    assert choice["message"] == {"role": "assistant", "content": "你好 hello", "refusal": None}
    assert choice["finish_reason"] == "stop"
    assert said["usage"] == {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}
    assert said["suffice"]["finish_detail"] == "end_token"
    assert said["suffice"]["budget"]["reasons"]
    assert reply.headers["x-suffice-tier"] == said["suffice"]["tier"]
    assert reply.headers["x-suffice-max-new-tokens"] == str(said["suffice"]["budget"]["max_new_tokens"])
    assert int(reply.headers["openai-processing-ms"]) >= 0


def test_a_stream_has_openais_chunks_usage_and_done(hello: Server) -> None:
    reply = hello.chat(stream=True, stream_options={"include_usage": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    first, *pieces, last, usage = reply.events
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["suffice"]["budget"]["max_new_tokens"] > 0
    assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "你好 hello"
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 8
    assert {event["id"] for event in reply.events} == {first["id"]}
    assert all(event["usage"] is None for event in [first, *pieces, last])


def test_without_include_usage_there_is_none(hello: Server) -> None:
    assert all("usage" not in event for event in hello.chat(stream=True).events)


def test_completions_go_on_with_the_text(hello: Server, engine: ScriptedEngine) -> None:
    said = hello.post("/v1/completions", {"prompt": "say", "max_tokens": 4}).json
    assert (said["object"], said["choices"][0]["text"]) == ("text_completion", "你好 h")
    assert said["choices"][0]["finish_reason"] == "length"
    assert engine.asked[-1].prompt == Prompt(raw="say")
    events = hello.post("/v1/completions", {"prompt": ["say"], "stream": True}).events
    assert "".join(event["choices"][0]["text"] for event in events) == "你好 hello"


def test_infer_is_flat(hello: Server, engine: ScriptedEngine) -> None:
    said = hello.post("/infer/short", {"prompt": "say", "system": "be kind"}).json
    assert (said["text"], said["finish_reason"], said["suffice"]["tier"]) == ("你好 hello", "stop", "short")
    assert engine.asked[-1].prompt.messages == (
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "say"},
    )
    events = hello.post("/infer/short", {"messages": USER, "stream": True}).events
    assert "".join(event["text"] for event in events) == "你好 hello"
    assert events[-1]["object"] == "suffice.end"
    assert events[-1]["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize(("tier", "cap"), [("short", 128), ("standard", 512), ("long", 1024)])
def test_a_tiers_cap_ends_the_answer_and_says_so(endless: Server, tier: str, cap: int) -> None:
    said = endless.post(f"/infer/{tier}", {"prompt": "go on", "max_new_tokens": 2000}).json
    assert (len(said["text"]), said["finish_reason"]) == (cap, "length")
    assert said["suffice"]["finish_detail"] == "tier"
    assert said["suffice"]["budget"]["clamped_from"] == 2000


def test_the_ceiling_holds_for_the_larger_of_two_numbers(endless: Server) -> None:
    reply = endless.chat(max_tokens=5, max_completion_tokens=1900)
    assert reply.json["usage"]["completion_tokens"] == 1024  # the largest tier that needs no key
    assert reply.headers["x-suffice-clamped-from"] == "1900"
    assert endless.chat(max_tokens=5, max_completion_tokens=7).json["usage"]["completion_tokens"] == 7
    assert endless.chat(max_tokens="auto", max_completion_tokens=7).json["usage"]["completion_tokens"] == 7


def test_auto_takes_the_smallest_tier_that_holds_the_budget(endless: Server) -> None:
    for cap, tier in ((100, "short"), (128, "short"), (129, "standard"), (600, "long"), (9999, "long")):
        said = endless.post("/infer/auto", {"prompt": "go on", "max_new_tokens": cap}).json
        assert (said["suffice"]["tier"], said["usage"]["completion_tokens"]) == (tier, min(cap, 1024))


def test_auto_queues_by_what_is_expected_and_cuts_only_where_the_caller_may_go_no_further(endless: Server) -> None:
    for prompt, tier in (("写9字", "short"), ("go on in 40 words", "standard"), ("写400字", "long")):
        said = endless.post("/infer/auto", {"prompt": prompt}).json
        assert (said["suffice"]["tier"], said["usage"]["completion_tokens"]) == (tier, 1024)
        assert said["suffice"]["finish_detail"] == "tier"


def test_strict_refuses_instead_of_clamping(endless: Server) -> None:
    reply = endless.chat(max_tokens=600, tier="standard", strict=True)
    assert reply.status == 400
    assert reply.json["error"]["code"] == "clamped"
    assert "512" in reply.json["error"]["message"]
    assert endless.chat(max_tokens=500, tier="standard", strict=True).status == 200


def test_stop_words_end_the_answer(hello: Server) -> None:
    said = hello.chat(stop=["he", "zzz"]).json
    assert said["choices"][0]["message"]["content"] == "你好 "
    assert (said["suffice"]["finish_detail"], said["suffice"]["finish_what"]) == ("stop_word", "he")


def test_unlimited_needs_a_key(hello: Server) -> None:
    reply = hello.post("/infer/unlimited", {"prompt": "hi"})
    assert (reply.status, reply.json["error"]["type"]) == (401, "authentication_error")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert hello.chat(tier="unlimited").status == 401
    assert hello.post("/infer/unlimited", {}).status == 401
    wrong = hello.post("/infer/unlimited", {"prompt": "hi"}, Authorization="Bearer wrong")
    assert (wrong.status, wrong.json["error"]["type"]) == (403, "permission_error")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 10**30}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stream": 1}, "stream"),
        ({"tier": "medium"}, "tier"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": "all"}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"stream_options": []}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": 7}]}, "messages[0].tool_call_id"),
    ],
)
def test_a_wrong_field_is_named(hello: Server, fields: dict[str, Any], param: str) -> None:
    reply = hello.post("/v1/chat/completions", {"messages": USER, **fields})
    assert reply.status == 400
    error = reply.json["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")


def test_fields_that_ask_for_nothing_are_taken_and_unknown_ones_reported(hello: Server) -> None:
    said = hello.chat(n=1, tools=[], logprobs=False, response_format={"type": "text"}, user="me", colour="red").json
    assert said["suffice"]["ignored"] == ["colour"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"messages": NaN}', 400),
        (b"\xff\xfe", 400),
        (b'{"a":' * 100_000, 400),
        (b'{"messages": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400),
        (b'{"messages": [{"role": "user", "content": "hi"}], "seed": -9223372036854775809}', 400),
        (b'{"messages": [{"role": "user", "content": "hi"}], "seed": 9223372036854775808}', 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", 400),
        (b" " * ((4 << 20) + 1), 413),
    ],
)
def test_bodies_that_are_none(hello: Server, body: bytes, status: int) -> None:
    reply = hello.post("/v1/chat/completions", body)
    assert reply.status == status
    assert reply.json["error"]["message"]


def test_a_prompt_that_does_not_fit_and_models_and_routes_that_are_not_there(hello: Server) -> None:
    reply = hello.chat("x" * 1500)
    assert (reply.status, reply.json["error"]["code"]) == (400, "context_length_exceeded")
    assert hello.chat(model="gpt-9").json["error"]["code"] == "model_not_found"
    assert hello.ask("GET", "/nowhere").json["error"]["code"] == "not_found"
    wrong = hello.ask("GET", "/v1/chat/completions")
    assert (wrong.status, wrong.headers["allow"], wrong.json["error"]["code"]) == (405, "POST", "method_not_allowed")
    for path in ("/infer", "/infer/", "/infer/short/more", "/health/"):
        assert hello.post(path, {"prompt": "hi"}).status == 404
    assert hello.ask("HEAD", "/health").status == 200


def test_budget_decides_and_generates_nothing(hello: Server, engine: ScriptedEngine) -> None:
    before = len(engine.asked)
    said = hello.post("/v1/budget", {"messages": USER, "max_tokens": 200}).json
    assert (said["tier"], said["budget"]["max_new_tokens"]) == ("standard", 200)
    assert hello.post("/v1/budget", {"prompt": "go on", "max_tokens": 7}).json["tier"] == "short"
    assert len(engine.asked) == before


def test_a_whole_number_may_be_written_with_a_point_and_null_is_nothing(hello: Server) -> None:
    answer = hello.chat("go on", max_tokens=3.0, seed=7.0, stop=None, tier=None)
    assert answer.json["usage"]["completion_tokens"] == 3
    assert hello.chat("go on", max_tokens=3.5).json["error"]["param"] == "max_tokens"


def test_documents_models_and_states(hello: Server) -> None:
    [model] = hello.ask("GET", "/v1/models").json["data"]
    assert (model["id"], model["max_model_len"]) == ("scripted", 1000)
    assert hello.ask("GET", "/v1/models/scripted").json == model
    assert hello.ask("GET", "/v1/models/some%2Fother").json["error"]["code"] == "model_not_found"
    for path in ("/v1/models/", "/v1/models/**"):
        assert hello.ask("GET", path).json["error"]["code"] in ("not_found", "model_not_found")
    assert hello.post("/infer/*", {"prompt": "hi"}).status == 400
    assert hello.ask("GET", "/health").json == {"status": "ok"}
    assert hello.ask("GET", "/ready").json == {"ready": True, "reasons": []}
    paths = hello.ask("GET", "/openapi.json").json["paths"]
    for path, methods in paths.items():
        for method in methods:
            path = path.replace("{model}", "scripted")
            assert hello.ask(method.upper(), path, {} if method == "post" else None).status not in (404, 405, 500)
    assert b"openapi.json" in hello.ask("GET", "/docs").body


def test_router_metrics_and_document_know_the_same_routes(hello: Server) -> None:
    paths = hello.ask("GET", "/openapi.json").json["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    tiers = [*hello.service.tiers, "auto"]
    routed = set()
    for route in ROUTES:
        templates = [route.template.format(tier=tier) for tier in tiers] if "{tier}" in route.path else [route.template]
        if route.summary:
            routed |= {(route.method, template) for template in templates}
        for template in templates:
            path = template.replace("{model}", "a/b")
            hello.ask("DELETE", path)
            assert f'route="{template}",status="405"'.encode() in hello.ask("GET", "/metrics").body
    assert documented == routed
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_metrics_count_requests_by_tier_and_show_the_gauges_that_schedulers_read(endless: Server) -> None:
    def value(name: str) -> float:
        lines = endless.ask("GET", "/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    cut = 'suffice_request_finish_total{detail="tier",reason="length",tier="short"}'
    before = value(cut), value("suffice_answer_tokens_total")
    endless.post("/infer/short", {"prompt": "go on"})
    endless.post("/made/up/path", {})
    assert (value(cut) - before[0], value("suffice_answer_tokens_total") - before[1]) == (1, 128)
    assert value('vllm:num_requests_running{model_name="scripted"}') == 0
    assert value('vllm:num_requests_waiting{model_name="scripted"}') == 0
    assert value("suffice_upstream_up") == 1
    assert value('suffice_http_responses_total{route="other",status="404"}') >= 1
    assert b"made" not in endless.ask("GET", "/metrics").body


def test_the_request_id_is_the_callers_if_it_is_a_decent_one(hello: Server) -> None:
    assert hello.ask("GET", "/health", x_request_id="mine-1").headers["x-request-id"] == "mine-1"
    assert hello.ask("GET", "/health", x_request_id="no such id").headers["x-request-id"] != "no such id"


def test_a_failure_before_the_first_piece_is_a_status_and_after_it_an_event() -> None:
    with serving(ScriptedEngine("abc", fail_after=0)) as server:
        reply = server.chat(stream=True)
        assert (reply.status, reply.json["error"]["type"]) == (502, "server_error")
    with serving(ScriptedEngine("abc", fail_after=2)) as server:
        assert server.chat().status == 502
        *_, used, error = server.chat(stream=True).events
        assert used["usage"]["completion_tokens"] == 2
        assert error["error"]["message"] == "the cable was pulled"


def test_a_loop_is_ended_and_said(tmp_path: Path) -> None:
    tiers = tmp_path / "budget.toml"
    tiers.write_text("[tiers.long]\nmax_new_tokens = 2900\n")
    with serving(ScriptedEngine("go on and on. " * 300, context=3000), budget_file=str(tiers)) as server:
        said = server.post("/infer/long", {"prompt": "hi", "max_new_tokens": 2900}).json
        assert (said["finish_reason"], said["suffice"]["finish_detail"]) == ("length", "repetition")
        assert said["usage"]["completion_tokens"] == len(said["text"]) < 2900
        begin, end = said["suffice"]["repetition"]["copies"]
        assert said["text"][:begin].count("go on and on.") == 1
        *pieces, last = server.post("/infer/long", {"prompt": "hi", "max_new_tokens": 2900, "stream": True}).events
        assert "".join(each["text"] for each in pieces) == said["text"]
        assert (last["finish_reason"], last["suffice"]["finish_detail"]) == ("length", "repetition")
        assert last["suffice"]["repetition"]["copies"] == [begin, end]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("size", [0, 300_000])
def test_a_client_that_goes_away_ends_its_generation(stream: bool, size: int) -> None:
    engine = ScriptedEngine(LONG, context=5000, slow=True)
    with serving(engine) as server:
        import http.client
        import json

        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        body = {"messages": USER, "stream": stream, "user": "x" * size}  # a long body: the server pauses its reading
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        wait_for(lambda: engine.running)
        connection.close()
        wait_for(lambda: engine.cancelled)
        wait_for(lambda: not server.service.requests)
        wait_for(lambda: not server.service.admission.running)


def test_the_openai_client_works_unchanged(hello: Server) -> None:
    from openai import BadRequestError, OpenAI

    client = OpenAI(base_url=f"{hello.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["scripted"]
    answer = client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "你好 hello"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    stream = client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "你好 hello"
    assert chunks[-1].usage is not None
    with pytest.raises(BadRequestError, match="temperature"):
        client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "hi"}], temperature=5)
    assert client.completions.create(model="scripted", prompt="go", max_tokens=2).choices[0].text == "你好"


def test_the_bundled_model_answers() -> None:
    with serving(LocalEngine()) as server:
        said = server.chat("Count from 1 to 5.", temperature=0).json
        assert said["model"] == "suffice-tiny"
        assert said["usage"]["completion_tokens"] > 0
        streamed = server.chat("Count from 1 to 5.", temperature=0, stream=True).events
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed)
        assert text == said["choices"][0]["message"]["content"]
        metrics = server.ask("GET", "/metrics").body.decode()
        for kind in ("allocated", "free", "kv_total"):
            (line,) = [
                each for each in metrics.splitlines() if each.startswith("suffice_memory_bytes") and kind in each
            ]
            assert 'device="cpu"' in line
            assert float(line.split()[-1]) > 0


def test_fields_that_only_servers_know_go_through(server: FakeOpenAI) -> None:
    with serving(RemoteEngine(server.url), upstreams=(server.url,)) as gateway:
        schema = {"type": "json_object"}
        reply = gateway.chat("one two", response_format=schema, min_p=0.1, colour="red", temperature=0.5)
        assert reply.json["choices"][0]["message"]["content"] == "one two"
        sent = server.generations[-1]
        assert {k: sent.body[k] for k in ("response_format", "min_p", "colour", "temperature")} == {
            "response_format": schema,
            "min_p": 0.1,
            "colour": "red",
            "temperature": 0.5,
        }
        headers = {name.lower(): value for name, value in sent.headers.items()}
        assert headers["x-request-id"] == reply.headers["x-request-id"]
        server.script(Scripted.refusal(400, "the schema is wrong"))
        refused = gateway.chat("one two")
        assert (refused.status, refused.json["error"]["code"]) == (400, "upstream_refused")
        assert "the schema is wrong" in refused.json["error"]["message"]


def test_a_failed_upstream_is_replaced_before_the_first_piece_and_half_an_answer_is_not_asked_for_twice() -> None:
    def ask(good: FakeOpenAI, bad: FakeOpenAI) -> None:
        engines = [RemoteEngine(bad.url), RemoteEngine(good.url)]
        with serving(engines, upstreams=(bad.url, good.url)) as gateway:
            bad.script(Scripted(drop_after=0))
            assert [gateway.chat("hi").status for _ in range(4)] == [200] * 4
            assert len(bad.generations) >= 1
            for each in (bad, good):
                each.script(Scripted(pieces=("a", "b", "c"), drop_after=2, piece_delay=0.02))
            before = len(bad.generations) + len(good.generations)
            stream = gateway.chat("hi", stream=True)
            *_, used, error = stream.events
            assert (stream.status, used["usage"]["completion_tokens"]) == (200, 2)
            assert "dropped" in error["error"]["message"]
            assert len(bad.generations) + len(good.generations) == before + 1

    async def main() -> None:
        async with FakeOpenAI() as good, FakeOpenAI() as bad:
            await asyncio.to_thread(ask, good, bad)

    asyncio.run(main())


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "\xed\xa0\x80"}',
        '{"prompt": "\\ud800"}'.encode("utf-16"),
        b'{"prompt": "\\ud800"}',
    ],
)
def test_half_characters_are_refused_in_every_encoding(hello: Server, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", hello.port)
    connection.request("POST", "/v1/completions", body)
    assert connection.getresponse().status == 400
    connection.close()


def test_no_other_name_for_the_cap_reaches_a_server_that_would_believe_it(gateway: Server) -> None:
    refused = gateway.chat("hi", n_predict=100_000)
    assert (refused.status, refused.json["error"]["param"]) == (400, "n_predict")


def test_a_list_of_very_many_prompts_is_refused_before_it_is_read(hello: Server) -> None:
    refused = hello.post("/v1/completions", {"prompt": ["a"] * 3000})
    assert (refused.status, refused.json["error"]["message"]) == (400, "3000 prompts: at most 2048")

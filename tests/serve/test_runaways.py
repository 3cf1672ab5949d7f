"""Loops over real HTTP: what advances arrives whole, what loops is told everywhere, and it can be chosen."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from repetitive_answers import LOOP, SENTENCE, WANTED
from serving import Server, serving
from suffice.cli.main import main
from suffice.engines.openai.engine import RemoteEngine
from suffice.serve.request_log.store import Store
from suffice.testing.fake_openai import FakeOpenAI, Reply
from suffice.testing.scripted_engine import ScriptedEngine

CHAT, COMPLETION, INFER = "/v1/chat/completions", "/v1/completions", "/infer/roomy"
ROUTES = (CHAT, COMPLETION, INFER)
TIERS = """
[tiers.roomy]
max_new_tokens = 9000
[tiers.warning]
max_new_tokens = 9000
on_runaway = "warn"
"""
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "'}}


def scripted(text: str, **more: Any) -> Reply:
    pieces = re.findall(r"\s*\S+|\s+$", text)
    return Reply(pieces=pieces, usage=(9, len(pieces)), **more)


def body_of(route: str, prompt: str = "Where does water go?", **fields: Any) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": prompt}]} if route == CHAT else {"prompt": prompt}
    tier = {} if route == INFER else {"tier": "roomy"}
    return {**asked, **tier, **fields}


def text_of(said: dict[str, Any], index: int = 0) -> str:
    """Of a whole answer or of one event of a stream."""
    if "text" in said:
        return str(said["text"])
    choices = [each for each in said["choices"] if each["index"] == index]
    messages = [each.get("message") or each.get("delta") or each for each in choices]
    return "".join(str(each.get("content") or each.get("text") or "") for each in messages)


def finish_of(said: dict[str, Any]) -> Any:
    return said["finish_reason"] if "finish_reason" in said else said["choices"][0]["finish_reason"]


@pytest.fixture
def budget_file(tmp_path: Path) -> str:
    (tmp_path / "budget.toml").write_text(TIERS)
    return str(tmp_path / "budget.toml")


@pytest.fixture
def gateway(server: FakeOpenAI, budget_file: str) -> Iterator[Server]:
    server.models = ({"id": "fake-model", "max_model_len": 20_000},)
    settings: dict[str, Any] = {"upstreams": (server.url,), "budget_file": budget_file}
    with serving(RemoteEngine(server.url), **settings) as gateway:
        yield gateway


@pytest.fixture
def looping(budget_file: str) -> Iterator[Server]:
    """Suffice whose engine says the same sentence 200 times."""
    with serving(ScriptedEngine(LOOP, context=20_000), budget_file=budget_file, log_prompts=True) as server:
        yield server


@pytest.mark.parametrize("name", WANTED)
def test_what_advances_arrives_whole_and_ended_by_itself(
    name: str, server: FakeOpenAI, gateway: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, text = WANTED[name]
    server.script(scripted(text))
    for route in ROUTES:
        said = gateway.post(route, body_of(route, prompt)).json
        assert (text_of(said), finish_of(said), said["suffice"]["finish_detail"]) == (text, "stop", "end_token")
        events = gateway.post(route, body_of(route, prompt, stream=True)).events
        assert ("".join(map(text_of, events)), finish_of(events[-1])) == (text, "stop")
    with pytest.raises(SystemExit):
        main(["infer", "--upstream", server.url, "--prompt", prompt, "--json", "--max-new-tokens", "9000"])
    told = json.loads(capsys.readouterr().out)
    assert (told["text"], told["finish_reason"], told["finish_by"]) == (text, "stop", "end_token")


@pytest.mark.parametrize("route", ROUTES)
def test_a_sentence_200_times_is_stopped_and_what_is_streamed_is_the_answer(route: str, looping: Server) -> None:
    said = looping.post(route, body_of(route)).json
    *_, last = events = looping.post(route, body_of(route, stream=True)).events
    text = "".join(map(text_of, events))
    assert text == text_of(said) == LOOP[: len(text)]
    assert text.count(SENTENCE) < 10
    for end in (said, last):
        assert (finish_of(end), end["suffice"]["finish_detail"]) == ("length", "repetition")
        assert end["suffice"]["finish_what"].startswith("a loop of ")
        begin, after = end["suffice"]["repetition"]["copies"]
        period = end["suffice"]["repetition"]["period"]
        assert text[begin:after] == text[begin - period : after - period]
        assert text[:begin].count(SENTENCE) == 1


def test_several_answers_each_say_that_they_looped(looping: Server) -> None:
    said = looping.chat(n=2, tier="roomy").json
    *rest, last = looping.chat(n=2, tier="roomy", stream=True).events
    ends = [choice for event in [*rest, last] for choice in event["choices"] if choice["finish_reason"]]
    for choices in (said["choices"], ends):
        assert [each["finish_reason"] for each in choices] == ["length"] * 2
        assert [each["suffice"]["finish_detail"] for each in choices] == ["repetition"] * 2
    assert "".join(text_of(each, 1) for each in rest) == said["choices"][1]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_is_told_through_a_second_suffice_in_the_same_words(
    stream: bool, looping: Server, budget_file: str
) -> None:
    upstream = looping.url
    with serving(RemoteEngine(upstream), upstreams=(upstream,), budget_file=budget_file) as second:
        body = body_of(CHAT, stream=stream)
        here, there = (each.post(CHAT, body) for each in (looping, second))
    here, there = (each.events if stream else [each.json] for each in (here, there))
    assert "".join(map(text_of, there)) == "".join(map(text_of, here))
    names = ("finish_detail", "finish_what", "repetition")
    assert {name: there[-1]["suffice"][name] for name in names} == {name: here[-1]["suffice"][name] for name in names}
    assert finish_of(there[-1]) == "length"


def test_a_second_suffice_does_as_the_first_is_asked(looping: Server, budget_file: str) -> None:
    with serving(RemoteEngine(looping.url), upstreams=(looping.url,), budget_file=budget_file) as second:
        said = second.post(CHAT, body_of(CHAT, on_runaway="off")).json
    assert (finish_of(said), "repetition" in said["suffice"]) == ("length", False)


def test_a_loop_is_counted_in_metrics_rows_and_usage_and_not_as_cut(
    capsys: pytest.CaptureFixture[str], budget_file: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/counted.db"
    settings: dict[str, Any] = {"budget_file": budget_file, "database": url, "log_prompts": True}
    with serving(ScriptedEngine(LOOP, context=20_000), **settings) as server:
        said = server.post(INFER, body_of(INFER)).json
        server.post(INFER, body_of(INFER, on_runaway="warn"))
        metrics = server.ask("GET", "/metrics").body.decode()
    assert 'suffice_request_finish_total{detail="repetition",reason="length",tier="roomy"} 1.0' in metrics
    assert 'suffice_runaways_total{kind="stopped",tier="roomy"} 1.0' in metrics
    assert 'suffice_runaways_total{kind="told",tier="roomy"} 1.0' in metrics
    store = Store(url)
    assert [tuple(row) for row in store.requests(0.0, ("finish", "finish_detail"))] == [
        ("length", "repetition"),
        ("length", "model"),
    ]
    assert next(iter(store.texts()))["answer"] == said["text"]
    store.close()
    with pytest.raises(SystemExit):
        main(["usage", "--by", "tier", "--database", url, "--csv"])
    names, values = (line.split(",") for line in capsys.readouterr().out.splitlines())
    counted = dict(zip(names, values, strict=True))
    assert (counted["truncated_percent"], counted["runaway_percent"]) == ("50.0", "50.0")


def test_lines_that_advance_are_noticed(gateway: Server, server: FakeOpenAI) -> None:
    text = "".join(f"Sensor {n} is on.\n" for n in range(300))
    server.script(scripted(text))
    said = gateway.post(CHAT, body_of(CHAT)).json
    *_, last = gateway.post(CHAT, body_of(CHAT, stream=True)).events
    for end in (said, last):
        assert (finish_of(end), end["suffice"]["finish_detail"]) == ("stop", "end_token")
        assert end["suffice"]["notice"]["lines"] >= 200
        assert text[: end["suffice"]["notice"]["at"]].count(" is on.\n") == end["suffice"]["notice"]["lines"]
    metrics = gateway.ask("GET", "/metrics").body.decode()
    assert 'suffice_runaways_total{kind="advancing",tier="roomy"} 2.0' in metrics


def test_a_call_that_was_begun_and_loops_is_no_call(gateway: Server, server: FakeOpenAI) -> None:
    spin = [{"index": 0, "function": {"arguments": "on and on "}}] * 400
    for reply in (
        Reply(pieces=(), tool_calls=(CALL, *spin), finish_reason="tool_calls", usage=(9, 401)),
        Reply(pieces=(), tool_calls=(CALL,), finish_reason="tool_calls", stop_reason="repetition_detected"),
    ):
        server.script(reply)
        said = gateway.post(CHAT, body_of(CHAT)).json
        assert (finish_of(said), said["suffice"]["finish_detail"]) == ("length", "repetition")
        *_, last = gateway.post(CHAT, body_of(CHAT, stream=True)).events
        assert (finish_of(last), last["suffice"]["finish_detail"]) == ("length", "repetition")


@pytest.mark.parametrize(
    ("tier", "fields", "ended", "said"),
    [
        ("roomy", {}, "repetition", None),
        ("roomy", {"on_runaway": "stop"}, "repetition", ("stop", "request")),
        ("roomy", {"on_runaway": "warn"}, "model", ("warn", "request")),
        ("roomy", {"on_runaway": "off"}, "model", ("off", "request")),
        ("warning", {}, "model", ("warn", "tier")),
        ("warning", {"on_runaway": "stop"}, "repetition", ("stop", "request")),
        ("warning", {"on_runaway": "off"}, "model", ("warn", "tier")),
    ],
)
def test_a_request_chooses_within_what_its_tier_allows(
    looping: Server, tier: str, fields: dict[str, Any], ended: str, said: tuple[str, str] | None
) -> None:
    suffice = looping.chat(tier=tier, **fields).json["suffice"]
    assert suffice["finish_detail"] == ended
    assert (suffice.get("on_runaway"), suffice.get("on_runaway_by")) == (said or (None, None))


def test_what_the_key_says_goes_before_the_tier_and_that_before_the_server(budget_file: str, tmp_path: Path) -> None:
    settings = {"budget_file": budget_file, "database": f"sqlite:///{tmp_path}/keys.db", "on_runaway": "off"}
    capped = {"max_tokens": 1500, "max_length": None}
    keys = {}
    for name, mode in (("lax", "off"), ("firm", "stop"), ("plain", None)):
        flags = ["--on-runaway", mode] if mode else []
        keys[name] = made_key(settings["database"], name, *flags)
    with serving(ScriptedEngine(LOOP, context=20_000), **settings) as server:

        def ended(key: str, tier: str, **fields: Any) -> tuple[str, ...]:
            suffice = server.post(
                CHAT, body_of(CHAT, **capped, **fields) | {"tier": tier}, authorization=f"Bearer {keys[key]}"
            ).json["suffice"]
            return tuple(suffice[name] for name in ("finish_detail", "on_runaway", "on_runaway_by"))

        assert ended("plain", "roomy") == ("caller", "off", "server")
        assert ended("plain", "warning") == ("caller", "warn", "tier")
        assert ended("lax", "warning") == ("caller", "off", "key")
        assert ended("firm", "warning") == ("repetition", "stop", "key")
        assert ended("firm", "warning", on_runaway="off") == ("repetition", "stop", "key")
        assert ended("lax", "roomy", on_runaway="stop") == ("repetition", "stop", "request")
        refused = server.post(
            CHAT, body_of(CHAT, strict=True, on_runaway="off"), authorization=f"Bearer {keys['firm']}"
        )
        assert (refused.status, refused.json["error"]["param"]) == (400, "on_runaway")
        assert "the key allows stop" in refused.json["error"]["message"]


def made_key(database: str, name: str, *flags: str) -> str:
    out = io.StringIO()
    with pytest.raises(SystemExit), redirect_stdout(out):
        main(["keys", "create", name, *flags, "--database", database])
    return out.getvalue().strip()


def test_a_word_that_is_none_is_refused(looping: Server) -> None:
    reply = looping.chat(on_runaway="never")
    assert (reply.status, reply.json["error"]["param"]) == (400, "on_runaway")
    assert reply.json["error"]["message"] == 'on_runaway is "never": it must be stop, warn or off'


@pytest.mark.parametrize(
    ("fields", "mode", "by"),
    [
        ({"ignore_eos": True}, "off", "ignore_eos"),
        ({"ignore_eos": True, "on_runaway": "stop"}, "off", "ignore_eos"),
        ({"min_tokens": 5000, "on_runaway": "stop"}, "stop", "min_tokens"),
    ],
)
def test_who_asks_for_more_than_the_model_says_gets_it(
    fields: dict[str, Any], mode: str, by: str, gateway: Server, server: FakeOpenAI
) -> None:
    server.script(scripted(LOOP))
    said = gateway.post(CHAT, body_of(CHAT, **fields)).json
    assert (text_of(said), finish_of(said)) == (LOOP, "stop")
    assert (said["suffice"]["on_runaway"], said["suffice"]["on_runaway_by"]) == (mode, by)
    assert "on_runaway" not in server.generations[-1].body, "only another Suffice knows the field"

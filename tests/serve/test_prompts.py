"""Texts of prompts and answers: nowhere, unless `log_prompts` is on."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from serving import serving
from suffice.engines.openai.engine import RemoteEngine
from suffice.serve.request_log.store import Store
from suffice.serve.request_log.texts import TextLog
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.fake_openai import Reply as Scripted
from suffice.testing.scripted_engine import ScriptedEngine


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/serve.db"


def test_nothing_is_kept_by_default(database: str, tmp_path: Path) -> None:
    with serving(ScriptedEngine("the answer"), database=database) as server:
        server.chat("a secret")
    assert list(Store(database).texts()) == []
    files = b"".join(path.read_bytes() for path in tmp_path.glob("serve.db*"))
    assert b"secret" not in files
    assert b"the answer" not in files


def test_texts_are_kept_where_that_is_wanted_and_the_server_says_so(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    began = time.time()
    with serving(ScriptedEngine("好的。"), database=database, log_prompts=True, log_prompts_days=2) as server:
        chat = server.chat("用一句话解释")
        server.post("/v1/completions", {"prompt": "go on", "stream": True})
        assert server.chat("hi", temperature=9).status == 400
    assert "log_prompts is on" in caplog.text
    store = Store(database)
    one, two = store.texts(since=began)
    assert one["messages"] == [{"role": "user", "content": "用一句话解释"}]
    assert (one["answer"], one["prompt"], one["model"]) == ("好的。", None, "scripted")
    assert one["request_id"] == chat.headers["x-request-id"]
    assert (two["messages"], two["prompt"], two["answer"]) == (None, "go on", "好的。")
    assert list(store.texts(since=time.time())) == []


def test_token_ids_and_tool_calls_are_kept_too(server: FakeOpenAI, database: str) -> None:
    function = {"name": "f", "arguments": '{"a": 1}'}
    server.script(Scripted(pieces=(), tool_calls=[{"index": 0, "id": "c1", "function": function}]))
    settings = {"upstreams": (server.url,), "database": database, "log_prompts": True}
    with serving(RemoteEngine(server.url), **settings) as gateway:
        gateway.chat(tools=[{"type": "function", "function": {"name": "f"}}])
        server.script(Scripted())
        gateway.post("/v1/completions", {"prompt": [[1, 2, 3], [4]]})
    called, first, second = Store(database).texts()
    assert called["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert [(each["prompt_ids"], each["tool_calls"]) for each in (first, second)] == [([1, 2, 3], None), ([4], None)]


def test_old_texts_are_forgotten(database: str) -> None:
    store = Store(database)
    row = {"request_id": "r", "key_id": None, "model": "m", "messages": None, "prompt": "p", "answer": "a"}
    days = 86400.0
    row |= dict.fromkeys(("thinking", "prompt_ids", "tool_calls"))
    store.add_texts([{**row, "time": time.time() - age * days} for age in (5, 2.1, 1.9, 0)])
    with serving(ScriptedEngine(), database=database, log_prompts=True, log_prompts_days=2):
        pass
    assert len(list(store.texts())) == 2
    assert store.forget_texts(before=time.time()) == 2


def test_a_text_that_cannot_be_stored_keeps_no_other_from_it(database: str, caplog: pytest.LogCaptureFixture) -> None:
    row = dict.fromkeys(("key_id", "prompt", "thinking", "prompt_ids", "tool_calls"))
    row |= {"time": 1e12, "model": "m", "answer": "a"}
    log = TextLog(store := Store(database), days=1)
    said = {"half": "\ud800", "whole": "hi"}
    log.add([{**row, "request_id": name, "messages": [{"content": text}]} for name, text in said.items()])
    log.close()
    assert [each["request_id"] for each in store.texts()] == ["whole"]
    assert "the database refused one of the texts of answers" in caplog.text
    assert "1 texts of answers were lost" in caplog.text

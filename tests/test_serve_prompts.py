"""Texts of prompts and answers: nowhere, unless `log_prompts` is on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from scripted import ScriptedEngine
from serving import serving
from suffice.serve.store import Store


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/serve.db"


def test_nothing_is_kept_by_default(database: str, tmp_path: Path) -> None:
    with serving(ScriptedEngine("the answer"), database=database) as server:
        server.chat("a secret")
    assert list(Store(database).prompts()) == []
    files = b"".join(path.read_bytes() for path in tmp_path.glob("serve.db*"))
    assert b"secret" not in files
    assert b"the answer" not in files


def test_texts_are_kept_where_that_is_wanted_and_the_server_says_so(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.time()
    with serving(ScriptedEngine("好的。"), database=database, log_prompts=True, log_prompts_days=2) as server:
        chat = server.chat("用一句话解释")
        server.post("/v1/completions", {"prompt": "go on", "stream": True})
        assert server.chat("hi", temperature=9).status == 400
    assert "log_prompts is on" in capsys.readouterr().err
    store = Store(database)
    one, two = store.prompts(since=began)
    assert one["messages"] == [{"role": "user", "content": "用一句话解释"}]
    assert (one["answer"], one["prompt"], one["model"]) == ("好的。", None, "scripted")
    assert one["request_id"] == chat.headers["x-request-id"]
    assert (two["messages"], two["prompt"], two["answer"]) == (None, "go on", "好的。")
    assert list(store.prompts(since=time.time())) == []


def test_old_texts_are_forgotten(database: str) -> None:
    store = Store(database)
    row = {"request_id": "r", "key_id": None, "model": "m", "messages": None, "prompt": "p", "answer": "a"}
    days = 86400.0
    store.add_prompts([{**row, "time": time.time() - age * days, "thinking": None} for age in (5, 2.1, 1.9, 0)])
    with serving(ScriptedEngine(), database=database, log_prompts=True, log_prompts_days=2):
        pass
    assert len(list(store.prompts())) == 2
    assert store.forget_prompts(before=time.time()) == 2

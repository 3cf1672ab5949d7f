"""The access log: one line of JSON for each request, with its id and no word of what was said."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from serving import serving
from suffice.testing.scripted_engine import ScriptedEngine


def test_each_request_is_one_line_with_its_id_and_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    with serving(ScriptedEngine("x" * 200), access_log=True) as server:
        server.post("/infer/short", {"prompt": "a secret", "stop": "hidden"}, x_request_id="mine-1")
        server.chat("a secret", max_tokens="a secret")
        server.ask("GET", "/nowhere?q=secret")
    said = capfd.readouterr().out
    answered, refused, lost = [json.loads(line) for line in said.splitlines()]
    assert "secret" not in said
    assert "hidden" not in said
    times = [datetime.fromisoformat(line["time"]) for line in (answered, refused, lost)]
    assert times == sorted(times)
    expected = {
        "id": "mine-1",
        "method": "POST",
        "path": "/infer/short",
        "status": 200,
        "key": None,
        "model": "scripted",
        "tier": "short",
        "prompt_tokens": 8,
        "answer_tokens": 128,
        "max_new_tokens": 128,
        "finish": "length",
        "finish_detail": "tier",
        "upstream": "scripted",
    }
    assert {name: answered.get(name) for name in expected} == expected
    assert answered["seconds"] >= answered["waited"] >= 0
    assert (refused["status"], refused["error"]) == (400, "invalid_value")
    assert (lost["status"], lost["error"], lost["path"]) == (404, "not_found", "/nowhere")

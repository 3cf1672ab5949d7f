"""OpenAI's batch files, in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import ChatCompletion
from openai.types.completion import Completion

from infer_command import rows_of, run
from suffice.testing.fake_openai import FakeOpenAI, Reply


def asked(number: int, url: str = "/v1/chat/completions", **body: Any) -> dict[str, Any]:
    said = {"prompt": "once upon"} if url == "/v1/completions" else {"messages": [{"role": "user", "content": "a b c"}]}
    return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": {"model": "m", **said, **body}}


def answered(
    server: FakeOpenAI, folder: Path, *rows: Any, flags: tuple[str, ...] = (), status: int = 0
) -> list[dict[str, Any]]:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    call = ("--upstream", server.url, "--dataset", str(source), "--output", str(target), "--overwrite", *flags)
    assert run(*call, "--concurrency", "1", "--no-sort") == status
    return rows_of(target)


def test_a_batch_file_gives_one(server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat, text = answered(server, tmp_path, asked(1, max_tokens=2), asked(2, "/v1/completions"))
    assert (chat["custom_id"], chat["error"], chat["response"]["status_code"]) == ("request-1", None, 200)
    assert {"id", "custom_id", "response", "error"} <= chat.keys()
    body = ChatCompletion.model_validate(chat["response"]["body"], strict=True)
    assert (body.choices[0].message.content, body.choices[0].finish_reason, body.model) == (
        "a b",
        "length",
        "fake-model",
    )
    assert body.usage is not None
    assert (body.usage.prompt_tokens, body.usage.completion_tokens) == (3, 2)
    assert Completion.model_validate(text["response"]["body"]).choices[0].text == "once upon"
    assert [each.path for each in server.generations] == ["/v1/chat/completions", "/v1/completions"]
    assert chat["suffice"] == {"dataset": str(tmp_path / "in.jsonl"), "line": 1}
    assert chat["response"]["body"]["suffice"]["budget"]["limited_by"] == "caller"
    err = capsys.readouterr().err
    assert "in 2 rows: model 'm' is asked for, and fake-model answers" in err
    assert "openai batch 2" in err


def test_fields_of_a_body_are_honoured_and_flags_fill_in(server: FakeOpenAI, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    rows = [
        asked(1, temperature=0.25, top_p=0.5, seed=7, max_tokens=11, stop=["c"], frequency_penalty=0.5),
        asked(2, max_completion_tokens=12),
        asked(3, tools=[tool]),
        asked(4, logprobs=True, top_logprobs=1),
    ]
    flags = ("--temperature", "0.9", "--max-new-tokens", "50", "--system", "be brief", "--stop-words", "zzz")
    results = answered(server, tmp_path, *rows, flags=flags)
    first, second, third, _ = (each.body for each in server.generations)
    assert [first[name] for name in ("temperature", "top_p", "seed", "max_tokens")] == [0.25, 0.5, 7, 11]
    assert first["frequency_penalty"] == 0.5
    assert first["messages"][0] == {"role": "system", "content": "be brief"}
    assert results[0]["response"]["body"]["choices"][0]["message"]["content"] == "a b "
    assert (second["temperature"], second["max_tokens"]) == (0.9, 12)
    assert (third["max_tokens"], third["tools"]) == (50, [tool])
    choice = results[2]["response"]["body"]["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"said": "a b c"}'}
    assert len(results[3]["response"]["body"]["choices"][0]["logprobs"]["content"]) == 3


def test_what_cannot_be_honoured_is_refused_by_name(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    rows = [
        asked(1, n=3),
        asked(2, "/v1/embeddings"),
        asked(3, temperature="hot"),
        asked(4, messages=[{"role": "user", "content": [image]}]),
        {"custom_id": "request-5", "body": {"model": "m"}},
        asked(6, "/v1/completions", prompt=[1, 2]),
        asked(7),
    ]
    results = answered(server, tmp_path, *rows, status=1)
    assert [row["custom_id"] for row in results] == [f"request-{i}" for i in range(1, 8)]
    told = [row["error"]["message"] for row in results[:6]]
    for words, message in zip(
        (
            "n is 3",
            "/v1/embeddings is not answered",
            "temperature is",
            "image_url",
            "body has model",
            "prompt of body is",
        ),
        told,
        strict=True,
    ):
        assert words in message.replace('"', ""), message
    assert {row["response"]["status_code"] for row in results[:6]} == {400}
    assert results[2]["response"]["body"]["error"]["param"] == "temperature"
    assert results[6]["error"] is None
    assert "line 2: " in capsys.readouterr().err


def test_what_is_not_as_asked_is_counted(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = answered(server, tmp_path, asked(1), asked(1), asked(2, model="fake-model"))
    assert [row["custom_id"] for row in results] == ["request-1", "request-1", "request-2"]
    err = capsys.readouterr().err
    assert "in 1 row: custom_id is there more than once" in err
    assert "in 2 rows: model 'm' is asked for, and fake-model answers" in err


def test_what_the_flags_say_of_loops_and_systems_reaches_the_rows_that_can_have_it(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script(Reply(pieces=["It runs down to the sea and comes back again. "] * 60))
    rows = asked(1, on_runaway="off"), asked(2), asked(3, "/v1/completions", on_runaway="off"), asked(4, on_runaway="?")
    results = answered(server, tmp_path, *rows, flags=("--on-runaway", "stop", "--system", "be brief"), status=1)
    endings = [row["response"]["body"].get("suffice", {}).get("finish_detail") for row in results]
    assert endings == ["end_token", "repetition", "end_token", None]
    assert [row["error"] is None for row in results] == [True, True, True, False]
    assert results[1]["response"]["body"]["choices"][0]["finish_reason"] == "length"
    err = capsys.readouterr().err
    assert "loops: 1 (33.3 %)" in err
    assert "in 1 row: --system is not used" in err


def test_an_answer_that_breaks_off_keeps_what_was_written(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Reply(pieces=("so far", " and more"), drop_after=1))
    (row,) = answered(server, tmp_path, asked(1), status=1)
    assert (row["error"]["code"], row["response"]["status_code"]) == ("engine_error", 502)
    assert row["suffice"]["text"] == "so far"


def test_the_format_can_be_chosen_and_is_kept_on_resume(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own,) = answered(server, tmp_path, asked(1), flags=("--output-format", "suffice"))
    assert (own["text"], own["row"]["custom_id"]) == ("a b c", "request-1")
    results = answered(server, tmp_path, {"query": "x y", "id": 7}, {"query": "z"}, flags=("--output-format", "openai"))
    assert [row["custom_id"] for row in results] == [7, "line-2"]
    assert results[0]["response"]["body"]["choices"][0]["message"]["content"] == "x y"
    call = ("--upstream", server.url, "--dataset", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"))
    assert run(*call, "--resume") == 2
    assert "lines of another format" in capsys.readouterr().err
    assert run(*call, "--resume", "--output-format", "openai") == 0
    assert "2 were there already" in capsys.readouterr().err


def test_the_bundled_model_answers_a_batch_file(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"messages": [{"role": "user", "content": "Count from 1 to 5."}], "max_tokens": 64, "temperature": 0}
    penalty = {
        "custom_id": "b",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body | {"presence_penalty": 1},
    }
    source.write_text(json.dumps({"custom_id": "a", "body": body, "user": "me"}) + "\n" + json.dumps(penalty) + "\n")
    assert run("--dataset", str(source), "--output", str(target)) == 1
    good, refused = rows_of(target)
    assert good["response"]["body"]["choices"][0]["message"]["content"] == "1, 2, 3, 4, 5"
    assert good["response"]["body"]["choices"][0]["finish_reason"] == "stop"
    assert "presence_penalty" in refused["error"]["message"]

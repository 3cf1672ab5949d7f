"""`suffice infer` as a whole, in front of a real server on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from infer_command import dataset, rows_of, run
from suffice.engines import ENGINES
from suffice.testing.fake_openai import FakeOpenAI, Reply

INFER = [sys.executable, "-m", "suffice.cli.main", "infer"]


def test_one_prompt_goes_to_standard_output_and_the_story_to_standard_error(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script(Reply(pieces=("恰到", "好处"), usage=(5, 2)))
    assert run("--upstream", server.url, "--prompt", "用一句话说", "--temperature", "0", "--max_new_tokens", "64") == 0
    out, err = capsys.readouterr()
    assert out == "恰到好处\n"
    assert "2 tokens" in err
    assert "ended by itself" in err
    assert "budget 64" in err
    assert server.generations[0].body["temperature"] == 0
    assert server.generations[0].body["max_tokens"] == 64


def test_json_has_everything_about_the_answer(server: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--upstream", server.url, "--prompt", "a b c", "--json", "--max-new-tokens", "2") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["finish_reason"], answer["finish_by"]) == ("a b", "length", "caller")
    assert (answer["prompt_tokens"], answer["answer_tokens"]) == (3, 2)
    assert answer["budget"]["max_new_tokens"] == 2
    assert answer["budget"]["reasons"]


def test_stop_words_pasted_with_a_comma(server: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    server.script(Reply(pieces=("42</ans", "wer> and so on")))
    assert run("--upstream", server.url, "--prompt", "x", "--stop_words", "</answer>,", "<|im_end|>") == 0
    out, err = capsys.readouterr()
    assert out == "42\n"
    assert "comma" in err
    assert "</answer>" in err


def test_a_failure_is_told_after_what_arrived(server: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    server.script(Reply(pieces=("so far", " so good", " more"), drop_after=2))
    assert run("--upstream", server.url, "--prompt", "x") == 1
    out, err = capsys.readouterr()
    assert out == "so far so good\n"
    assert "FAILED" in err


def test_a_dataset_is_answered_row_by_row(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    dataset(source, [f"row {i} x y" for i in range(40)])
    with source.open("a") as file:
        file.write('{"foo": 1}\n{"query": "two words", "id": 7, "response": "gold"}\n')
    assert (
        run("--upstream", server.url, "--dataset", str(source), "--output", str(target), "--max-new-tokens", "3") == 1
    )
    rows = rows_of(target)
    assert [row["index"] for row in rows] == list(range(42))
    assert rows[0]["text"] == "row 0 x"
    assert rows[0]["finish_reason"] == "length"
    assert rows[0]["answer_tokens"] == 3
    assert rows[0]["budget"]["limited_by"] == "caller"
    assert "line 41" in rows[40]["error"]
    assert "foo" in rows[40]["error"]
    assert rows[41]["row"]["id"] == 7
    assert rows[41]["finish_reason"] == "stop"
    err = capsys.readouterr().err
    assert "41 answered, 1 failed" in err
    assert "97.6 %" in err


def test_an_output_file_is_never_overwritten_silently(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [
        "--upstream",
        server.url,
        "--dataset",
        dataset(tmp_path / "in.jsonl", ["a"]),
        "--output",
        str(tmp_path / "o"),
    ]
    assert run(*call) == 0
    assert run(*call) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(*call, "--resume") == 0
    assert len(server.generations) == 1
    assert run(*call, "--overwrite") == 0
    assert len(server.generations) == 2


def test_failed_rows_are_recorded_and_tried_again_on_resume(server: FakeOpenAI, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    call = ["--upstream", server.url, "--dataset", dataset(tmp_path / "in.jsonl", ["a", "b", "c"])]
    call += ["--output", str(target), "--concurrency", "1", "--no-sort"]
    server.script(Reply(), Reply.refusal(500, "out of luck"), Reply())
    assert run(*call) == 1
    assert "out of luck" in rows_of(target)[1]["error"]
    server.script(Reply(pieces=("better",)))
    assert run(*call, "--resume") == 0
    assert [row["text"] for row in rows_of(target)] == ["Hello, world", "better", "Hello, world"]


def test_a_dead_server_ends_the_run_and_not_every_row(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = dataset(tmp_path / "in.jsonl", ["a"] * 500)
    server.script(Reply.refusal(500, "gone fishing"))
    call = ["--upstream", server.url, "--dataset", source, "--output", str(tmp_path / "o"), "--concurrency", "4"]
    assert run(*call) == 2
    assert "gone fishing" in capsys.readouterr().err
    assert len(server.generations) < 100


def test_500_rows_killed_and_resumed_are_each_there_once(server: FakeOpenAI, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    source = dataset(tmp_path / "in.jsonl", [f"question {i}" for i in range(500)])
    call = [*INFER, "--upstream", server.url, "--dataset", source, "--output", str(target), "--concurrency", "8"]
    process = subprocess.Popen(call, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=os.environ)
    while not target.exists() or target.read_bytes().count(b"\n") < 200:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = {row["index"] for row in rows_of(target) if "text" in row}
    assert 200 <= len(there) < 500
    before = len(server.generations)
    assert subprocess.run([*call, "--resume"], stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL).returncode == 0
    rows = rows_of(target)
    assert Counter(row["index"] for row in rows) == Counter(range(500))
    assert all(row["text"] == f"question {row['index']}" for row in rows)
    assert len(server.generations) - before == 500 - len(there)


def test_the_chat_remembers_and_continues(server: FakeOpenAI) -> None:
    chat = f"""import sys
sys.stdin.isatty = lambda: True
from suffice.cli.main import main
from suffice.engines import ENGINES
main(["infer", "--upstream", {server.url!r}, "--max-new-tokens", "2"])
"""
    typed = "one two three\ny\nn\n/budget\n/system be brief\n/budget 50\nline one \\\nline two\n/nonsense\n/exit\n"
    done = subprocess.run([sys.executable, "-c", chat], input=typed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = [request.body for request in server.generations]
    assert [m["role"] for m in asked[0]["messages"]] == ["user"]
    assert [m["role"] for m in asked[1]["messages"]] == ["user", "assistant"]
    assert asked[1]["continue_final_message"] is True
    assert asked[-1]["messages"][0] == {"role": "system", "content": "be brief"}
    assert asked[-1]["messages"][-1]["content"] == "line one \nline two"
    assert asked[-1]["max_tokens"] == 50
    assert "CUT" in done.stderr
    assert "no command /nonsense" in done.stderr


@pytest.mark.parametrize(
    ("flags", "tokens", "temperature", "top_p"),
    [
        ("--preset short", 256, 0.7, None),
        ("--preset medium", 768, 0.8, 0.9),
        ("--preset long", 2048, None, None),
        ("--preset standard", 768, 0.8, 0.9),  # what medium was called
        ("--preset short --temperature 0 --top_p 0.5", 256, 0, 0.5),
        ("--preset short --max_new_tokens 1000", 1000, 0.7, None),
        ("--preset short --max_new_tokens auto", 2048, 0.7, None),
        ("--preset short --tier standard", 512, 0.7, None),
        ("--preset long --max_length 100", 89, None, None),
    ],
)
def test_a_preset_sets_limits_and_sampling_and_flags_win(
    server: FakeOpenAI, flags: str, tokens: int, temperature: float | None, top_p: float | None
) -> None:
    assert run("--upstream", server.url, "--prompt", "hm", *flags.split()) == 0
    body = server.generations[0].body
    assert (body["max_tokens"], body.get("temperature"), body.get("top_p")) == (tokens, temperature, top_p)


def test_the_long_preset_leaves_room_for_the_prompt(server: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--upstream", server.url, "--prompt", "word " * 3000, "--preset", "long", "--json") == 0
    budget = json.loads(capsys.readouterr().out)["budget"]
    assert (budget["limited_by"], budget["clamped_from"]) == ("context", 2048)
    assert budget["max_new_tokens"] + budget["prompt_tokens"] == 4096


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--preset", "middle"), "there are: short, medium, long"),
        (("--first_reservation", "0"), "--first-reservation is '0'"),
        (("--first_reservation", "9", "--on_length", "stop"), "a prediction never cuts an answer"),
        (("--tokenizer", "nowhere/at/all"), "no model folder"),
    ],
)
def test_flags_that_make_no_sense_are_refused_in_words(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], words: str
) -> None:
    assert run("--upstream", server.url, "--prompt", "hm", *flags) != 0
    assert words in capsys.readouterr().err


def test_lines_that_advance_are_counted_and_kept(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = [f"Sensor {n} is on.\n" for n in range(300)]
    server.script(Reply(pieces=lines))
    rows = dataset(tmp_path / "in.jsonl", ["Which sensors are there?"])
    assert run("--upstream", server.url, "--dataset", rows, "--output", str(tmp_path / "out.jsonl")) == 0
    err = capsys.readouterr().err
    assert "loops: 0 (0.0 %)" in err
    assert "not stopped for that: 1" in err
    [row] = rows_of(tmp_path / "out.jsonl")
    assert (row["text"], row["finish_reason"]) == ("".join(lines), "stop")
    assert row["notice"]["lines"] >= 200


def test_a_loop_is_stopped_and_said(server: FakeOpenAI, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    server.script(Reply(pieces=("Water goes round. ", *["It runs down to the sea and comes back again. "] * 60)))
    assert run("--upstream", server.url, "--prompt", "Where does water go?", "--max_new_tokens", "2000") == 0
    out, err = capsys.readouterr()
    assert "STOPPED in a loop" in err
    assert "characters are copies" in err
    rows = dataset(tmp_path / "in.jsonl", ["Where does water go?", "And rain?"])
    assert run("--upstream", server.url, "--dataset", rows, "--output", str(tmp_path / "out.jsonl")) == 0
    err = capsys.readouterr().err
    assert "loops: 2 (100.0 %)" in err
    assert "cut by a limit: 0.0 %" in err
    for row in rows_of(tmp_path / "out.jsonl"):
        assert (row["finish_reason"], row["finish_by"]) == ("length", "repetition")
        assert row["text"][: row["repetition"]["copies"][0]].count("back again") in (1, 2)
        assert out.startswith(row["text"])
    assert out.count("back again") < 60


def test_thinking_is_not_in_the_text(server: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    server.script(Reply(pieces=("<think>", "hm", "</think>", "\n\n", "42")))
    assert run("--upstream", server.url, "--prompt", "6*7?", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["thinking"]) == ("42", "hm")


def test_an_engine_of_another_kind_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(ENGINES, "scripted", "suffice.testing.scripted_engine:ScriptedEngine")
    assert run("--engine", "scripted", "--prompt", "hi") == 0
    assert capsys.readouterr().out == "hello\n"
    assert run("--engine", "scripted", "--prompt", "hi", "--dtype", "float16") == 2
    assert "the engine scripted does not have: dtype" in capsys.readouterr().err

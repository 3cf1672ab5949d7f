"""`suffice infer --dataset` as a whole: what it says of rows, being stopped, where results go."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infer_command import dataset, rows_of, run
from suffice.cli.infer.row_failures import RowFailures
from suffice.data import UnusableRow
from suffice.testing.fake_openai import FakeOpenAI, Reply

INFER = [sys.executable, "-m", "suffice.cli.main", "infer"]


def test_rows_that_cannot_be_used_are_said_and_counted(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, other = tmp_path / "in.jsonl", tmp_path / "other.csv"
    source.write_text('{"query": "fine"}\n' + '{"query": 1}\n{"query": 22}\n' * 4 + '{"query": ""}\n{"a\x1b[2J": 1}\n')
    other.write_text("query\ngood\n  \n")
    out = tmp_path / "out.jsonl"
    assert run("--upstream", server.url, "--dataset", str(source), str(other), "--output", str(out)) == 1
    err = capsys.readouterr().err
    assert f'{source}, line 2: column "query" is a number (1), expected text\n' in err
    assert err.count("is a number (") == 3
    assert "column … is a number …, expected text\n" in err
    assert f"{other}, line 3: the prompt is empty" in err
    assert "not answered: 11 rows" in err
    assert "       8 column" in err
    assert "\x1b[2J" not in err
    rows = rows_of(out)
    assert [row["line"] for row in rows] == [*range(1, 12), 2, 3]
    assert {row["dataset"] for row in rows[:11]} == {str(source)}
    assert {row["dataset"] for row in rows[11:]} == {str(other)}
    assert sum("error" in row for row in rows) == 11, "each of them is in the file"


def test_a_sample_keeps_the_lines_of_the_file(server: FakeOpenAI, tmp_path: Path) -> None:
    source = dataset(tmp_path / "in.jsonl", [f"row {i}" for i in range(1, 40)])
    assert run("--upstream", server.url, "--dataset", f"{source}#5", "--output", str(tmp_path / "out.jsonl")) == 0
    rows = rows_of(tmp_path / "out.jsonl")
    assert len(rows) == 5
    assert [row["text"] for row in rows] == [f"row {row['line']}" for row in rows]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("not valid JSON: Expecting value at column 3, near 'x'", "not valid JSON"),
        ("the prompt has 2,000 tokens and max_length is 9: shorten it", "the prompt has … tokens and max_length is …"),
        ("127.0.0.1:80: HTTP 500: out of luck", "127.0.0.1:80: HTTP 500"),
        ("not UTF-8 (byte 0xc4 at position 1), it looks like GBK: convert it", "not UTF-8 …, it looks like GBK"),
        ('turn 3 of messages has the unknown role "x"', "turn … of messages has the unknown role …"),
    ],
)
def test_reasons_of_one_kind_are_counted_together(reason: str, kind: str) -> None:
    failures = RowFailures(several=False)
    failures.add(UnusableRow(0, 1, reason), reason)
    assert failures.describe()[1].split(maxsplit=1) == ["1", kind]


def test_results_have_a_place_of_their_own_and_are_found_again(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = ["--upstream", server.url, "--dataset", dataset(tmp_path / "my rows.jsonl", ["a", "b"])]
    assert run(*call, "--resume") == 0, "there is nothing to continue, which is said"
    err = capsys.readouterr().err
    assert "no answers to this dataset" in err
    (first,) = (tmp_path / "output").glob("infer-my-rows-*.jsonl")
    assert err.count(f"results: {first.relative_to(tmp_path)}") == 2
    assert run(*call) == 0
    assert len(list((tmp_path / "output").glob("*.jsonl"))) == 2, "each run has its own"
    assert run(*call, "--resume") == 0
    assert "2 were there already" in capsys.readouterr().err
    assert run(*call, "--resume", "--temperature", "0.5") == 2
    assert "made with other settings: temperature is 0.5 (was None)" in capsys.readouterr().err
    assert run(*call, "--overwrite") == 2
    assert "--overwrite needs --output" in capsys.readouterr().err
    assert run("--upstream", "http://127.0.0.1:9", *call[2:]) == 2
    assert "stopped" not in capsys.readouterr().err
    assert len(list((tmp_path / "output").iterdir())) == 4, "a run that has not begun leaves nothing behind"


def test_a_busy_server_is_waited_for_and_it_is_said(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = Reply(body={"error": {"message": "slow down"}}, status=429, headers={"retry-after-ms": "30"})
    server.script(*[busy] * 20, Reply())
    call = ["--upstream", server.url, "--dataset", dataset(tmp_path / "in.jsonl", ["a"] * 30)]
    assert run(*call, "--output", str(tmp_path / "out.jsonl"), "--concurrency", "10") == 0
    err = capsys.readouterr().err
    assert "30 answered, 0 failed" in err
    assert "after 20 refusals" in err
    server.script(busy, Reply())
    assert run("--upstream", server.url, "--prompt", "hi") == 0
    assert capsys.readouterr().err.count("the server is busy") == 1
    server.script(busy, Reply())
    assert run("--upstream", server.url, "--prompt", "hi", "--max-wait", "0") == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_how_far_it_came_and_how_to_continue(server: FakeOpenAI, tmp_path: Path, how: int) -> None:
    source = dataset(tmp_path / "in.jsonl", [f"question {i}" for i in range(80)])
    server.script(Reply(pieces=("a", "b"), piece_delay=0.02))
    process = started(server, tmp_path, source)
    output = wait_for_rows(process, tmp_path, 10)
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    there = [row for row in rows_of(output) if "text" in row]
    assert f"stopped: {len(there)} of 80 answered; continue with\n" in err
    assert "Traceback" not in err
    server.script(Reply(pieces=("rest",)))
    command = shlex.split(err.splitlines()[-1])
    assert (command[:2], command[-1]) == (["suffice", "infer"], "--resume")
    done = subprocess.run([*INFER, *command[2:]], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row["index"] for row in rows_of(output)] == list(range(80))
    assert sum(row["text"] == "ab" for row in rows_of(output)) == len(there)


def test_a_second_signal_leaves_at_once_and_does_no_damage(server: FakeOpenAI, tmp_path: Path) -> None:
    """The first one is held up by an engine that does not close; what was written can be continued."""
    source = dataset(tmp_path / "in.jsonl", [f"question {i}" for i in range(80)])
    server.script(*[Reply(pieces=("a",))] * 12, Reply(hang_after=0))
    slow = (
        "import asyncio; from suffice.engines.openai.engine import RemoteEngine\n"
        "async def close(self, *error): await asyncio.sleep(1000)\n"
        "RemoteEngine.__aexit__ = close\n"
        "from suffice.cli.main import main; main()"
    )
    process = started(server, tmp_path, source, [sys.executable, "-c", slow, "infer"])
    output = wait_for_rows(process, tmp_path, 12)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "once more" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    process.stderr.close()
    server.script(Reply(pieces=("rest",)))
    assert run("--upstream", server.url, "--dataset", source, "--output", str(output), "--resume") == 0
    assert [row["index"] for row in rows_of(output)] == list(range(80))


def started(server: FakeOpenAI, folder: Path, source: str, command: list[str] | None = None) -> subprocess.Popen[str]:
    call = [*(command or INFER), "--upstream", server.url, "--dataset", source, "--concurrency", "4"]
    return subprocess.Popen(
        call, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=folder, env=environment()
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def wait_for_rows(process: subprocess.Popen[str], folder: Path, rows: int) -> Path:
    while True:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        found = list(folder.glob("output/infer-*.jsonl"))
        if found and found[0].read_bytes().count(b"\n") >= rows:
            return found[0]
        time.sleep(0.01)

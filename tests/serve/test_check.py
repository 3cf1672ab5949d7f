"""`suffice serve --check`, and settings that are read again while the server runs."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from suffice.cli.main import main
from suffice.errors import UsageError
from suffice.serve.config import load_serve_settings
from suffice.serve.request_log.store import Store
from suffice.testing.fake_openai import FakeOpenAI


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit status and the output of `suffice serve --check`."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["serve", "--check", "--port", "0", *arguments])
    output = capsys.readouterr()
    return int(exit_.value.code or 0), output.out + output.err


def test_every_setting_is_shown_with_where_it_comes_from(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(f'max_waiting = 3\nqueue_timeout = 5\nupstreams = ["{server.url}"]\n')
    monkeypatch.setenv("SUFFICE_SERVE_QUEUE_TIMEOUT", "7")
    monkeypatch.setenv("SUFFICE_SERVE_DATABASE", f"sqlite:///{tmp_path}/serve.db")
    code, said = check(capsys, "--config", str(path), "--max-running", "9")
    assert code == 0, said
    origins = {line.split(" ")[0]: line.split("# ")[-1].strip() for line in said.splitlines() if " = " in line}
    assert origins["max_waiting"] == str(path)
    assert origins["queue_timeout"] == "SUFFICE_SERVE_QUEUE_TIMEOUT"
    assert (origins["max_running"], origins["port"], origins["drain_timeout"]) == ("--max-running", "--port", "default")
    settings = tomllib.loads(said)  # what is shown can be used as a file
    assert (settings["max_waiting"], settings["queue_timeout"], settings["max_running"]) == (3, 7, 9)
    assert f"# ok      upstream {server.url}: fake-model, context 4096" in said
    assert "# ok      tiers: short, standard, long, unlimited" in said
    assert "made at start; no key is configured, so only this machine is served" in said
    assert not (tmp_path / "serve.db").exists()


def test_a_check_changes_no_database_and_says_what_a_start_would(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "serve.db"
    arguments = ["--upstream", server.url, "--database", f"sqlite:///{file}"]
    Store(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM migrations WHERE name = 'create_prompts'")
        connection.execute("DROP TABLE prompts")
    code, said = check(capsys, *arguments)
    assert (code, "0 keys; no key is configured" in said, "changed at start: create_prompts" in said) == (0, True, True)
    with sqlite3.connect(file) as connection:
        assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'prompts'").fetchall()
    Store(f"sqlite:///{file}").close()
    assert "changed at start" not in check(capsys, *arguments)[1]
    file.write_text("no database at all")
    code, said = check(capsys, *arguments)
    assert (code, "# error   database: the database cannot be opened: " in said) == (1, True)


def test_a_column_that_was_dropped_is_named(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "serve.db"
    Store(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE requests DROP COLUMN tier")
        connection.execute("DROP TABLE counts")
    code, said = check(capsys, "--upstream", server.url, "--database", f"sqlite:///{file}")
    assert code == 1
    assert f"# error   database: sqlite:///{file} lacks requests.tier, counts.key, counts.count, counts.ends" in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:hidden1@127.0.0.1:notaport/x?password=hidden2",
        "postgresql://127.0.0.1:1/x?user=a&password=hidden3&connect_timeout=1",
        "nonsense://anna:hidden1@127.0.0.1/x?sslkey=hidden2&api_key=hidden3",
        "nonsense://127.0.0.1/x?Authorization=hidden1&sig=hidden2&credential=hidden3",
        "postgresql:/anna:hidden1@127.0.0.1/x",
        "anna:hidden1/hidden2@127.0.0.1:1",
    ],
)
def test_no_secret_of_a_url_is_shown(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    code, said = check(
        capsys, "--upstream", f"{server.url}?key=hidden4", "--upstream", url, "--database", url, "--quota-storage", url
    )
    assert code == 1
    assert "hidden" not in said
    assert said.count("# error") == 4
    assert "Traceback" not in said


def test_what_is_wrong_is_said_all_at_once_and_fails(
    server: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = tmp_path / "budget.toml"
    budget.write_text("[tiers.short]\nmax_new_tokens = 0\n")
    database = ["--database", f"sqlite:///{tmp_path}/serve.db", "--quota-storage", "redis://:secret@127.0.0.1:9"]
    upstreams = ["--upstream", "http://127.0.0.1:9", "--upstream", server.url, "--budget-file", str(budget)]
    code, said = check(capsys, *database, *upstreams)
    assert code == 1
    wrong = [line for line in said.splitlines() if line.startswith(("# error", "# warning"))]
    assert [line.split(":")[0] for line in wrong] == ["# error   tiers", "# error   limits", "# warning upstream http"]
    assert "is the server running?" in wrong[2]
    assert "secret" not in said
    assert "Traceback" not in said
    server.health = 503
    code, said = check(capsys, "--upstream", server.url)
    assert code == 1
    assert f"# error   upstream {server.url}: " in said


def test_one_of_two_upstreams_suffices(server: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    dead = ["--upstream", "http://127.0.0.1:9"]
    code, said = check(capsys, *dead, "--upstream", server.url)
    assert (code, said.count("# warning"), said.count("# error")) == (0, 1, 0)
    code, said = check(capsys, *dead)
    assert (code, said.count("# warning"), said.count("# error")) == (1, 0, 1)


def test_upstreams_see_the_key_that_is_meant_for_them_and_no_other(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    code, said = check(capsys, "--upstream", server.url)
    [error] = [line for line in said.splitlines() if line.startswith("# error")]
    assert (code, error.count("key was sent"), "name the one" in error) == (1, 1, False), error
    monkeypatch.setenv("SUFFICE_API_KEY", "secret")
    assert check(capsys, "--upstream", server.url)[0] == 0


def test_a_mistyped_variable_is_told(
    server: FakeOpenAI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUFFICE_SERVE_MAX_RUNING", "3")
    monkeypatch.setenv("SUFFICE_SERVE_PORT_8000_TCP_ADDR", "10.0.0.1")
    code, said = check(capsys, "--upstream", server.url)
    assert code == 0
    warning = (
        "warning: SUFFICE_SERVE_MAX_RUNING is not a setting and does nothing: did you mean SUFFICE_SERVE_MAX_RUNNING?"
    )
    assert warning in said
    assert "SUFFICE_SERVE_PORT_8000_TCP_ADDR is not a setting" in said


def test_a_model_of_a_hub_is_looked_up(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    code, said = check(capsys, "--model", "Qwen2.5-0.5B-Instruct")
    assert code == 1
    assert "# error   engine: Qwen2.5-0.5B-Instruct is not a folder here, and the hub cannot be reached" in said
    code, said = check(capsys, "--model", "Qwen2.5-0.5B-Instruct", "--hub", "modelscope")
    assert (code, "# untried engine: Qwen2.5-0.5B-Instruct, fetched from ModelScope" in said) == (0, True)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup_reads_tiers_again_and_keeps_the_old_where_the_file_is_wrong(server: FakeOpenAI, tmp_path: Path) -> None:
    budget, log = tmp_path / "budget.toml", tmp_path / "log"
    budget.write_text("[tiers.short]\nmax_new_tokens = 10\n")
    command = [sys.executable, "-m", "suffice.cli.main", "serve", "--port", "0", "--upstream", server.url]
    files = ["--database", f"sqlite:///{tmp_path}/serve.db", "--budget-file", str(budget)]
    with log.open("w") as errors:
        running = subprocess.Popen([*command, *files], stderr=errors)

    def wait_for(words: str) -> str:
        deadline = time.monotonic() + 30
        while words not in log.read_text():
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        return log.read_text()

    try:
        wait_for("serving fake-model")
        budget.write_text("[tiers.tiny]\nmax_new_tokens = 3\n")
        running.send_signal(signal.SIGHUP)
        wait_for("tiers read again: short, standard, long, unlimited, tiny")
        budget.write_text("[tiers.tiny]\nmax_new_tokens = 'many'\n")
        running.send_signal(signal.SIGHUP)
        said = wait_for("the tiers stay as they were")
        assert str(budget) in said
        assert "Traceback" not in said
        assert running.poll() is None
    finally:
        running.kill()
        running.wait()


def test_what_would_stop_a_start_is_found_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("SUFFICE_SERVE_DTYPE", "zzz")
    (tmp_path / "file").write_text("")
    database = ["--database", f"sqlite:///{tmp_path}/serve.db"]
    code, said = check(capsys, *database, "--length-state", str(tmp_path / "file" / "lengths"))
    assert code == 1
    assert "# error   engine: unknown dtype 'zzz': use auto, bfloat16, float16 or float32" in said
    assert "# error   lengths: " in said
    monkeypatch.setenv("SUFFICE_SERVE_OTLP_ENDPOINT", "collector")
    with pytest.raises(UsageError, match="otlp_endpoint is 'collector': give a URL"):
        load_serve_settings()

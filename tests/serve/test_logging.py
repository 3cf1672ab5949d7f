"""Messages of the server: what an embedding program sees, what `suffice serve` writes, and which flags say so."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import pytest

from serving import serving
from suffice.cli.serve import command
from suffice.errors import UsageError
from suffice.serve.config import ServeSettings, load_serve_settings
from suffice.serve.logging_setup import JsonFormatter, TextFormatter
from suffice.settings import flag_of
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.scripted_engine import ScriptedEngine


def test_who_embeds_the_service_gets_loggers_and_no_handler(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    before = list(logging.getLogger().handlers)
    with serving(ScriptedEngine()) as server:
        assert server.chat().status == 200
    assert logging.getLogger().handlers == before
    assert not logging.getLogger("suffice").handlers
    [said] = [each for each in caplog.records if each.name.startswith("suffice.")]
    assert (said.name, said.levelname) == ("suffice.serve.app", "INFO")
    assert said.getMessage().startswith("no key is configured, so only this machine is served")
    assert capfd.readouterr().err == ""


def record(level: int, message: str, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("suffice.serve.x")
    return made.makeRecord(made.name, level, "file", 1, message, (), None, extra=extra)


def test_a_line_is_for_a_person_or_for_a_program() -> None:
    text = TextFormatter().format
    assert text(record(logging.WARNING, "the database is away")) == "warning: the database is away"
    assert text(record(logging.INFO, "tiers read again")) == "notice: tiers read again"
    assert text(record(logging.INFO, "serving m", prefix="")) == "serving m"
    said = json.loads(JsonFormatter().format(record(logging.ERROR, "坏了\n", lost=3, prefix="", where=Path("/x"))))
    assert datetime.fromisoformat(said.pop("time")).tzinfo is not None
    assert said == {"level": "error", "logger": "suffice.serve.x", "message": "坏了\n", "lost": 3, "where": "/x"}
    try:
        raise ValueError("why")
    except ValueError:
        broken = record(logging.ERROR, "broken")
        broken.exc_info = sys.exc_info()
    assert json.loads(JsonFormatter().format(broken))["exception"].endswith("ValueError: why")
    assert text(broken).splitlines()[:2] == ["error: broken", "Traceback (most recent call last):"]


def lines_of(server: FakeOpenAI, folder: Path, *flags: str) -> list[str]:
    """What `suffice serve` writes to standard error until it has started and been told to end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    command = [sys.executable, "-m", "suffice.cli.main", "serve", "--port", str(address[1]), "--upstream", server.url]
    environment = {**os.environ, "SUFFICE_SERVE_DATABASE": f"sqlite:///{folder}/serve.db", "SUFFICE_SERVE_PROT": "1"}
    log = folder / "log"
    with log.open("w") as errors:
        running = subprocess.Popen([*command, *flags], stderr=errors, stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 30
    try:
        while (client := socket.socket()).connect_ex(address):
            client.close()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        client.close()
        time.sleep(0.2)  # it listens a moment before it says so
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(30)
    return log.read_text().splitlines()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_the_command_writes_as_it_is_told(server: FakeOpenAI, tmp_path: Path) -> None:
    lines = lines_of(server, tmp_path)
    assert lines[0] == "warning: SUFFICE_SERVE_PROT is not a setting and does nothing: did you mean SUFFICE_SERVE_PORT?"
    assert lines[1].startswith("notice: no key is configured, so only this machine is served (127.0.0.1)")
    assert lines[2].startswith("serving fake-model on http://127.0.0.1:")
    assert len(lines) == 3
    lines = lines_of(server, tmp_path, "--log-format", "json", "--log-level", "debug")
    said = [json.loads(line) for line in lines]
    assert {"suffice.serve.config", "suffice.serve.app", "suffice.serve.server", "uvicorn.error"} <= {
        each["logger"] for each in said
    }
    [started] = [each for each in said if each["message"].startswith("serving")]
    assert (started["level"], started["models"]) == ("info", "fake-model")
    assert lines_of(server, tmp_path, "--log-level", "error") == []


def test_every_setting_that_had_a_flag_has_it_and_each_is_described() -> None:
    flags = {option for each in command.params for option in each.opts}
    assert flags == {
        *(
            "--model",
            "--adapters",
            "--hub",
            "--dtype",
            "--device",
            "--engine",
            "--engine-python",
            "--engine-args",
            "--tensor-parallel-size",
            "--tp",
            "--memory-utilization",
            "--kv-tokens",
            "--on-runaway",
            "--upstream",
            "--host",
            "--port",
            "--no-auth",
        ),
        *("--database", "--length-state", "--quota-storage", "--budget-file", "--max-running", "--max-waiting"),
        *("--max-choices", "--queue-timeout", "--request-timeout", "--upstream-timeout", "--drain-timeout"),
        *("--log-level", "--log-format", "--config", "--check"),
    }
    assert all(each.metadata["help"] for each in fields(ServeSettings) if flag_of(each) not in (None, "--port"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_running", "0", "max_running is 0: it must be a number above 0"),
        ("port", "70000", "port is 70000: it must be from 0 to 65535"),
        ("max_waiting", "-1", "max_waiting is -1: it must be 0 or more"),
        ("drain_delay", "inf", "drain_delay is inf: it must be 0 or more"),
        ("log_prompts_days", "nan", "log_prompts_days is nan: it must be a number above 0"),
        ("log_level", "loud", "log_level is 'loud': it must be one of debug, info, warning, error"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name: str, value: str, words: str) -> None:
    variable = f"SUFFICE_SERVE_{name.upper()}"
    with pytest.raises(UsageError) as refused:
        load_serve_settings(environment={variable: value})
    assert str(refused.value) == f"{variable}: {words}"

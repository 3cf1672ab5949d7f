"""`suffice sft` and `suffice export` as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from suffice.checkpoints.model_source import bundled_model
from suffice.cli.export import command as export
from suffice.cli.sft import command as sft
from suffice.errors import DataError, UsageError
from suffice.train.recipe import Recipe

NAMES = ["--model_name", "小智", "Bot", "--model_author", "张三", "Jane"]


def call(command: click.Command, *arguments: str) -> Any:
    return command.main(list(arguments), standalone_mode=False)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """Something that the model cannot do yet: counting down."""
    counts = [", ".join(map(str, range(first, 0, -1))) for first in range(3, 15)]
    lines = [{"query": f"Count from {first} to 1.", "response": text} for first, text in enumerate(counts, 3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_every_setting_is_a_flag_with_help_in_a_group() -> None:
    options = {option.name: option for option in sft.params}
    assert {each.name for each in fields(Recipe)} <= set(options)
    assert all(option.help and option.group != "Other" for option in options.values())  # type: ignore[attr-defined]
    for each in fields(Recipe):
        default = options[each.name].default
        assert (tuple(default) if isinstance(each.default, tuple) and default else default or None) == (
            each.default or None
        )


def test_dry_run_shows_data_memory_and_time_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(sft, "--dataset", "self_cognition#20", *NAMES, "--max-length", "64", "--dry_run") == 0
    shown = capsys.readouterr().err
    for words in ("self_cognition#20", "20 rows", "names filled in: 20 rows", "forecast of the peak", "steps, roughly"):
        assert words in shown
    assert list(tmp_path.iterdir()) == []


def test_the_bundled_dataset_cannot_be_learnt_without_names() -> None:
    with pytest.raises(UsageError, match="--model_name and --model_author"):
        call(sft, "--dataset", "self_cognition", "--dry_run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--dataset is missing"),
        (["--dataset", "nothing.jsonl"], "no file"),
        (["--dataset", "rows", "--resume", "nowhere"], "no folder 'nowhere'"),
        (["--resume"], "no run in output"),
    ],
)
def test_mistakes_are_told_at_once(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UsageError, DataError), match=words):
        call(sft, *arguments)


def test_export_says_what_is_missing(tmp_path: Path) -> None:
    for arguments, words in (
        ([], "--adapters is missing"),
        (["--adapters", "a"], "--output is missing"),
        (["--adapters", "a", "--output", "b"], "--merge"),
    ):
        with pytest.raises(UsageError, match=words):
            call(export, *arguments)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is there already"):
        call(export, "--adapters", str(bundled_model()), "--merge", "--output", str(tmp_path))


def test_ctrl_c_saves_and_resume_continues_with_the_same_settings(rows: str, tmp_path: Path) -> None:
    """In a process of its own, because signals go to the main thread."""
    runs = tmp_path / "output"
    arguments = ["--dataset", rows, "--output_dir", str(runs), "--gradient_accumulation_steps", "1"]
    arguments += ["--logging_steps", "1", "--num_train_epochs", "3", "--stop_check_prompts", "0"]
    code = "import sys; from suffice.cli.sft import command; sys.exit(command.main(standalone_mode=False))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True, env={**os.environ, "RANK": "0"}
    )
    while not any(log.read_text().count("\n") > 1 for log in runs.glob("*/logging.jsonl")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130, shown
    assert "stopped by SIGINT: saved after step" in shown
    with pytest.raises(UsageError, match="lora_rank is 8: leave out --lora_rank"):
        call(sft, "--resume", "--output_dir", str(runs), "--lora_rank", "4")
    assert call(sft, "--resume", "--output_dir", str(runs)) == 0
    (log,) = runs.glob("*/logging.jsonl")
    steps = [entry["step"] for entry in map(json.loads, log.read_text().splitlines()) if "loss" in entry]
    assert steps == list(range(1, 34))


def start(arguments: list[str], *launcher: str) -> subprocess.Popen[str]:
    """`suffice sft` in a process of its own."""
    command = [sys.executable, *launcher, "-m", "suffice.cli.main", "sft", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def losses(runs: Path) -> dict[int, float]:
    """Logged losses by step; a step that is logged twice fails the test."""
    (log,) = runs.glob("*/logging.jsonl")
    entries = [entry for entry in map(json.loads, log.read_text().splitlines()) if "loss" in entry]
    found = {entry["step"]: entry["loss"] for entry in entries}
    assert len(found) == len(entries), "a step was logged twice"
    return found


def test_a_killed_run_continues_as_if_nothing_had_happened(rows: str, tmp_path: Path) -> None:
    arguments = ["--dataset", rows, "--gradient_accumulation_steps", "1", "--logging_steps", "1", "--save_steps", "4"]
    arguments += ["--num_train_epochs", "2", "--stop_check_prompts", "0", "--split_dataset_ratio", "0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start([*arguments, "--output_dir", str(killed)])
    while not list(killed.glob("*/checkpoint-8/trainer_state.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert call(sft, "--resume", "--output_dir", str(killed)) == 0
    assert call(sft, *arguments, "--output_dir", str(whole)) == 0
    assert losses(killed).keys() == set(range(1, 25))
    assert losses(killed) == pytest.approx(losses(whole), rel=1e-3)


@pytest.mark.slow
def test_two_processes_train_as_one(rows: str, tmp_path: Path) -> None:
    """Over gloo on the CPU: the same rows a step, so the same losses, and one folder."""
    arguments = ["--dataset", rows, "--logging_steps", "1", "--num_train_epochs", "2", "--stop_check_prompts", "0"]
    arguments += ["--split_dataset_ratio", "0", "--lora_dropout", "0", "--device", "cpu"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert call(sft, *arguments, "--gradient_accumulation_steps", "4", "--output_dir", str(alone)) == 0
    two = [*arguments, "--gradient_accumulation_steps", "2", "--output_dir", str(together)]
    process = start(two, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    _, shown = process.communicate(timeout=110)
    assert process.returncode == 0, shown
    assert losses(together).keys() == losses(alone).keys() == set(range(1, 7))
    assert losses(together) == pytest.approx(losses(alone), rel=0.02)
    assert len(list(together.iterdir())) == 1

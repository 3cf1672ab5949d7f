"""Flags as people type them, and the help page."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from suffice.cli.command import Option, normalise
from suffice.cli.infer.infer import command
from suffice.cli.main import main

OPTIONS = [
    Option(["--max-new-tokens"]),
    Option(["--stream/--no-stream"]),
    Option(["--resume"], is_flag=True),
    Option(["--stop-words"], multiple=True),
    Option(["--dataset"], multiple=True),
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--max_new_tokens 5", "--max-new-tokens 5"),
        ("--max_new_tokens=a_b", "--max-new-tokens=a_b"),
        ("--stream true --resume", "--stream --resume"),
        ("--stream False", "--no-stream"),
        ("--stream=no", "--no-stream"),
        ("--no-stream true", "--no-stream"),
        ("--no_stream", "--no-stream"),
        ("--dataset a.jsonl b_c.jsonl#5 --resume", "--dataset a.jsonl --dataset b_c.jsonl#5 --resume"),
        ("--stop-words=--- x", "--stop-words=--- x"),
        ("-- --max_new_tokens", "-- --max_new_tokens"),
    ],
)
def test_arguments_are_brought_into_one_form(typed: str, meant: str) -> None:
    assert normalise(typed.split(), OPTIONS) == (meant.split(), [])


def test_the_comma_between_values_is_stripped_with_a_notice() -> None:
    normal, notices = normalise(["--stop_words", "</answer>,", "<|im_end|>"], OPTIONS)
    assert normal == ["--stop-words", "</answer>", "--stop-words", "<|im_end|>"]
    assert len(notices) == 1
    assert "'</answer>'" in notices[0]
    assert normalise(["--stop-words", ","], OPTIONS) == (["--stop-words", ","], [])


@pytest.mark.parametrize("typed", ["--stream=perhaps", "--resume false"])
def test_a_switch_that_cannot_be_what_was_typed_is_refused(typed: str) -> None:
    with pytest.raises(click.UsageError):
        normalise(typed.split(), OPTIONS)


def test_every_flag_of_infer_is_explained_and_grouped() -> None:
    for param in command.params:
        assert isinstance(param, Option)
        assert param.help, param.name
        assert param.group != "Other", param.name
    page = command.get_help(click.Context(command, info_name="suffice infer"))
    assert page.index("Examples:") < page.index("Model:") < page.index("Length:") < page.index("Output:")


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, suffice.cli.main as m\n"
        "try: m.main(['infer', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'aiohttp', 'rich', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["infer", "--max_new_token", "5"], "--max-new-tokens"),
        (["infer", "--max-new-tokens", "0", "--prompt", "x"], "0"),
        (["infer", "--max-new-tokens", "lots", "--prompt", "x"], "lots"),
        (["infer", "--temperature", "-1", "--prompt", "x"], "-1"),
        (["infer", "--dataset", "x.jsonl"], "--output"),
        (["infer", "--prompt", "x", "--dataset", "x.jsonl", "--output", "y"], "exclude"),
        (["infer", "--prompt", "x", "--resume"], "--dataset"),
        (["infer", "--dataset", "nowhere.jsonl", "--output", "y.jsonl"], "nowhere.jsonl"),
        (["infer", "--model", "./no-such-folder", "--prompt", "x"], "no-such-folder"),
        (["infer", "--upstream", "http://127.0.0.1:9", "--prompt", "x"], "127.0.0.1:9"),
        (["infer", "--columns", "a", "--dataset", __file__, "--output", "y"], "NAME=OURS"),
        (["budget", "--tier", "medium", "x"], "medium"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_calls_end_with_one_clear_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert says in error
    assert "Traceback" not in error
    assert error.splitlines()[-1]

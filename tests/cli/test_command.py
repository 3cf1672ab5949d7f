"""Flags as people type them, and the help page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import click
import pytest

from suffice.cli.command import Command, Option, TokenLimit, normalise, options_of
from suffice.cli.infer.infer import command as infer
from suffice.cli.infer.options import InferOptions, options_from
from suffice.cli.main import main
from suffice.engines.base import Sampling
from suffice.errors import UsageError
from suffice.settings import setting

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
    for param in infer.params:
        assert isinstance(param, Option)
        assert param.help, param.name
        assert param.group != "Other", param.name
    page = infer.get_help(click.Context(infer, info_name="suffice infer"))
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
        (["infer", "--dataset", "x.jsonl"], "x.jsonl"),
        (["infer", "--prompt", "x", "--dataset", "x.jsonl", "--output", "y"], "exclude"),
        (["infer", "--prompt", "x", "--resume"], "--dataset"),
        (["infer", "--dataset", "nowhere.jsonl", "--output", "y.jsonl"], "nowhere.jsonl"),
        (["infer", "--model", "./no-such-folder", "--prompt", "x"], "no-such-folder"),
        (["infer", "--upstream", "http://127.0.0.1:9", "--prompt", "x"], "127.0.0.1:9"),
        (["infer", "--columns", "a", "--dataset", __file__, "--output", "y"], "NAME=OURS"),
        (["infer", "--engine", "steam", "--prompt", "x"], "there are: auto, transformers, vllm"),
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


# ---- flags from classes ----


@dataclass(frozen=True, kw_only=True)
class Kitchen:
    """What a cook may say."""

    name: str = setting("stew", "Dish", "What it is called.", aliases=("--dish",))
    spices: tuple[str, ...] = setting((), "Dish", "Several.", metavar="SPICE")
    hours: float | None = setting(None, "Heat", "How long.", above=0, maximum=9)
    rings: int = setting(2, "Heat", "How many.", choices=(1, 2, 4))
    lid: bool = setting(True, "Heat", "Cover it.")
    no_salt: bool = setting(False, "Dish", "Leave salt out.")
    limit: str = setting("auto", "Heat", "Tokens.", type=TokenLimit("auto", "full"))
    recipe: str = setting("", flag=None)


def parsed(*arguments: str, defaults: bool = True) -> dict[str, Any]:
    return Command("cook", params=options_of(Kitchen, defaults=defaults)).make_context("cook", list(arguments)).params


def test_a_field_is_a_flag_with_its_default_type_and_range() -> None:
    chosen = parsed(
        "--dish", "soup", "--spices", "a", "b", "--hours", "0.5", "--rings", "4", "--no_lid", "--limit", "9"
    )
    assert Kitchen(**chosen) == Kitchen(name="soup", spices=("a", "b"), hours=0.5, rings=4, lid=False, limit=9)  # type: ignore[arg-type]
    assert Kitchen(**parsed()) == Kitchen()
    for wrong in (("--hours", "0"), ("--hours", "9.5"), ("--rings", "3"), ("--recipe", "x"), ("--no-no-salt",)):
        with pytest.raises(click.UsageError):
            parsed(*wrong)
    with pytest.raises(UsageError, match=r"--limit is '0': give a number of tokens, 1 or more, .* or auto or full"):
        parsed("--limit", "0")


def test_where_files_may_say_it_too_a_flag_left_out_is_none_and_its_default_is_shown() -> None:
    assert set(parsed(defaults=False).values()) == {None, ()}
    page = Command("cook", params=options_of(Kitchen, defaults=False)).get_help(click.Context(click.Command("cook")))
    assert "How many.  [default: 2]" in page
    assert "How long.  [above 0, at most 9]" in page
    assert page.index("Dish:") < page.index("Heat:")


def test_every_parameter_of_sampling_is_a_flag_of_infer() -> None:
    flags = [part for each in Sampling.fields() for part in (f"--{each.name.replace('_', '-')}", "1")]
    every = Sampling(**{each.name: 1 for each in Sampling.fields()})
    assert options_from(infer.make_context("infer", flags).params).sampling == every
    assert options_from(infer.make_context("infer", []).params).sampling == Sampling()
    with pytest.raises(click.UsageError, match="above 0, at most 1"):
        infer.make_context("infer", ["--top-p", "1.5"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--first-reservation 9", "--reservation 9"),
        ("--on_length stop", "--reservation full"),
        ("--on_length ask", "--ask-on-length"),
        ("--on-length continue", "--no-ask-on-length"),
    ],
)
def test_old_flags_of_reservations_work_with_a_notice(old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    def options(flags: str) -> InferOptions:
        return options_from(infer.make_context("infer", flags.split()).params)

    told = options(old)
    assert capsys.readouterr().err == f"notice: {old.replace('_', '-')} is deprecated: use {new}\n"
    wanted = options(new)
    assert capsys.readouterr().err == ""
    assert told.reservation == wanted.reservation
    assert told.ask_on_length == (wanted.ask_on_length and "stop" not in old)
    assert "--on-length" not in infer.get_help(click.Context(infer))

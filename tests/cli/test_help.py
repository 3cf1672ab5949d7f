"""Help pages: every example runs as far as flags are read, every line fits, every flag is explained."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from unicodedata import east_asian_width

import click
import pytest

from suffice.cli.command import Command
from suffice.cli.examples import example_lines
from suffice.cli.main import _EXAMPLES, _suffice
from suffice.cli.wrong_call import commands_below, flags_of

ROOT = click.Context(_suffice, info_name="suffice")
COMMANDS = dict(commands_below(_suffice, ROOT))


def examples() -> Iterator[str]:
    for page in (_EXAMPLES, *(command.examples for command in COMMANDS.values() if isinstance(command, Command))):
        yield from (re.split(r" {2,}", line.strip())[0] for line in page.strip().splitlines())


@pytest.mark.parametrize("example", [each for each in examples() if "suffice" in each])
def test_every_example_is_understood(example: str) -> None:
    words = shlex.split(re.sub(r"^(source|torchrun).*?(suffice)(\.cli\.main)?|[<>].*$|\)$", r"\2", example))
    assert words[0] == "suffice"
    asks_help = any(word.startswith("--help") for word in words)
    with pytest.raises(click.exceptions.Exit) if asks_help else nullcontext():
        group, ctx, rest = _suffice, ROOT, words[1:]
        while isinstance(group, click.Group):
            ctx = group.make_context("suffice", rest, parent=None)
            name, command, rest = group.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
            group = command  # type: ignore[assignment]
        assert command is not None
        command.make_context(name, rest, parent=ctx)


def pages(width: int) -> Iterator[tuple[str, str]]:
    for path, command in {"": _suffice, **COMMANDS}.items():
        ctx = click.Context(command, info_name=f"suffice {path}".strip(), terminal_width=width, max_content_width=110)
        yield path, command.get_help(ctx)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_every_page_fits_the_terminal(width: int) -> None:
    for path, page in pages(width):
        for line in page.splitlines():
            assert sum(2 if east_asian_width(sign) in "WF" else 1 for sign in line) <= width, f"{path}: {line}"


def test_every_flag_is_explained() -> None:
    for path, command in COMMANDS.items():
        for name, option in flags_of(command).items():
            assert option.help, f"suffice {path} {name}"
        assert command.help, path


def test_a_long_example_can_be_copied() -> None:
    page = "suffice infer --prompt 'List five animals, please.' --model Qwen3-8B   what it does\nsuffice infer"
    assert list(example_lines(page, 100)) == page.splitlines()
    lines = list(example_lines(page, 40))
    assert lines == [
        "# what it does",
        "suffice infer \\",
        "    --prompt 'List five animals, please.' \\",
        "    --model Qwen3-8B",
        "suffice infer",
    ]
    joined = "\n".join(lines[1:4]).replace("\\\n", " ")
    assert shlex.split(joined) == shlex.split(page.partition("   ")[0])

"""`--help=WORD`: the flags whose name, value or explanation has the word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import click

from suffice.cli.other_names import other_names
from suffice.cli.wrong_call import commands_below
from suffice.nearest import nearest

__all__ = ["show_flags_with", "word_to_find"]

_ASKS = "--help="


def word_to_find(args: Sequence[str]) -> str | None:
    """WORD of `--help=WORD`; None where nothing is to be found."""
    before_values = args[: args.index("--")] if "--" in args else args
    return next((word.removeprefix(_ASKS) for word in before_values if word.startswith(_ASKS)), None)


def show_flags_with(word: str, ctx: click.Context) -> int:
    """Print the flags of the command, or of every command of the group, that match. Returns the exit status."""
    formatter = ctx.make_formatter()
    found = 0
    for path, command in commands_below(ctx.command, ctx):
        here = click.Context(command, info_name=f"{ctx.command_path} {path}".strip())
        records = _records(word, here)
        found += len(records)
        if records:
            with formatter.section(here.command_path):
                formatter.write_dl(records)
    if found:
        click.echo(formatter.getvalue().strip())
        return 0
    click.echo(f"no flag of {ctx.command_path} has to do with {word!r}{_instead(word, ctx)}", err=True)
    return 1


def _records(word: str, ctx: click.Context) -> list[tuple[str, str]]:
    records = []
    for param in ctx.command.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None and _matches(word, f"{_text(param)} {' '.join(record)}"):
            records.append(record)
    return records


def _text(param: click.Parameter) -> str:
    names = [name for each in param.opts for name in (each, each.replace("-", "_"), other_names(each))]
    return " ".join([*names, getattr(param, "group", "")])


def _matches(wanted: str, text: str) -> bool:
    """Whether the text has every word that is wanted, in any case."""
    text = _folded(text)
    return all(word in text for word in _folded(wanted).split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _instead(word: str, ctx: click.Context) -> str:
    """Where else the word is, or words that resemble it."""
    root = ctx.find_root()
    if ctx is not root:
        paths = [path for path, command in commands_below(root.command, root) if _records(word, click.Context(command))]
        if paths:
            return f"; {', '.join(paths)} have: {root.command_path} {_ASKS}{word}"
    words = set()
    for _, command in commands_below(ctx.command, ctx):
        for param in command.params:
            text = f"{' '.join(param.opts)} {getattr(param, 'help', None) or ''}".lower()
            words |= set(re.findall(r"[a-z]{3,}", text))
    near = nearest(word.lower(), sorted(words))
    return f"; near words: {', '.join(near)}" if near else f"; {ctx.command_path} --help lists all flags"

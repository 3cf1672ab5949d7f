"""A wrong call in one line: what is wrong, and what was probably meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from suffice.cli.other_names import OTHER_COMMANDS, equivalent, not_needed
from suffice.nearest import did_you_mean, nearest

__all__ = ["TYPED", "commands_below", "explain", "flags_of", "no_such_command", "stray_words"]

TYPED = "suffice.typed"
"""Key of `Context.meta`: the words as they were typed."""
_OTHER_DASHES = "‐‑‒–—―−－"
_PASSED_ON = 3  # commands named in a hint


def explain(error: click.ClickException) -> str:
    """What a person reads about an error of click's, in one line."""
    if isinstance(error, click.NoSuchOption):
        return _no_such_flag(error)
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} needs a value"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        name = error.param.opts[0] if isinstance(error.param, click.Option) else str(error.param.name).upper()
        return f"{name} is missing" + (f"; {error.ctx.command_path} --help says more" if error.ctx else "")
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{error.param.opts[0]}: {error.message.rstrip('.')}"
    return error.format_message()


def flags_of(command: click.Command) -> dict[str, click.Option]:
    """Every flag and alias of a command that its help page shows."""
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    return {name: each for each in options for name in (*each.opts, *each.secondary_opts) if name.startswith("-")}


def commands_below(command: click.Command, ctx: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """A command, or those of a group, its groups' too, each with its name below `command`."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(ctx):
        if (below := command.get_command(ctx, name)) is not None:
            yield from commands_below(below, ctx, f"{path} {name}".strip())


def _no_such_flag(error: click.NoSuchOption) -> str:
    ctx = error.ctx
    if ctx is None:
        return error.format_message()
    flag = error.option_name.replace("_", "-")
    typed = _as_typed(flag, ctx)
    known = flags_of(ctx.command)
    flag = flag if flag.startswith("--") else "-" + typed.partition("=")[0].replace("_", "-")
    if flag in known:
        return f"no flag {typed}; did you mean {flag}?"
    if ours := equivalent(flag, known):
        return f"no flag {typed}; {ours} is its name here"
    if reason := not_needed(flag):
        return f"no flag {typed}: leave it out, because {reason}"
    if elsewhere := _others_with(flag, ctx):
        return f"no flag {typed} of {ctx.command_path}; {elsewhere}"
    near = nearest(flag.strip("-"), [name.strip("-") for name in known if name.startswith("--")])
    if near:
        return f"no flag {typed}; did you mean {' or '.join('--' + each for each in near)}?"
    return f"no flag {typed}; {ctx.command_path} --help lists the flags, and --help=WORD finds one"


def _as_typed(flag: str, ctx: click.Context) -> str:
    """A flag as it stands in the call: `--max_new_token`, or `-prompt`, which click reads as `-p`."""
    words = [word.partition("=")[0] for word in ctx.meta.get(TYPED, [])]
    same = [word for word in words if word.replace("_", "-") == flag]
    begins = [] if flag.startswith("--") else [word for word in words if word.startswith(flag)]
    return (same or begins or [flag])[0]


def _others_with(flag: str, ctx: click.Context) -> str:
    root = ctx.find_root()
    paths = [path for path, command in commands_below(root.command, root) if flag in flags_of(command)]
    if not paths:
        return ""
    paths = paths[:_PASSED_ON]
    named = f"{', '.join(paths[:-1])} and {paths[-1]} have" if len(paths) > 1 else f"{paths[0]} has"
    return f"{root.command_path} {named} it"


def no_such_command(words: Sequence[str], ctx: click.Context) -> str:
    """What to say of a call whose first word is no command; a word that resembles none may be a prompt."""
    group, word = ctx.command, words[0]
    names = group.list_commands(ctx) if isinstance(group, click.Group) else []
    if near := did_you_mean(word, names):
        return f"no command {word}{near}"
    if ctx.parent is not None:
        return f"no command {word} of {ctx.command_path}; there are: {', '.join(names)}"
    others = (ours for ours, theirs in OTHER_COMMANDS.items() if word.lower() in theirs.split())
    if ours := next(others, None):
        return f"no command {word}; did you mean: {ctx.command_path} {ours}"
    prompt = shlex.join([" ".join(each for each in words if not each.startswith("-"))])
    return f"no command {shlex.quote(word)}; did you mean: {ctx.command_path} infer --prompt {prompt}"


def stray_words(words: Sequence[str], ctx: click.Context, bare: str) -> str:
    """What to say of words that belong to no flag.

    Args:
        words: those that nothing takes.
        ctx: of the command.
        bare: the flag that such a word most likely belongs to.
    """
    word, typed, flags = words[0], ctx.meta.get(TYPED, []), flags_of(ctx.command)
    if word[0] in _OTHER_DASHES:
        return f"{word!r} begins with a dash that is not '-': type --{word.lstrip(_OTHER_DASHES + '-')}"
    place = typed.index(word) if word in typed else 0
    before = flags.get(typed[place - 2].replace("_", "-")) if place >= 2 else None
    if before is not None and before.type is click.STRING and not typed[place - 1].startswith("-"):
        whole = shlex.quote(" ".join([typed[place - 1], *words]))
        return f"{word!r} belongs to no flag; did you mean: {before.opts[0]} {whole}"
    if any(isinstance(param, click.Argument) for param in ctx.command.params):
        [name] = [param.make_metavar(ctx) for param in ctx.command.params if isinstance(param, click.Argument)]
        return f"{name} is one word: put a text with spaces in quotes ({shlex.quote(' '.join(words))} is left over)"
    flag = _flag_for(word, flags, bare)
    if not flag:
        return f"{word!r} belongs to no flag; {ctx.command_path} --help lists the flags"
    value = shlex.quote(word if Path(word).exists() else " ".join(words))
    return f"{word!r} belongs to no flag; did you mean: {ctx.command_path} {flag} {value}"


def _flag_for(word: str, flags: dict[str, click.Option], bare: str) -> str:
    """`bare`, unless the word is a file or a folder, which other flags take."""
    path = Path(word)
    if path.is_file() and "--dataset" in flags:
        return "--dataset"
    if (path / "adapter_config.json").is_file() and "--adapters" in flags:
        return "--adapters"
    return "--model" if (path / "config.json").is_file() and "--model" in flags else bare

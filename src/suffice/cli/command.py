"""How every command gets its flags from a settings class, reads them (`-` or `_`, `--flag true`, several values after
one flag), and shows its help."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.completed_values import complete
from suffice.cli.examples import example_lines
from suffice.cli.find_flags import show_flags_with, word_to_find
from suffice.cli.notes import tell
from suffice.cli.values import Number, OneOf, TokenLimit, number_type
from suffice.cli.wrong_call import TYPED, no_such_command, stray_words
from suffice.numerals import COUNT_EXAMPLES
from suffice.settings import flag_of

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "Command",
    "CommandGroup",
    "OneOf",
    "Option",
    "TokenLimit",
    "command_line",
    "normalise",
    "number_type",
    "options_of",
]

_ARGUMENTS = "suffice.arguments"  # where a context keeps the command line
_ABOUT_TOKENS = f"TOKENS may be written as {COUNT_EXAMPLES}."
_METAVARS = {"model": "MODEL", "adapters": "FOLDER", "output_dir": "FOLDER"}
"""For fields that mean the same in every command, and are completed alike."""
_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


class Option(click.Option):
    """A flag that belongs to a group of the help page. A help text may end with `[default: in words]`."""

    def __init__(self, *declarations: Any, group: str = "Other", **settings: Any) -> None:
        text, _, self._default = settings.get("help", "").partition("[default: ")
        super().__init__(*declarations, **{**settings, "help": text.strip()})
        self.group = group

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """What the shell is to offer as a value: a file, a folder or a model where the metavar names one."""
        word = (self.metavar or "").strip("[]").partition("[")[0]
        return complete(word, incomplete) or super().shell_complete(ctx, incomplete)

    def get_help_extra(self, ctx: click.Context) -> Any:
        extra = super().get_help_extra(ctx)
        if self._default:
            extra["default"] = self._default.removesuffix("]")
        if isinstance(self.type, Number) and self.type.range:
            extra["range"] = self.type.range
        return extra


def options_of(cls: type[Any], *, defaults: bool = True) -> list[click.Parameter]:
    """The flags of a settings class: one for each field, which says all there is to say (`suffice.settings.setting`).

    Beside the limits that every reader of settings knows, a field may name `aliases` of its flag, a click `type`,
    `required`, and `switch`, for a bool that has no `--no-` form. A field with `unit="tokens"` takes 32k.

    Args:
        defaults: a flag that is left out has the field's default. Without, it is None, and the default is only shown:
            a file or a variable may say otherwise.
    """
    return [_option(each, defaults) for each in fields(cls) if flag_of(each) is not None]


def _option(each: Field[Any], defaults: bool) -> Option:
    about, flag = each.metadata, str(flag_of(each))
    default = None if each.default in (MISSING, (), "") else each.default
    text = about["help"]
    names = [flag, *about.get("aliases", ()), each.name]
    settings: dict[str, Any] = {name: about[name] for name in ("metavar", "required") if name in about}
    settings["group"] = about["group"] or "Other"
    settings.setdefault("metavar", _METAVARS.get(each.name))
    if not about.get("required"):  # for click, a default of None is a value
        settings["default"] = default if defaults else None
    if isinstance(default, bool):
        if about.get("switch") or each.name.startswith("no_"):
            return Option(names, is_flag=True, **settings, help=text)
        names[0] = f"{flag}/--no-{flag[2:]}"
        return Option(names, **settings, help=f"{text} [default: {'yes' if default else 'no'}]")
    if default is not None and not defaults:
        text = f"{text} [default: {default:g}]" if isinstance(default, float) else f"{text} [default: {default}]"
    several, shown = each.type is not None and "tuple" in str(each.type), defaults and default is not None
    return Option(names, **settings, type=_type(each), multiple=several, show_default=shown, help=text.strip())


def _type(each: Field[Any]) -> click.ParamType:
    about = each.metadata
    if "type" in about:
        return about["type"]
    if "choices" in about:
        return OneOf(about["choices"])
    if about.get("unit") == "tokens":
        return TokenLimit(minimum=about.get("minimum", 1), maximum=about.get("maximum"))
    name = str(each.type).partition(" ")[0]
    if name == "Path":
        return click.Path(path_type=Path, dir_okay=False)
    if name not in ("int", "float"):
        return click.STRING
    low, kind = about.get("minimum", about.get("above")), int if name == "int" else float
    return number_type(kind, low, about.get("maximum"), above="above" in about)


class _HelpOption(click.Command):
    """The flag --help of every command and group says what else it does."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "Show this page and exit; --help=WORD finds flags."
        return option


class Command(_HelpOption):
    """A command whose help is grouped, with examples on top, and whose flags follow the field's habits."""

    def __init__(self, *args: Any, examples: str = "", bare: str = "", **settings: Any) -> None:
        """`bare` is the flag that a word without a flag most likely belongs to, for the message that refuses it."""
        super().__init__(*args, **settings)
        self.examples, self._bare = examples, bare

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = list(args)
        if (word := word_to_find(args)) is not None:
            ctx.exit(show_flags_with(word, ctx))
        normal, notices = normalise(args, [param for param in self.params if isinstance(param, click.Option)])
        if not ctx.resilient_parsing:
            self._refuse_stray_words(ctx, normal)
            for notice in notices:
                tell(f"notice: {notice}")
        ctx.meta[_ARGUMENTS] = (ctx.command_path, normal)
        return super().parse_args(ctx, list(normal))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """The flags in the spelling, with - or with _, in which this one was begun."""
        if not incomplete.startswith("--") or "_" not in incomplete:
            return super().shell_complete(ctx, incomplete)
        items = super().shell_complete(ctx, incomplete.replace("_", "-"))
        for item in items:
            item.value = "--" + item.value[2:].replace("-", "_")
        return items

    def _refuse_stray_words(self, ctx: click.Context, args: list[str]) -> None:
        """Before click looks at the flags: it would call a flag missing whose value stands there."""
        takes = [param.nargs for param in self.params if isinstance(param, click.Argument)]
        values, words, _ = self.make_parser(ctx).parse_args(list(args))
        if words and -1 not in takes and "help" not in values:
            raise click.UsageError(stray_words(words, ctx, self._bare), ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                formatter.write("".join(f"  {line}\n" for line in example_lines(self.examples, formatter.width - 2)))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if any(isinstance(param.type, TokenLimit) for param in self.params):
            formatter.write_paragraph()
            formatter.write_text(_ABOUT_TOKENS)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The groups in the order in which they first appear; flags without a group come last."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and isinstance(param, click.Option):  # arguments are in the line of usage
                groups.setdefault(getattr(param, "group", "Other"), []).append(record)
        others = groups.pop("Other", [])
        for name, records in (*groups.items(), ("Other" if groups else "Options", others)):
            with formatter.section(name):
                formatter.write_dl(records, col_max=min(30, formatter.width // 3))  # a narrow page keeps room for words


def command_line(*, without: Iterable[str], then: Sequence[str]) -> str:
    """The command that runs now, for a shell: without some flags that have no values, and with more at its end."""
    path, arguments = click.get_current_context().meta[_ARGUMENTS]
    left_out = set(without)
    return shlex.join([*path.split(), *(word for word in arguments if word not in left_out), *then])


class CommandGroup(_HelpOption, click.Group):
    """Commands under one name, which are found by words that are nearly right, and flags of all of them by --help=."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = list(args)
        if args and word_to_find(args[:1]) is not None:
            ctx.exit(show_flags_with(str(word_to_find(args)), ctx))
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if not ctx.resilient_parsing and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(no_such_command(args, ctx), ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        """Its commands, without importing each for its help, and its flags."""
        from click.shell_completion import CompletionItem

        lines = [(name, about) for name, about in self.help_lines(ctx) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=about) for name, about in lines]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def help_lines(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Each command, with one line about it."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [(name, command.get_short_help_str(200)) for name, command in commands if command is not None]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.help_lines(ctx))


def normalise(args: Sequence[str], options: Iterable[click.Option]) -> tuple[list[str], list[str]]:
    """Rewrite arguments as people type them into click's form, with notices about what changed beyond spelling.

    `--max_new_tokens` becomes `--max-new-tokens`, `--stream true` becomes `--stream`, and `--stop_words a, b` becomes
    `--stop-words a --stop-words b`.
    """
    flags = {name: option for option in options for name in (*option.opts, *option.secondary_opts)}
    normal: list[str] = []
    notices: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*normal, word, *rest], notices
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            normal.append(word)
            continue
        name = name.replace("_", "-")
        option = flags.get(name)
        if option is not None and option.is_flag and (equals or (rest and rest[0].lower() in _TRUE | _FALSE)):
            normal.append(_switch(option, name, (value if equals else rest.pop(0)).lower()))
        elif option is not None and option.multiple and not equals:
            end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
            values, rest = rest[:end], rest[end:]
            stripped = [*(item.removesuffix(",") or item for item in values[:-1]), *values[-1:]]
            if stripped != values:
                notices.append(f"stripped the comma between the values of {name}: {' '.join(map(repr, stripped))}")
            normal += [part for item in stripped for part in (name, item)] or [name]
        elif option is not None and _needs_value(option) and not equals and rest:
            normal += [name, rest.pop(0)]  # whatever it begins with
        else:
            normal.append(name + equals + value)
    return normal, notices


def _needs_value(option: click.Option) -> bool:
    """Whether a value has to follow; `--resume` can stand alone."""
    return not option.is_flag and not isinstance(option.flag_value, str)


def _switch(option: click.Option, name: str, value: str) -> str:
    if value not in _TRUE | _FALSE:
        raise click.UsageError(f"{name} takes true or false, not {value!r}")
    if (value in _TRUE) == (name in option.opts):
        return option.opts[0]
    if not option.secondary_opts:
        raise click.UsageError(f"{name} can only be switched on; leave it out to have it off")
    return option.secondary_opts[0]

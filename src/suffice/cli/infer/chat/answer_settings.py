"""`/set`: the flags of `suffice infer` that say how answers are made, in the chat."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Option
from suffice.cli.infer.options import InferOptions, infer_options
from suffice.cli.other_names import equivalent
from suffice.engines.base import Sampling
from suffice.errors import UsageError
from suffice.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["changed", "listed", "settable", "shown"]

_GROUPS = ("Length", "Sampling")
_OTHERS = ("stream",)
_FIXED = ("length_model",)  # is read at the start
_DEFAULT = ("default", "none")


def settable() -> Mapping[str, Option]:
    """What can be set, by name: a new flag about lengths or sampling is among them by itself."""
    options = [each for each in infer_options() if isinstance(each, Option) and not each.hidden and each.name]
    wanted = [each for each in options if each.group in _GROUPS or each.name in _OTHERS]
    return {str(each.name): each for each in wanted if each.name not in _FIXED}


def changed(options: InferOptions, text: str) -> tuple[str, Any, InferOptions]:
    """The options after `NAME VALUE` or `NAME=VALUE`; `default` takes a value back.

    Returns:
        The name, the new value, and the options with it.

    Raises:
        UsageError: there is no such setting, or it cannot have this value.
    """
    known, (name, value) = settable(), _split(text)
    name = _ours(name, known)
    if name not in known:
        raise UsageError(f"no setting {name}{did_you_mean(name, known)} (/set lists them)")
    if not value:
        return name, _value(options, name), options
    parsed = _default(name) if value.lower() in _DEFAULT else _parsed(name, known[name], value)
    new = _with(options, name, parsed)
    return name, _value(new, name), new


def listed(options: InferOptions) -> str:
    """Every setting with its value and what it does, one line each."""
    width = max(shutil.get_terminal_size().columns, 60) - 1
    rows = [(name, shown(_value(options, name)), each.help or "") for name, each in settable().items()]
    lines = [f"{name:20}  {value:12}  {' '.join(about.split())}" for name, value, about in rows]
    return "\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines)


def shown(value: Any) -> str:
    match value:
        case None | ():
            return "default"
        case bool():
            return "yes" if value else "no"
        case tuple():
            return " ".join(map(shlex.quote, value))
    return str(value)


def _split(text: str) -> tuple[str, str]:
    name, _, value = text.strip().replace("=", " ", 1).partition(" ") if "=" in text.split()[0] else text.partition(" ")
    return name.strip().lstrip("-").replace("-", "_").lower(), value.strip()


def _ours(name: str, known: Mapping[str, Option]) -> str:
    """A setting's name here, by its name here or in another program."""
    flags = {option.opts[0]: ours for ours, option in known.items()}
    if name in known or (flag := equivalent(f"--{name.replace('_', '-')}", flags)) is None:
        return name
    return flags[flag]


def _parsed(name: str, option: Option, value: str) -> Any:
    try:
        if option.multiple:
            return tuple(option.type.convert(each, None, None) for each in shlex.split(value))
        return option.type.convert(value, None, None)
    except click.BadParameter as error:
        message = (
            f"{value!r} is neither yes nor no" if isinstance(option.type, click.types.BoolParamType) else error.message
        )
        raise UsageError(f"{name}: {message}") from None
    except (UsageError, ValueError) as error:  # a limit in tokens; a quotation mark without the other one
        raise UsageError(f"{name}: {error}") from None


def _with(options: InferOptions, name: str, value: Any) -> InferOptions:
    if name in _sampling():
        return replace(options, sampling=replace(options.sampling, **{name: value}))
    if name != "preset" or value is None:
        return replace(options, **{name: value})
    bare = replace(options.sampling, temperature=None, top_p=None)
    bare_limits: dict[str, Any] = {"tier": None, "max_new_tokens": "auto", "max_length": None}
    return replace(options, preset=value, **bare_limits, sampling=bare).with_preset()


def _value(options: InferOptions, name: str) -> Any:
    return getattr(options.sampling if name in _sampling() else options, name)


def _default(name: str) -> Any:
    return None if name in _sampling() else next(each.default for each in fields(InferOptions) if each.name == name)


def _sampling() -> set[str]:
    return {each.name for each in Sampling.fields()}

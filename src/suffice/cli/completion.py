"""`suffice completion`: the script that lets a shell complete commands, flags and values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from suffice.cli.command import Command, OneOf
from suffice.errors import UsageError

__all__ = ["command", "set_up_completion"]

_SHELLS = ("bash", "zsh", "fish")
_EXAMPLES = """
source <(suffice completion bash)                                     in ~/.bashrc
source <(suffice completion zsh)                                      in ~/.zshrc, after compinit
suffice completion fish > ~/.config/fish/completions/suffice.fish     once
"""


def _run(shell: str | None) -> int:
    """Print the script that completes commands, flags and their values in SHELL: bash, zsh or fish.

    Without SHELL, that of the variable SHELL is taken. Flags are completed with - and with _, as they are begun.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _SHELLS:
        raise UsageError(f"SHELL is {name!r}: name one of {', '.join(_SHELLS)}")
    print(_CLASSES[name](click.Group(), {}, "suffice", "_SUFFICE_COMPLETE").source())
    return 0


class _EitherSpelling(ShellComplete):
    """Completes flags that were begun with `_`, and the second value of a flag that takes several."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        flags = [place for place, word in enumerate(args) if word.startswith("--")]
        args = [word.replace("_", "-") if word.startswith("--") and "=" not in word else word for word in args]
        values = len(args) - flags[-1] - 1 if flags else 0
        if values and not incomplete.startswith("-") and self._takes_several(args, args[flags[-1]]):
            args = [*args, args[flags[-1]]]  # as click has it: the flag again before each value
        name, equals, rest = incomplete.partition("=")
        if equals and name.startswith("--"):
            incomplete = name.replace("_", "-") + equals + rest
        return super().get_completions(args, incomplete)

    def _takes_several(self, args: Sequence[str], flag: str) -> bool:
        command: click.Command = self.cli
        for word in args:
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word) or command
        options = [each for each in command.params if isinstance(each, click.Option)]
        return any(each.multiple and flag in each.opts for each in options)


class _Bash(_EitherSpelling, BashComplete):
    name = "bash"


class _Zsh(_EitherSpelling, ZshComplete):
    name = "zsh"


class _Fish(_EitherSpelling, FishComplete):
    name = "fish"
    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')
    """A help text with a comma is shown whole."""


_CLASSES: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def set_up_completion() -> None:
    """Tell click of these shells, where one of them asks."""
    for each in _CLASSES.values():
        add_completion_class(each)


command = Command(
    "completion",
    callback=_run,
    params=[click.Argument(["shell"], required=False, type=OneOf(_SHELLS), metavar="[SHELL]")],
    help=_run.__doc__,
    examples=_EXAMPLES,
)

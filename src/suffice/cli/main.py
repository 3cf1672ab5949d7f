"""The `suffice` program: finds the command, imports it only then, and turns errors into one line."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import click

from suffice.cli.command import CommandGroup
from suffice.cli.examples import example_lines
from suffice.cli.notes import tell
from suffice.cli.wrong_call import explain
from suffice.errors import SufficeError
from suffice.version import __version__

__all__ = ["main"]

_COMMANDS = {
    "infer": "Answer prompts: a chat, one prompt, or a whole dataset.",
    "sft": "Fine-tune a model with LoRA on your own answers.",
    "export": "Merge an adapter into its model.",
    "fit": "Learn from your own answers how long answers get.",
    "plan": "Say what fits into memory, before anything is loaded.",
    "serve": "Serve a model, or other servers, over HTTP: OpenAI's API and the tiers.",
    "keys": "Make, show, revoke and replace keys of the server.",
    "usage": "Show who used the server, how much, and how often answers were cut.",
    "budget": "Show how long an answer would be allowed to be, and why.",
    "profile": "Measure how long prompts and answers are, and which max_new_tokens suffices.",
    "doctor": "Show what is here, what is wrong with it, and what to do.",
    "models": "Show, fetch and delete models.",
    "completion": "Let the shell complete commands, flags and values.",
}
_EPILOG = (
    "suffice COMMAND --help explains a command, and --help=WORD finds flags. Flags may be written with - or _ "
    "(--max-new-tokens = --max_new_tokens)."
)
_EXAMPLES = """
suffice infer                                 chat with the bundled model
suffice infer --prompt 'List five animals.'   one answer
suffice budget '写一篇800字的文章'              how long would its answer be?
suffice --help=length                         the flags that have to do with length
"""


class _Commands(CommandGroup):
    """Commands that are imported when they are called; their help lines are here, so that `--help` imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"suffice.cli.{cmd_name}").command

    def help_lines(self, ctx: click.Context) -> list[tuple[str, str]]:
        return list(_COMMANDS.items())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_commands(ctx, formatter)
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in example_lines(_EXAMPLES, formatter.width - 2)))


_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=_Commands, epilog=_EPILOG, context_settings=_CONTEXT)
@click.version_option(__version__)
def _suffice() -> None:
    """Run language models so that every answer gets the length it needs and no more."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script. Exits with 0, with 1 when work failed, with 2 for a wrong call."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # an answer may have characters that a terminal in GBK has not
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if "_SUFFICE_COMPLETE" in os.environ:  # a shell asks what fits
            from suffice.cli.completion import set_up_completion

            set_up_completion()
        words = sys.argv[1:] if arguments is None else list(arguments)
        status = _suffice.main(args=words, prog_name="suffice", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        status = error.exit_code
    except click.ClickException as error:
        tell(f"error: {explain(error)}")
        status = 2
    except SufficeError as error:
        tell(f"error: {error!s}")
        status = 2
    except (KeyboardInterrupt, click.Abort):
        tell("stopped")
        status = 130
    sys.exit(status or 0)


if __name__ == "__main__":
    main()

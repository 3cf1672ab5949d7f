"""`suffice export`: merge an adapter into its model."""

from __future__ import annotations

import sys
from typing import Any

import click

from suffice.cli.command import Command, Option
from suffice.errors import UsageError

__all__ = ["command"]

_EXAMPLES = """
suffice export --adapters output/v0-20260101-120000/checkpoint-94 --merge --output merged
vllm serve merged
"""


def _run(**flags: Any) -> int:
    """Write a model and its adapter as one model, which transformers and vLLM load."""
    merge, adapters, output = flags.pop("merge"), flags.pop("adapters"), flags.pop("output")
    if not adapters:
        raise UsageError("--adapters is missing: name the folder of a checkpoint")
    if not output:
        raise UsageError("--output is missing: name the folder to write")
    if not merge:
        raise UsageError("--merge is missing: only a merged model can be exported; an adapter needs no export")
    from suffice.train.export import export_merged

    folder = export_merged(adapters, output, **flags)
    print(f"merged model: {folder}", file=sys.stderr)
    return 0


def _options() -> list[click.Parameter]:
    what, where = {"group": "What to export"}, {"group": "Output"}
    return [
        Option(["--adapters"], multiple=True, **what, help="LoRA folders, merged in this order."),
        Option(["--merge"], is_flag=True, **what, help="Merge them into the base model."),
        Option(["--model"], **what, help="The base model. [default: the one that the adapter names]"),
        Option(
            ["--trust-remote-code/--no-trust-remote-code"],
            default=False,
            **what,
            help="Run Python code that comes with the model. [default: no]",
        ),
        Option(["--output"], metavar="FOLDER", **where, help="Folder of the merged model."),
        Option(
            ["--dtype"],
            type=click.Choice(["auto", "bfloat16", "float16", "float32"]),
            default="auto",
            show_default=True,
            **where,
            help="Precision of the weights; auto is the base model's own.",
        ),
        Option(["--overwrite"], is_flag=True, **where, help="Write into a folder that has files."),
    ]


command = Command("export", callback=_run, params=_options(), help=_run.__doc__, examples=_EXAMPLES)

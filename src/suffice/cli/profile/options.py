"""The flags of `suffice profile`: what they are called and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from suffice.cli.command import Option, hub_option

__all__ = ["ProfileOptions", "profile_options"]


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """The flags of `suffice profile`, as click reads them."""

    source: tuple[str, ...]
    model: str | None
    hub: str
    columns: tuple[str, ...]
    by: tuple[str, ...]
    seed: int
    max_new_tokens: int
    tokens_per_second: float | None
    rules: Path | None
    training: bool
    lora_rank: int
    batch_size: int
    plot: Path | None
    html: Path | None
    json: bool


def profile_options() -> list[click.Parameter]:
    """The flags, group by group, as the help page shows them."""
    return [click.Argument(["source"], nargs=-1, required=True), *_counting(), *_advice(), *_output()]


def _counting() -> list[click.Parameter]:
    group: dict[str, Any] = {"group": "Reading and counting"}
    return [
        Option(
            ["--model"],
            **group,
            help="Folder or id of the model whose tokenizer counts. [default: the bundled model]",
        ),
        hub_option(**group),
        Option(
            ["--columns"],
            multiple=True,
            metavar="NAME=OURS",
            **group,
            help="Names of your columns, for example ask=query n_out=answer_tokens.",
        ),
        Option(["--seed"], type=int, default=0, show_default=True, **group, help="Chooses the rows of FILE#N."),
        Option(
            ["--by"],
            multiple=True,
            metavar="COLUMN",
            **group,
            help="Tell apart by a column, or by a path such as budget.limited_by. "
            "[default: file, model, category, language, tier, type, where there are several]",
        ),
    ]


def _advice() -> list[click.Parameter]:
    group: dict[str, Any] = {"group": "Advice"}
    positive = click.IntRange(min=1)
    return [
        Option(
            ["--max-new-tokens"],
            type=positive,
            default=2048,
            show_default=True,
            **group,
            help="The cap that is set now, which savings are compared with.",
        ),
        Option(
            ["--tokens-per-second"],
            type=click.FloatRange(min=0, min_open=True),
            **group,
            help="Speed of one answer, to give worst cases in seconds.",
        ),
        Option(["--rules"], type=click.Path(path_type=Path), **group, help="A TOML file with your own tiers."),
        Option(
            ["--training"],
            is_flag=True,
            **group,
            help="Say what each max_length would drop or cut, and what it costs in memory.",
        ),
        Option(
            ["--lora-rank"],
            type=positive,
            default=8,
            show_default=True,
            **group,
            help="For the memory of --training.",
        ),
        Option(
            ["--batch-size"],
            type=positive,
            default=1,
            show_default=True,
            **group,
            help="Rows per device, for the memory of --training.",
        ),
    ]


def _output() -> list[click.Parameter]:
    group: dict[str, Any] = {"group": "Output"}
    path = click.Path(path_type=Path, dir_okay=False)
    return [
        Option(["--plot"], type=path, metavar="FILE", **group, help="Draw the lengths as .png or .svg."),
        Option(
            ["--html"],
            type=path,
            metavar="FILE",
            **group,
            help="Write a report that is one file by itself, in English and Chinese.",
        ),
        Option(["--json"], is_flag=True, **group, help="Print everything as one JSON object, exact counts included."),
    ]

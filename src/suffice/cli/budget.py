"""`suffice budget`: the length decision for a prompt, and its reasons; no model is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from suffice.cli.command import Command, Option, TokenLimit

if TYPE_CHECKING:
    from suffice.budget import Budget

__all__ = ["command"]

_EXAMPLES = """
suffice budget '用一句话解释什么是 KV 缓存'
suffice budget 'Write an 800-word essay about rivers' --tier standard
suffice budget --json --max-length 4096 - < prompt.txt
"""

_DEFAULTS = {"model": "the default", "auto": "the default, raised to what the prompt asks for"}
"""In words, because this command knows no model."""


def _run(
    prompt: str,
    max_new_tokens: int | Literal["auto"],
    max_length: int | None,
    context: int | None,
    tier: str | None,
    rules: Path | None,
    length_model: Path | None,
    as_json: bool,
) -> int:
    """Show how long the answer to PROMPT would be allowed to be, what is expected, and why.

    Give - as PROMPT to read standard input.
    """
    from suffice.budget import Budgeter, EngineInfo, Limits

    budget = Budgeter.load(rules, length_model).decide(
        sys.stdin.read() if prompt == "-" else prompt,
        Limits(max_new_tokens=max_new_tokens, max_length=max_length, tier=tier),
        engine=EngineInfo(context_tokens=context),
    )
    print(_as_json(budget) if as_json else _as_text(budget))
    return 0


def _as_json(budget: Budget) -> str:
    return json.dumps(budget.to_dict(), ensure_ascii=False)


def _as_text(budget: Budget) -> str:
    quantiles = ", ".join(f"{100 * p:.0f} % below {tokens}" for p, tokens in budget.quantiles)
    limit = _DEFAULTS.get(budget.limited_by, budget.limited_by)
    lines = [
        f"max_new_tokens   {budget.max_new_tokens}   (limited by: {limit})",
        f"expected tokens  {budget.expected_tokens}   ({quantiles})",
        f"reserved first   {budget.reservation}   (a longer answer continues, up to the cap)",
        f"prompt tokens    {budget.prompt_tokens}",
        *(f"  - {reason}" for reason in budget.reasons),
    ]
    return "\n".join(lines)


def _options() -> list[click.Parameter]:
    limits: dict[str, Any] = {"group": "Limits"}
    positive = click.IntRange(min=1)
    return [
        click.Argument(["prompt"]),
        Option(
            ["--max-new-tokens"],
            type=TokenLimit("auto"),
            default="auto",
            show_default=True,
            metavar="auto|N",
            **limits,
            help="A number of tokens, or auto.",
        ),
        Option(
            ["--max-length"], type=positive, **limits, help="The most tokens that prompt and answer may have together."
        ),
        Option(["--context"], type=positive, **limits, help="The context of the model that will answer, in tokens."),
        Option(["--tier"], **limits, help="A named cap: short, standard, long, unlimited."),
        Option(["--rules"], type=click.Path(path_type=Path), help="A TOML file with your own keywords and tiers."),
        Option(
            ["--length-model"],
            type=click.Path(path_type=Path),
            help="A folder that `suffice fit` wrote. [default: packaged]",
        ),
        Option(["--json", "as_json"], is_flag=True, help="Print the decision as one JSON object."),
    ]


command = Command("budget", callback=_run, params=_options(), help=_run.__doc__, examples=_EXAMPLES)

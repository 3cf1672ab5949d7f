"""`suffice budget`: the length decision for a prompt, and its reasons; no model is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from suffice.cli.command import Command, TokenLimit, options_of
from suffice.cli.standard_input import standard_input
from suffice.settings import setting

if TYPE_CHECKING:
    from suffice.budget import Budget

__all__ = ["command"]

_EXAMPLES = """
suffice budget '用一句话解释什么是 KV 缓存'
suffice budget 'Write an 800-word essay about rivers' --tier standard
suffice budget --json --max-length 4096 - < prompt.txt
"""

_LIMITS = "Limits"
_DEFAULTS = {"model": "the default", "auto": "the default, raised to what the prompt asks for"}
"""In words, because this command knows no model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetOptions:
    max_new_tokens: int | Literal["auto"] = setting(
        "auto", _LIMITS, "The most tokens of the answer, or auto.", type=TokenLimit("auto")
    )
    max_length: int | None = setting(
        None, _LIMITS, "The most tokens that prompt and answer may have together.", unit="tokens"
    )
    context: int | None = setting(None, _LIMITS, "The context of the model that will answer.", unit="tokens")
    tier: str | None = setting(None, _LIMITS, "A named cap: short, standard, long, unlimited.")
    rules: Path | None = setting(None, text="A TOML file with your own keywords and tiers.")
    length_model: Path | None = setting(
        None, text="A folder that `suffice fit` wrote. [default: packaged]", type=click.Path(path_type=Path)
    )
    json: bool = setting(False, text="Print the decision as one JSON object.", switch=True)


def _run(prompt: str, **flags: Any) -> int:
    """Show how long the answer to PROMPT would be allowed to be, what is expected, and why.

    Give - as PROMPT to read standard input.
    """
    from suffice.budget import Budgeter, EngineInfo, Limits

    options = BudgetOptions(**flags)
    budget = Budgeter.load(options.rules, options.length_model).decide(
        standard_input() if prompt == "-" else prompt,
        Limits(max_new_tokens=options.max_new_tokens, max_length=options.max_length, tier=options.tier),
        engine=EngineInfo(context_tokens=options.context),
    )
    print(json.dumps(budget.to_dict(), ensure_ascii=False) if options.json else _as_text(budget))
    return 0


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


_PARAMETERS = [click.Argument(["prompt"]), *options_of(BudgetOptions)]
command = Command("budget", callback=_run, params=_PARAMETERS, help=_run.__doc__, examples=_EXAMPLES)

"""LoRA fine-tuning: from a recipe and rows to checkpoints that know how long their answers are.

plan = make_plan(Recipe(dataset=("rows.jsonl",)))     data and forecast; no weights yet
train(plan, showing=..., tell=...)                    to the last checkpoint
export_merged(["output/v0-.../last"], "merged")       one model out of base and adapter

Importing this package imports no torch, so that `suffice sft --help` does not: what needs it is loaded when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from suffice.deprecated import renamed
from suffice.train.recipe import Recipe

if TYPE_CHECKING:
    from suffice.train.export import export_merged
    from suffice.train.run import Outcome, Resumed, RunPlan, make_plan, resume, train

__all__ = ["Outcome", "Recipe", "Resumed", "RunPlan", "export_merged", "make_plan", "resume", "train"]

_old_name = renamed(__name__, {"Plan": "RunPlan"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        return _old_name(name)
    return getattr(import_module("suffice.train.export" if name == "export_merged" else "suffice.train.run"), name)

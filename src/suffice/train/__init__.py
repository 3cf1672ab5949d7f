"""LoRA fine-tuning: from a recipe and rows to checkpoints that know how long their answers are.

plan = make_plan(Recipe(dataset=("rows.jsonl",)))     data and forecast; no weights yet
train(plan, showing=..., tell=...)                    to the last checkpoint
export_merged(["output/v0-.../last"], "merged")       one model out of base and adapter
"""

from __future__ import annotations

from suffice.deprecated import renamed
from suffice.train.export import export_merged
from suffice.train.recipe import Recipe
from suffice.train.run import Outcome, Resumed, RunPlan, make_plan, resume, train

__all__ = ["Outcome", "Recipe", "Resumed", "RunPlan", "export_merged", "make_plan", "resume", "train"]

__getattr__ = renamed(__name__, {"Plan": "RunPlan"})

"""`suffice export`: merge an adapter into its model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from suffice.checkpoints.model_source import DTYPES
from suffice.cli.command import Command, options_of
from suffice.cli.notes import tell
from suffice.errors import UsageError
from suffice.settings import setting

__all__ = ["command"]

_EXAMPLES = """
suffice export --adapters output/v0-20260101-120000/checkpoint-94 --merge --output merged
vllm serve merged
"""


_WHAT, _OUTPUT = "What to export", "Output"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    adapters: tuple[str, ...] = setting((), _WHAT, "LoRA folders, merged in this order.")
    merge: bool = setting(False, _WHAT, "Merge them into the base model.", switch=True)
    model: str | None = setting(None, _WHAT, "The base model. [default: the one that the adapter names]")
    trust_remote_code: bool = setting(False, _WHAT, "Run Python code that comes with the model.")
    output: str | None = setting(None, _OUTPUT, "Folder of the merged model.", metavar="FOLDER")
    dtype: str = setting("auto", _OUTPUT, "Precision of the weights; auto is the base model's own.", choices=DTYPES)
    overwrite: bool = setting(False, _OUTPUT, "Write into a folder that has files.", switch=True)


def _run(*, merge: bool, adapters: tuple[str, ...], output: str | None, **others: Any) -> int:
    """Write a model and its adapter as one model, which transformers and vLLM load."""
    if not adapters:
        raise UsageError("--adapters is missing: name the folder of a checkpoint")
    if not output:
        raise UsageError("--output is missing: name the folder to write")
    if not merge:
        raise UsageError("--merge is missing: only a merged model can be exported; an adapter needs no export")
    from suffice.train.export import export_merged

    tell(f"merged model: {export_merged(adapters, output, **others)}")
    return 0


command = Command(
    "export", callback=_run, params=options_of(ExportOptions), help=_run.__doc__, examples=_EXAMPLES, bare="--adapters"
)

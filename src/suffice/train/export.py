"""Merges a trained adapter into its base model: a folder that transformers and vLLM load as any other model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from suffice.checkpoints.hub import find_on_hub
from suffice.checkpoints.library_warnings import without_library_warnings
from suffice.checkpoints.load_model import load_model
from suffice.checkpoints.model_source import ModelSource, resolve_model
from suffice.errors import ModelError, UsageError, first_line

__all__ = ["export_merged"]


def export_merged(
    adapters: Sequence[str | Path],
    output: str | Path,
    *,
    model: str | None = None,
    dtype: str = "auto",
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Path:
    """Write base model and adapters as one model (safetensors, tokenizer, generation defaults); returns the folder.

    Args:
        adapters: LoRA folders, merged in this order.
        output: folder to write; it must not exist, or be empty.
        model: the base model, where the one that the adapters name is not valid any more.
        dtype: of the weights, while merging and in the files; `auto` is the base model's own.
        overwrite: write into a folder that has files.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        UsageError: the folder has files, or cannot be written.
        ModelError: base model or adapters cannot be loaded.
    """
    folder = Path(output).expanduser()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise UsageError(f"--output {str(output)!r} is there already: name another folder, or use --overwrite")
    source = find_on_hub(resolve_model(model, adapters=adapters))
    stored = _own_dtype(source, trust_remote_code) if dtype == "auto" else dtype
    with without_library_warnings():
        merged = load_model(source, dtype=stored, device="cpu", trust_remote_code=trust_remote_code)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        merged.model.save_pretrained(folder)
        merged.tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UsageError(f"cannot write to --output {str(output)!r}: {error.strerror or error}") from error
    return folder


def _own_dtype(source: ModelSource, trust_remote_code: bool) -> str:
    """The type that the base model's weights are stored in."""
    from transformers import AutoConfig

    settings = {"local_files_only": source.only_here, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source.location, **settings)
    except Exception as error:  # whatever a hub, a file or remote code comes up with
        raise ModelError(f"cannot load {source.location!r}: {first_line(error)}") from error
    return str(config.dtype or "float32").removeprefix("torch.")

"""Fetching a model before it is needed: safetensors and what belongs to them, into the hub's own cache."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffice.checkpoints.hub import from_modelscope
from suffice.checkpoints.model_cache import hub_cache
from suffice.errors import ModelError, first_line

__all__ = ["Download", "fetch_model", "look_up"]

_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_UNWANTED = ["original/*", "metal/*", "onnx/*", "openvino/*", "consolidated*", "training_args*", "trainer_state*"]
"""The same weights once more for other programs, and what was left of training."""
_SPARE = 1 << 30  # bytes that a download leaves free


@dataclass(frozen=True, slots=True)
class Download:
    model_id: str
    bytes: int
    """Of all files that are wanted."""
    missing: int
    """Bytes that are not here yet."""


def look_up(model_id: str) -> Download:
    """Ask the Hugging Face hub what there is to fetch.

    Raises:
        ModelError: the hub does not have the model, or no safetensors of it, or cannot be reached; or the disk is too
            full for it.
    """
    files = _snapshot(model_id, dry_run=True)
    if not any(each.filename.endswith(".safetensors") for each in files):
        raise ModelError(f"{model_id} has no weights in safetensors on the hub, and other files are not loaded")
    missing = sum(each.file_size for each in files if each.will_download)
    free = shutil.disk_usage(next(each for each in (hub_cache(), *hub_cache().parents) if each.exists())).free
    if missing + _SPARE > free:
        gigabytes = f"{missing / 1e9:.1f} GB are missing and {free / 1e9:.1f} GB are free"
        raise ModelError(f"{hub_cache()} has no room for {model_id}: {gigabytes}; HF_HOME names another folder")
    return Download(model_id, sum(each.file_size for each in files), missing)


def fetch_model(model_id: str, hub: str = "hf", *, bars: bool = False) -> Path:
    """Fetch what is missing of a model, and return its folder in the cache. What was fetched before is kept.

    Args:
        model_id: its full id.
        hub: `hf` or `modelscope`.
        bars: show how far it is, on standard error.

    Raises:
        ModelError: it cannot be had.
    """
    if hub == "modelscope":
        return Path(from_modelscope(model_id, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    return Path(_snapshot(model_id, bars=bars))


def _snapshot(model_id: str, *, bars: bool = False, **how: Any) -> Any:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if bars else disable_progress_bars)()
    try:
        return snapshot_download(model_id, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, **how)
    except Exception as error:  # whatever a hub or a network comes up with
        raise ModelError(_why_not(model_id, error)) from None


def _why_not(model_id: str, error: Exception) -> str:
    from huggingface_hub import errors

    causes = (error, error.__cause__ or error)  # a trial run says what it was in its cause
    if any(isinstance(each, errors.GatedRepoError) for each in causes):
        return f"{model_id} is gated: accept its terms on its page at the hub, and put a token of yours in HF_TOKEN"
    if any(isinstance(each, errors.RepositoryNotFoundError) for each in causes):
        return f"the hub has no model {model_id}: check its spelling; a private one needs a token in HF_TOKEN"
    if any(isinstance(each, errors.HFValidationError) for each in causes):
        return f"{model_id!r} cannot be the name of a model: write ORGANISATION/NAME"
    if any(isinstance(each, errors.OfflineModeIsEnabled) for each in causes):
        return f"the hub is not asked for {model_id}, because HF_HUB_OFFLINE is set: unset it to fetch"
    if any(isinstance(each, errors.HfHubHTTPError) for each in causes):
        return f"the hub does not give {model_id}: {first_line(causes[1])}"
    instead = "HF_ENDPOINT names a mirror, and --hub modelscope the other hub"
    return f"the hub cannot be reached to fetch {model_id} ({first_line(causes[1])}): {instead}"

"""Where models that are not here are fetched from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from suffice.checkpoints.model_source import ModelSource
from suffice.errors import ModelError, first_line

__all__ = ["fetch_config", "fetch_file", "find_on_hub", "from_modelscope"]

_PATIENCE = 10.0  # seconds


def find_on_hub(source: ModelSource, hub: str = "hf") -> ModelSource:
    """The same model, as what loads it should look for it: in a folder, on the hub, or among what was fetched before.

    Args:
        source: what `resolve_model` found, or this function: then the hub is not asked again.
        hub: `hf` or `modelscope`.

    Raises:
        ModelError: the package modelscope is not installed, or the model cannot be had there.
    """
    if source.local or source.offline is not None:
        return source
    if hub == "modelscope":
        return replace(source, location=from_modelscope(source.location), local=True)
    return replace(source, offline=not _hub_answers(source.location))


def fetch_config(found: ModelSource) -> Path:
    """The `config.json` of a model; arguments and errors as `fetch_file`."""
    return fetch_file(found, "config.json")


def fetch_file(found: ModelSource, name: str) -> Path:
    """A small file of a model, from its folder (where it may be missing) or the Hugging Face hub.

    Args:
        found: what `find_on_hub` found.
        name: of the file.

    Raises:
        ModelError: why it cannot be had, without the model's name.
    """
    if found.local:
        return Path(found.location) / name
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(found.location, name, local_files_only=found.only_here))
    except LocalEntryNotFoundError:
        raise ModelError("the hub cannot be reached, and the model was not fetched before") from None
    except Exception as error:  # whatever a hub or a network comes up with
        raise ModelError(f"the hub does not give it: {first_line(error)}") from None


def _hub_answers(model_id: str) -> bool:
    """Whether the Hugging Face hub can be asked for a model, whatever it says of it. One look: the library itself tries
    each of a model's files six times, for 23 seconds, before it takes those that it has."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().model_info(model_id, timeout=_PATIENCE)
    except HfHubHTTPError as error:
        return error.response.status_code < 500  # what it says below that is told when the model is loaded
    except Exception:  # no network, no such host, HF_HUB_OFFLINE
        return False
    return True


def from_modelscope(model_id: str, **which: Any) -> str:
    """The folder of a model of ModelScope, fetched where it is not here; `which` are patterns of its files.

    Raises:
        ModelError: the package modelscope is not installed, or the model cannot be had there.
    """
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise ModelError("--hub modelscope needs the package modelscope: pip install modelscope") from None
    try:
        return str(snapshot_download(model_id, **which))
    except Exception as error:
        raise ModelError(f"cannot get {model_id!r} from ModelScope: {first_line(error)}") from error

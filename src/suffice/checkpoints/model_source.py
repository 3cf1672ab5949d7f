"""From what a person writes after `--model` and `--adapters` to where a model is. No network, no weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from suffice.errors import ModelError

__all__ = ["BUNDLED_NAME", "ModelSource", "bundled_model", "resolve_model"]

BUNDLED_NAME = "suffice-tiny"

_ORGANISATIONS = (
    ("Qwen", "Qwen"),
    ("QwQ", "Qwen"),
    ("Meta-Llama", "meta-llama"),
    ("Llama", "meta-llama"),
    ("gemma", "google"),
    ("Mistral", "mistralai"),
    ("Mixtral", "mistralai"),
    ("Ministral", "mistralai"),
    ("DeepSeek", "deepseek-ai"),
    ("SmolLM", "HuggingFaceTB"),
    ("Phi", "microsoft"),
    ("GLM", "zai-org"),
    ("gpt-oss", "openai"),
    ("OLMo", "allenai"),
)
"""Who publishes models whose id begins so; an id without an organisation gets theirs."""

_HUBS = ("hf", "modelscope")
DTYPES = ("auto", "bfloat16", "float16", "float32")
"""Names of precisions that commands take for a model's weights."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    name: str
    """As a person would say it."""
    location: str
    """A folder, or an id on the hub."""
    local: bool
    """True for a folder: no network is needed."""
    adapters: tuple[Path, ...] = ()
    """LoRA folders, merged in this order."""
    bundled: bool = False
    """True for the small model that comes with Suffice."""
    offline: bool | None = None
    """For an id, whether its hub cannot be reached, so that only what was fetched before can be had; None until
    it has been tried."""

    @property
    def only_here(self) -> bool:
        """Whether nothing is to be looked for on a network."""
        return self.local or bool(self.offline)


def bundled_model() -> Path:
    """Folder of the small model that comes with Suffice."""
    return Path(str(files("suffice.models") / "tiny"))


def resolve_model(
    model: str | Path | None = None, *, adapters: Sequence[str | Path] = (), hub: str = "hf"
) -> ModelSource:
    """Find out what is meant, without loading it and without the network.

    Args:
        model: a folder, a hub id, a short id such as `Qwen2.5-7B-Instruct`, or None: the adapters' base model, or the
            bundled model if there are none.
        adapters: LoRA folders.
        hub: `hf` or `modelscope`.

    Raises:
        ModelError: a folder that is not there or holds no model, or a hub that is not known.
    """
    if hub not in _HUBS:
        raise ModelError(f"unknown hub {hub!r}: use one of {', '.join(_HUBS)}")
    folders = tuple(_adapter_folder(adapter) for adapter in adapters)
    if model is None and folders:
        model = _base_model(folders[0])
    if model is None:
        folder = bundled_model()
        if not (folder / "config.json").is_file():
            raise ModelError(f"the bundled model is missing ({folder}): name a model with --model FOLDER or --model ID")
        return ModelSource(BUNDLED_NAME, str(folder), local=True, adapters=folders, bundled=True)
    path = Path(model).expanduser()
    if path.is_dir():
        _check_model_folder(path)
        return ModelSource(path.resolve().name, str(path), local=True, adapters=folders)
    if _looks_like_path(str(model)):
        raise ModelError(f"no model folder {str(model)!r}: {_whats_there(path)}")
    return ModelSource(str(model), _full_id(str(model)), local=False, adapters=folders)


def _adapter_folder(adapter: str | Path) -> Path:
    folder = Path(adapter).expanduser()
    if not folder.is_dir():
        raise ModelError(f"no adapter folder {str(adapter)!r}: {_whats_there(folder)}")
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(f"{str(adapter)!r} is not a LoRA adapter (no adapter_config.json): {_whats_inside(folder)}")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{str(adapter)!r} has no adapter_model.safetensors: other weight files are not loaded")
    return folder


def _base_model(adapter: Path) -> str | None:
    """What the adapter was trained on: a folder as written, a folder beside the adapter, or a hub id."""
    try:
        base = json.loads((adapter / "adapter_config.json").read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {adapter / 'adapter_config.json'}: {error}") from error
    if not base:
        raise ModelError(f"{str(adapter)!r} does not name its base model: give it with --model")
    if base == BUNDLED_NAME:
        return None
    beside = (adapter / base).resolve()
    return str(beside) if not Path(base).is_dir() and beside.is_dir() else str(base)


def _check_model_folder(folder: Path) -> None:
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{str(folder)!r} is a LoRA adapter: use --adapters {folder} in place of --model")
    raise ModelError(f"{str(folder)!r} holds no model (no config.json): {_whats_inside(folder)}")


def _looks_like_path(model: str) -> bool:
    if model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1 or model.endswith("/"):
        return True
    return "/" in model and Path(model).parent.is_dir()


def _whats_there(path: Path) -> str:
    return _whats_inside(next(each for each in path.absolute().parents if each.is_dir()))


def _whats_inside(folder: Path) -> str:
    names = sorted(each.name + "/" * each.is_dir() for each in folder.iterdir() if not each.name.startswith("."))
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{folder} has {shown or 'nothing in it'}"


def _full_id(model: str) -> str:
    if "/" in model:
        return model
    for prefix, organisation in _ORGANISATIONS:
        if model.lower().startswith(prefix.lower()):
            return f"{organisation}/{model}"
    return model

"""What the files beside a model's weights say: its configuration, its defaults, its special tokens, adapters' ranks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from suffice.checkpoints.hub import fetch_config, fetch_file, find_on_hub
from suffice.checkpoints.model_source import ModelSource
from suffice.errors import ModelError

__all__ = ["ModelFiles", "NamedAdapter", "named_adapters", "read_model_files"]

_STAGES = ("checkpoint-", "last", "best")  # names of folders that say nothing without their run's


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    source: ModelSource
    config: Mapping[str, Any]
    generation: Mapping[str, Any] = field(default_factory=dict)
    """`generation_config.json`; empty where there is none."""
    special_tokens: Mapping[int, str] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        """Whether the model's own way is to take the likeliest token, which servers do not read."""
        return not self.generation.get("do_sample")

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer by the model's own decision."""
        ids = self.generation.get("eos_token_id")
        return (ids,) if isinstance(ids, int) else tuple(ids or ())

    @property
    def max_new_tokens(self) -> int | None:
        limit = self.generation.get("max_new_tokens")
        return limit if isinstance(limit, int) else None

    @property
    def context_tokens(self) -> int | None:
        text = self.config.get("text_config") or self.config
        limit = text.get("max_position_embeddings")
        return limit if isinstance(limit, int) else None


@dataclass(frozen=True, slots=True)
class NamedAdapter:
    """A LoRA folder under the name by which requests ask for it."""

    name: str
    folder: Path
    rank: int


def read_model_files(source: ModelSource, hub: str = "hf") -> ModelFiles:
    """Read what is in the model's folder, or among what the hub has.

    Raises:
        ModelError: there is no `config.json`.
    """
    try:
        found = find_on_hub(source, hub)
        config = fetch_config(found)
    except ModuleNotFoundError:  # huggingface_hub: the server has its own, and asks itself
        return ModelFiles(source=source, config={})
    return ModelFiles(
        source=found,
        config=_read(config, required=True),
        generation=_read(_file(found, "generation_config.json")),
        special_tokens=_special_tokens(found),
    )


def named_adapters(folders: tuple[Path, ...]) -> tuple[NamedAdapter, ...]:
    """Each adapter under its folder's name, with its run's where a folder's is `checkpoint-100` or `last`.

    Raises:
        ModelError: an adapter does not say its rank, or is of a kind that servers do not load.
    """
    named: dict[str, NamedAdapter] = {}
    for folder in folders:
        path = folder.absolute()
        name = f"{path.parent.name}-{path.name}" if path.name.startswith(_STAGES) else path.name
        name = name.replace("=", "-")
        while name in named:
            name += "-2"
        named[name] = NamedAdapter(name, path, _rank(path))
    return tuple(named.values())


def _rank(folder: Path) -> int:
    config = _read(folder / "adapter_config.json", required=True)
    if config.get("use_dora"):
        raise ModelError(f"{folder} is a DoRA adapter, which vLLM and SGLang do not load: use --engine transformers")
    pattern = config.get("rank_pattern") or {}
    ranks = [each for each in (config.get("r"), *pattern.values()) if isinstance(each, int)]
    if not ranks:
        raise ModelError(f"{folder}: adapter_config.json does not say the rank (r) of the adapter")
    return max(ranks)


def _special_tokens(source: ModelSource) -> dict[int, str]:
    """From `tokenizer_config.json` where it lists them, else from `tokenizer.json`, which is larger."""
    listed = _read(_file(source, "tokenizer_config.json")).get("added_tokens_decoder")
    if isinstance(listed, dict):
        found = [(number, token) for number, token in listed.items() if isinstance(token, dict)]
    else:
        tokens = _read(_file(source, "tokenizer.json")).get("added_tokens") or ()
        found = [(token.get("id"), token) for token in tokens if isinstance(token, dict)]
    return {
        int(number): str(token["content"]) for number, token in found if token.get("special") and "content" in token
    }


def _file(source: ModelSource, name: str) -> Path | None:
    try:
        return fetch_file(source, name)
    except ModelError:  # a model may do without
        return None


def _read(path: Path | None, *, required: bool = False) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        if required:
            raise ModelError(f"{path} cannot be read: {error}") from None
        return {}
    return found if isinstance(found, dict) else {}

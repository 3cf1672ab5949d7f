"""Models that were fetched: what the caches of both hubs hold, and taking a model out of them. No network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from suffice.errors import ModelError

__all__ = ["CachedModel", "cached_models", "fetched_names", "hub_cache", "modelscope_cache", "remove_model"]

_PREFIX = "models--"  # of folders in the Hugging Face cache; `--` stands for the slash of an id
_DOT = "___"  # what ModelScope writes for a dot in the name of a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedModel:
    name: str
    """Its id on the hub."""
    hub: str
    """`hf` or `modelscope`."""
    folder: Path
    """What is removed with the model."""
    files: Path | None
    """Where its `config.json` is; None where nothing was fetched whole."""
    bytes: int
    last_used: float
    """Seconds since 1970."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Empty where there is none that can be read."""

    @property
    def complete(self) -> bool:
        """Whether there are weights that can be loaded, and no part of one is missing."""
        if self.files is None or not any(self.files.glob("*.safetensors")):
            return False
        return all((self.files / name).exists() for name in _shards(self.files))


def hub_cache() -> Path:
    """The folder of the Hugging Face cache, by the same variables as huggingface_hub."""
    environment = os.environ.get
    home = environment("HF_HOME") or Path(environment("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    folder = environment("HF_HUB_CACHE") or environment("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    return Path(os.path.expandvars(folder)).expanduser()


def modelscope_cache() -> Path:
    """The folder of ModelScope's cache."""
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope/hub").expanduser()


def fetched_names() -> list[str]:
    """Ids of the models in both caches, by the names of folders alone: fast, for a shell that completes."""
    return sorted({name for name, _ in (*_hub_folders(), *_modelscope_folders())})


def cached_models() -> list[CachedModel]:
    """The models in both caches, those used last first. Without huggingface_hub, only ModelScope's."""
    scope = (_cached(name, "modelscope", folder, folder) for name, folder in _modelscope_folders())
    return sorted([*_from_hub_cache(), *scope], key=lambda each: (-each.last_used, each.name))


def remove_model(model: CachedModel) -> int:
    """Delete a model from its cache. Returns the bytes that this freed.

    Raises:
        ModelError: its folder is not inside a cache, or cannot be deleted.
    """
    cache = hub_cache() if model.hub == "hf" else modelscope_cache()
    if not model.folder.parent.resolve().is_relative_to(cache.resolve()) or model.folder.is_symlink():
        raise ModelError(f"{model.folder} is not a folder of the cache {cache}: remove it yourself if you mean it")
    before = _size(model.folder)
    if model.hub == "hf":
        _delete_revisions(model)
    try:
        if model.folder.exists():  # ModelScope's, or what was left of a download that was interrupted
            shutil.rmtree(model.folder)
    except OSError as error:
        raise ModelError(f"{model.folder} cannot be deleted: {error.strerror or error}") from None
    return before - (_size(model.folder) if model.folder.exists() else 0)


def _delete_revisions(model: CachedModel) -> None:
    """By the hub's own library: blobs may be shared with others."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(model.folder.parent)
    repos = frozenset(repo for repo in found.repos if Path(repo.repo_path) == model.folder)
    commits = [revision.commit_hash for repo in repos for revision in repo.revisions]
    if commits:  # among this model's alone: a copy of it under another name has the same commits
        replace(found, repos=repos).delete_revisions(*commits).execute()


def _from_hub_cache() -> Iterator[CachedModel]:
    try:
        from huggingface_hub import scan_cache_dir
    except ImportError:
        return
    folders = dict(_hub_folders())
    if not folders:
        return
    found = {repo.repo_id: repo for repo in scan_cache_dir(hub_cache()).repos if repo.repo_type == "model"}
    for name, folder in folders.items():
        repo = found.get(name)
        if repo is None or not repo.revisions:
            yield _cached(name, "hf", folder, None)
            continue
        newest = max(repo.revisions, key=lambda each: each.last_modified)
        yield _cached(name, "hf", folder, Path(newest.snapshot_path))


def _cached(name: str, hub: str, folder: Path, files: Path | None) -> CachedModel:
    config = _json(files / "config.json") if files is not None else {}
    return CachedModel(
        name=name,
        hub=hub,
        folder=folder,
        files=files,
        bytes=_size(folder),
        last_used=_used(folder, files),
        config=config,
    )


def _used(folder: Path, files: Path | None) -> float:
    """When weights were last read, since a list reads the configs too; when something was written, without weights."""
    weights = [each.stat() for each in files.glob("*.safetensors") if each.exists()] if files is not None else []
    if weights:
        return max(max(each.st_atime, each.st_mtime) for each in weights)
    return max((each.stat().st_mtime for each in _files(folder)), default=folder.stat().st_mtime)


def _hub_folders() -> Iterator[tuple[str, Path]]:
    cache = hub_cache()
    for folder in sorted(cache.glob(f"{_PREFIX}*")) if cache.is_dir() else ():
        if folder.is_dir():
            yield folder.name.removeprefix(_PREFIX).replace("--", "/"), folder


def _modelscope_folders() -> Iterator[tuple[str, Path]]:
    """`ORGANISATION/NAME`, in the cache itself or in its folder `models`."""
    seen: set[Path] = set()
    for root in (modelscope_cache() / "models", modelscope_cache()):
        for config in sorted(root.glob("*/*/config.json")) if root.is_dir() else ():
            folder = config.parent
            if folder.parent.name not in ("models", "datasets") and folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield f"{folder.parent.name}/{folder.name.replace(_DOT, '.')}", folder.resolve()


def _files(folder: Path) -> Iterator[Path]:
    for path, _, names in os.walk(folder):
        yield from (each for each in (Path(path) / name for name in names) if not each.is_symlink())


def _size(folder: Path) -> int:
    """Bytes of the files in a folder; links count nothing, and a file with several names once."""
    stats = [each.stat() for each in _files(folder)]
    return sum({(each.st_dev, each.st_ino): each.st_size for each in stats}.values())


def _shards(files: Path) -> set[str]:
    weights = _json(files / "model.safetensors.index.json").get("weight_map", {})
    return set(weights.values()) if isinstance(weights, dict) else set()


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}

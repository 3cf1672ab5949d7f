"""The bundled tables of graphics cards and of models, which need no network."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from suffice.errors import ModelError, UsageError

__all__ = [
    "Card",
    "KnownModel",
    "card",
    "card_here",
    "cards",
    "known_model",
    "known_names",
    "model_in_folder",
    "similar_names",
]

_PACKAGE = files("suffice.memory")


@dataclass(frozen=True, slots=True)
class Card:
    """A device to plan for."""

    name: str
    memory: int
    """Bytes."""
    bandwidth: float | None = None
    """Bytes per second between memory and cores."""
    flops: float | None = None
    """Dense bfloat16 operations per second."""
    source: str = ""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model's `config.json`, as far as memory depends on it."""

    name: str
    config: Mapping[str, Any]
    extra_parameters: int = 0
    """Parameters that the config does not describe: those of an image encoder."""
    note: str = ""


def cards() -> dict[str, Card]:
    table = tomllib.loads((_PACKAGE / "cards.toml").read_text("utf-8"))
    return {
        key: Card(
            name=row["name"],
            memory=round(row["memory"] * 2**30),
            bandwidth=row["bandwidth"] * 1e9,
            flops=row["tflops"] * 1e12,
            source=row["source"],
        )
        for key, row in table.items()
    }


def card(name: str) -> Card:
    """A card by its usual name: `4090`, `RTX 4090`, `A100-80GB`, `h100`.

    Raises:
        UsageError: there is none, with those there are.
    """
    known = cards()
    short = name.lower().replace(" ", "").replace("_", "-")
    for prefix in ("nvidia", "amd", "geforce", "instinct", "rtx", "-"):
        short = short.removeprefix(prefix)
    short = {"a100-80gb": "a100", "a100-80g": "a100", "a100-40gb": "a100-40", "a100-40g": "a100-40"}.get(short, short)
    if short not in known:
        raise UsageError(f"no card {name!r} in the table: there are {', '.join(known)}; or give --memory 24GiB")
    return known[short]


def card_here() -> Card:
    """The first CUDA device of this machine, or its main memory. UsageError where packages to look with are missing."""
    try:
        import torch

        if torch.cuda.is_available():
            properties = torch.cuda.get_device_properties(0)
            name, memory = str(properties.name), int(properties.total_memory)
            try:
                return replace(card(name), name=name, memory=memory)
            except UsageError:
                return Card(name, memory)
    except ImportError:
        pass
    try:
        import psutil
    except ImportError:
        raise UsageError("no card given, and nothing here to look with: give --gpu 4090 or --memory 24GiB") from None
    return Card("this machine's main memory", int(psutil.virtual_memory().total))


def known_names() -> list[str]:
    return [name for entry in _models() for name in entry["names"]]


def known_model(name: str) -> KnownModel | None:
    """A model of the bundled table by its hub id, with or without its organisation; None if it is not there."""
    short = name.rsplit("/", 1)[-1].lower()
    for entry in _models():
        for each in entry["names"]:
            if each.lower() == short:
                return KnownModel(each, entry["config"], entry.get("extra_parameters", 0), entry.get("note", ""))
    return None


def model_in_folder(folder: Path) -> KnownModel:
    """The model whose `config.json` is in a folder.

    Raises:
        ModelError: there is none, or it is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"no config.json that can be read in {folder}: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return KnownModel(folder.resolve().name, config)


def similar_names(name: str) -> list[str]:
    """Names in the table that resemble this one."""
    short = {each.lower(): each for each in known_names()}
    return [short[each] for each in get_close_matches(name.rsplit("/", 1)[-1].lower(), short, n=3, cutoff=0.5)]


def _models() -> list[dict[str, Any]]:
    return list(json.loads((_PACKAGE / "models.json").read_text("utf-8")))

"""The bundled tables of graphics cards and of models, which need no network."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from suffice.errors import ModelError, UsageError
from suffice.memory.quantised_names import read_quantised_name

__all__ = [
    "Card",
    "KnownModel",
    "card",
    "card_here",
    "cards",
    "cards_of",
    "known_model",
    "known_names",
    "model_in_folder",
    "similar_names",
]

_PACKAGE = files("suffice.memory")
_BRANDS = re.compile(r"nvidia|amd|huawei|geforce|instinct|tesla|quadro|rtx|[^a-z0-9]")
_COUNTED = (re.compile(r"(?P<name>.+?)\s*[x×*]\s*(?P<n>\d+)"), re.compile(r"(?P<n>\d+)\s*[x×*]\s*(?P<name>.+)"))
_MOST_CARDS = 64


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
    link: float | None = None
    """Bytes per second between this card and others, both directions together."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model's `config.json`, as far as memory depends on it."""

    name: str
    config: Mapping[str, Any]
    extra_parameters: int = 0
    """Parameters that the config does not describe: those of an image encoder."""
    note: str = ""
    weight_bits: float | None = None
    """That its name says."""


def cards() -> dict[str, Card]:
    """All cards of the table, by the shortest of their names."""
    return {key: _card(row) for key, row in _table().items()}


def _table() -> dict[str, dict[str, Any]]:
    table = tomllib.loads((_PACKAGE / "cards.toml").read_text("utf-8"))
    return {key: row | {"key": key} for key, row in table.items()}


def _card(row: Mapping[str, Any]) -> Card:
    flops = row["cores"] * 4 * row["boost"] * 1e6 if "cores" in row else row.get("tflops", 0) * 1e12
    return Card(
        name=row["name"],
        memory=round(row["memory"] * 2**30),
        bandwidth=row.get("bandwidth", 0) * 1e9 or None,
        flops=flops or None,
        source=row["source"],
        link=row.get("link", 0) * 1e9 or None,
    )


def card(name: str) -> Card:
    """A card by its usual name: `4090`, `RTX 4090 D`, `A100-80GB`, `NVIDIA H100 80GB HBM3`.

    Raises:
        UsageError: there is none, with those there are.
    """
    table = _table()
    wanted = _plain(name)
    for row in table.values():
        if wanted in _spellings(row):
            return _card(row)
    close = get_close_matches(wanted, [_plain(key) for key in table], n=1, cutoff=0.75)
    meant = f", did you mean {close[0]}?" if close else "."
    raise UsageError(f"no card {name!r} in the table{meant} There are {', '.join(table)}; or give --memory 24GiB")


def cards_of(text: str) -> tuple[Card, int]:
    """A card and how many of it: `4090`, `4090 x2`, `8xh200`, `2 x RTX 4090`, `l40s*4`.

    Raises:
        UsageError: there is no such card, or their number is not 1 to 64.
    """
    text = text.strip().lower()
    readings = [(text, 1)]
    readings += [(each["name"], int(each["n"])) for each in (pattern.fullmatch(text) for pattern in _COUNTED) if each]
    for name, count in readings:
        try:
            found = card(name)
        except UsageError:
            continue
        if not 1 <= count <= _MOST_CARDS:
            raise UsageError(f"{count} cards: there may be 1 to {_MOST_CARDS}")
        return found, count
    return card(readings[min(1, len(readings) - 1)][0]), 1  # which says what there is


def _plain(name: str) -> str:
    """A card's name without brands, blanks and signs."""
    return _BRANDS.sub("", name.lower())


def _spellings(row: Mapping[str, Any]) -> set[str]:
    """A card's names, each also with its memory behind it, as 4090-24GB."""
    plain = {_plain(each) for each in (row["key"], row["name"], *row.get("names", ()))}
    return plain | {f"{each}{row['memory']}{unit}" for each in plain for unit in ("g", "gb")}


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
    """A model of the bundled table by its hub id, with or without its organisation, also where the name says how it is
    quantised; None if it is not there.

    Raises:
        ModelError: a GGUF whose quantisation is not said, or not known.
    """
    short = name.rsplit("/", 1)[-1]
    if found := _in_table(short):
        return found
    original, bits = read_quantised_name(short)
    found = _in_table(original)
    return replace(found, name=short, weight_bits=bits) if found else None


def _in_table(name: str) -> KnownModel | None:
    for entry in _models():
        for each in entry["names"]:
            if each.lower() == name.lower():
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

"""A length model as one file: numpy arrays without pickle, and what else there is as JSON among them."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffice.budget.length_model.calibration import LEVELS as CALIBRATED
from suffice.budget.length_model.calibration import MOST
from suffice.budget.length_model.distribution import BINS
from suffice.budget.length_model.features import BITS, FORM_NAMES, SEEN_BITS
from suffice.budget.length_model.history import MEMORY, Group, Groups
from suffice.budget.length_model.prompt_model import COLUMNS, LEVELS, PromptModel
from suffice.budget.length_model.trees import Forest
from suffice.errors import DataError

__all__ = ["FILE_NAME", "State", "packed", "read_card", "read_state", "write_state"]

FILE_NAME = "length_model.npz"
_FORMAT, _VERSION = "suffice length model", 1
_RANGES = {
    "mass": (0.0, 2 * MEMORY),
    "answers": (0.0, 2.0**53),
    "compared": (0.0, MEMORY),
    "advantage": (-3.0, 3.0),
    "bias": (-1.0, 1.0),
    "square": (0.0, 16.0),
}
_NUMBERS = tuple(_RANGES)
"""Of a group, with what `Group` keeps them within."""
_DAMAGE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class State:
    prompt: PromptModel | None
    groups: Groups
    card: dict[str, Any]


def write_state(
    path: Path, prompt: PromptModel | None, groups: Mapping[str, NDArray[Any]], capacity: int, card: Mapping[str, Any]
) -> Path:
    """Write a model to `path`, or to FILE_NAME in it where it is a folder (one without a suffix is made); `groups` is
    what `packed` made of its history.

    Raises:
        DataError: it cannot be written.
    """
    meta = {"format": _FORMAT, "version": _VERSION, "capacity": capacity, "card": dict(card)}
    arrays = dict(groups)
    if prompt is not None:
        meta["prompt"] = _prompt_numbers(prompt)
        arrays |= _prompt_arrays(prompt)
    arrays["meta"] = np.frombuffer(json.dumps(meta, ensure_ascii=False).encode(), np.uint8)
    if path.is_dir() or not path.suffix:
        path = path / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
            os.chmod(scratch, 0o644)
            os.replace(scratch, path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(f"the length model cannot be written to {path}: {error.strerror or error}") from None
    return path


def read_state(path: Path) -> State:
    """Raises DataError: the file is missing, damaged, or of a newer release."""
    arrays = _arrays(path)
    try:
        meta = _meta(arrays)
        groups = _groups(arrays, int(meta["capacity"]))
        prompt = _prompt(arrays, meta["prompt"]) if "prompt" in meta else None
        return State(prompt, groups, dict(meta["card"]))
    except DataError as error:
        raise DataError(f"{_file(path)}: {error}") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def read_card(path: Path) -> dict[str, Any] | None:
    """The card of the model in `path`, or None if there is no file.

    Raises:
        DataError: there is one, and it is damaged.
    """
    return read_state(path).card if _file(path).exists() else None


def _file(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _damaged(path: Path, error: Exception) -> DataError:
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return DataError(f"{_file(path)} is not a length model, or is damaged ({said}): train it again")


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    file = _file(path)
    if not file.is_file():
        raise DataError(f"there is no length model at {file}: `suffice fit` makes one")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _meta(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(arrays["meta"].tobytes().decode())
    if meta["format"] != _FORMAT:
        raise ValueError(f"format {meta['format']!r}")
    if meta["version"] > _VERSION:
        raise DataError(f"written by a newer release (version {meta['version']}, this one reads {_VERSION}): upgrade")
    return meta


def packed(groups: Groups) -> dict[str, NDArray[Any]]:
    """A copy of all groups, for a file: quick to make, so that no request waits for the file."""
    items = groups.items()
    numbers = [[getattr(group, name) for name in _NUMBERS] for _, group in items]
    arrays: dict[str, NDArray[Any]] = {
        "group_keys": np.frombuffer(b"".join(key for key, _ in items), np.uint8),
        "group_counts": np.array([group.counts for _, group in items], np.float32),
        "group_shifts": np.array([group.shift for _, group in items], np.float64),
        "group_numbers": np.array(numbers),
    }
    widths = (8, BINS, len(CALIBRATED), len(_NUMBERS))  # which empty arrays do not tell
    return {name: array.reshape(len(items), width) for (name, array), width in zip(arrays.items(), widths, strict=True)}


def _groups(arrays: Mapping[str, NDArray[Any]], capacity: int) -> Groups:
    if capacity < 1:
        raise ValueError(f"a capacity of {capacity} groups")
    groups = Groups(capacity, len(CALIBRATED))
    keys, counts, shifts, table = (arrays[f"group_{name}"] for name in ("keys", "counts", "shifts", "numbers"))
    _check("group_counts", counts, (len(keys), BINS))
    _check("group_shifts", shifts, (len(keys), len(CALIBRATED)))
    _check("group_numbers", table, (len(keys), len(_NUMBERS)))
    for name, values, low, high in (
        ("group_counts", counts, 0.0, 2 * MEMORY),
        ("group_shifts", shifts, -MOST, MOST),
        *((f"group_numbers, {name}", table[:, at], *_RANGES[name]) for at, name in enumerate(_NUMBERS)),
    ):
        if not np.all((values >= low) & (values <= high)):  # NaN is neither
            raise ValueError(f"{name} outside {low:g} to {high:g}")
    for key, count, shift, numbers in zip(keys, counts, shifts, table, strict=True):
        mass, answers, *rest = (float(number) for number in numbers)
        groups.put(key.tobytes(), Group(count.copy(), shift.copy(), mass, int(answers), *rest))
    return groups


def _prompt_numbers(prompt: PromptModel) -> dict[str, Any]:
    numbers = {name: getattr(prompt, name) for name in ("mean", "spread", "familiar", "rows")}
    return {"form": list(FORM_NAMES), "models": dict(prompt.models), **numbers}


def _prompt_arrays(prompt: PromptModel) -> dict[str, NDArray[Any]]:
    forest = prompt.forest
    return {
        "cell_weights": prompt.cell_weights.astype(np.float16),
        "ridge": prompt.ridge.astype(np.float16),
        "intercepts": prompt.intercepts,
        "shape": prompt.shape,
        "seen": np.packbits(prompt.seen),
        "tree_column": forest.column.astype(np.int16),
        "tree_threshold": forest.threshold,
        "tree_leaves": forest.leaves,
        "tree_start": forest.start,
    }


def _prompt(arrays: Mapping[str, NDArray[Any]], numbers: Mapping[str, Any]) -> PromptModel:
    if tuple(numbers["form"]) != FORM_NAMES:
        raise DataError("it reads prompts in a way that this release does not know: train it again")
    column = arrays["tree_column"].astype(np.int64)
    folds, trees, depth = column.shape
    shapes = {
        "cell_weights": (1 << BITS,),
        "ridge": (1 << BITS, folds),
        "intercepts": (folds,),
        "shape": LEVELS.shape,
        "seen": (1 << SEEN_BITS >> 3,),
        "tree_threshold": column.shape,
        "tree_leaves": (folds, trees, 1 << depth, 2),
        "tree_start": (folds, 2),
    }
    for name, shape in shapes.items():
        _check(name, arrays[name], shape)
    if column.min() < 0 or column.max() >= len(COLUMNS):
        raise ValueError("a tree asks for a number that does not exist")
    forest = Forest(column, arrays["tree_threshold"], arrays["tree_leaves"].astype(np.float32), arrays["tree_start"])
    return PromptModel(
        cell_weights=arrays["cell_weights"].astype(np.float32),
        ridge=arrays["ridge"].astype(np.float32),
        intercepts=arrays["intercepts"],
        forest=forest,
        shape=arrays["shape"],
        models={str(name): float(offset) for name, offset in numbers["models"].items()},
        mean=float(numbers["mean"]),
        spread=float(numbers["spread"]),
        seen=np.unpackbits(arrays["seen"]).astype(bool),
        familiar=float(numbers["familiar"]),
        rows=int(numbers["rows"]),
    )


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape or not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name} has the shape {array.shape} instead of {shape}")
    if not np.isfinite(array).all() and name != "tree_threshold":
        raise ValueError(f"{name} has numbers that are not finite")

"""Where the answers to a dataset go when `--output` does not say."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suffice.data import known_differences, known_of, sidecar_path
from suffice.errors import UsageError

__all__ = ["discard_empty", "latest_output", "new_output"]

_FOLDER = Path("output")


def new_output(specs: Sequence[str]) -> Path:
    """A file that does not exist yet: `output/infer-<dataset>-<time>.jsonl`."""
    stem = re.sub(r"(\.gz)?$", "", Path(specs[0].rpartition("#")[0] or specs[0]).name)
    name = re.sub(r"[^\w.-]+", "-", Path(stem).stem) or "dataset"
    more = f"-and-{len(specs) - 1}-more" if len(specs) > 1 else ""
    start = f"infer-{name}{more}-{time.strftime('%Y%m%d-%H%M%S')}"
    number, path = 1, _FOLDER / f"{start}.jsonl"
    while path.exists():
        number, path = number + 1, _FOLDER / f"{start}-{number + 1}.jsonl"
    return path


def latest_output(dataset: Mapping[str, Any], settings: Mapping[str, Any]) -> Path | None:
    """The newest of those files that holds answers to this dataset, made with these settings; None without one.

    Raises:
        UsageError: there are answers to this dataset, all of them made with other settings.
    """
    theirs = {path: known_of(path) for path in _FOLDER.glob("infer-*.jsonl")}
    ours = [path for path, known in theirs.items() if not known_differences(known.get("dataset", {}), dataset)]
    ours.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in ours:
        if not known_differences(theirs[path].get("settings", {}), settings):
            return path
    if not ours:
        return None
    changes = "; ".join(known_differences(theirs[ours[0]].get("settings", {}), settings))
    raise UsageError(
        f"{ours[0]} has the latest answers to this dataset, made with other settings: {changes}. Give the same "
        f"settings to continue it, or --output {ours[0]} to continue it with these; without --resume, a new file begins"
    )


def discard_empty(output: Path) -> None:
    """Remove a result file, and what is remembered beside it, if nothing was answered."""
    if output.exists() and output.stat().st_size == 0:
        output.unlink()
        sidecar_path(output).unlink(missing_ok=True)

"""The folders of runs and checkpoints: `output/vN-<time>/checkpoint-N`, with links `best` and `last`."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from suffice.errors import UsageError

__all__ = ["checkpoint_to_resume", "forget_after", "link", "new_run", "read_settings"]

ARGS = "args.json"
"""What a checkpoint was made with."""
LOG = "logging.jsonl"
"""What a run reported, a line per event."""
_STATE = "trainer_state.json"
_RUN = re.compile(r"v(\d+)-")


def new_run(output_dir: str | Path) -> Path:
    """Make the next `vN-<time>` folder.

    Raises:
        UsageError: the folder cannot be made.
    """
    parent = Path(output_dir).expanduser()
    number = 1 + max(_runs(parent), default=-1)
    folder = parent / f"v{number}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot write to --output_dir {str(output_dir)!r}: {error.strerror}") from error
    return folder


def checkpoint_to_resume(where: str, output_dir: str | Path) -> Path:
    """The checkpoint `where`, or the newest whole one of the run `where`; "" is the newest run in `output_dir`.

    Raises:
        UsageError: there is none.
    """
    if where:
        run = Path(where).expanduser()
        if not run.is_dir():
            raise UsageError(f"--resume: no folder {where!r}")
        if _is_whole(run):
            return run.resolve()
    else:
        if not (runs := _runs(Path(output_dir).expanduser())):
            raise UsageError(f"--resume: no run in {output_dir}; name its folder, or start one without --resume")
        run = runs[max(runs)]
    whole = next(filter(_is_whole, reversed(_checkpoints(run))), None)
    if whole is None:
        raise UsageError(f"--resume: {run} has no whole checkpoint (one is saved every --save_steps): start anew")
    return whole.resolve()


def read_settings(checkpoint: Path) -> dict[str, Any]:
    """`args.json` of a checkpoint.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return dict(json.loads((checkpoint / ARGS).read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {checkpoint / ARGS}: {error}") from error


def forget_after(checkpoint: Path) -> None:
    """Undo what a run did after a checkpoint: later checkpoints (which are broken) and log lines of later steps."""
    run, step = checkpoint.parent, _step(checkpoint)
    for other in _checkpoints(run):
        if _step(other) > step:
            shutil.rmtree(other)
    log = run / LOG
    if log.is_file():
        kept = [line for line in log.read_text("utf-8").splitlines() if _logged_step(line) <= step]
        fresh = log.with_suffix(".tmp")
        fresh.write_text("".join(line + "\n" for line in kept), "utf-8")
        fresh.replace(log)


def link(run: Path, name: str, checkpoint: Path) -> None:
    """Point `run/name` to a checkpoint, in one step. On file systems without links there is none."""
    fresh = run / f".{name}.new"
    with suppress(OSError):
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(checkpoint.name, target_is_directory=True)
        fresh.replace(run / name)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _runs(parent: Path) -> dict[int, Path]:
    """The runs' folders by their numbers."""
    folders = [path for path in parent.glob("v*-*") if path.is_dir()]
    return {int(match[1]): path for path in folders if (match := _RUN.match(path.name))}


def _checkpoints(run: Path) -> list[Path]:
    found = [path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(found, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _is_whole(checkpoint: Path) -> bool:
    """The trainer's state is written last, so a checkpoint in which it can be read has everything."""
    try:
        json.loads((checkpoint / _STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _logged_step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # half a line, from a process that was killed

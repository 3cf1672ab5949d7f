"""The small file beside a result file: which dataset its answers belong to, and a lock while they are written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from suffice.errors import DataError

__all__ = ["Sidecar", "known_differences", "known_of", "sidecar_path"]

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class Sidecar:
    """`<result file>.meta.json`, locked from the moment it is opened until it is closed or the process dies."""

    def __init__(self, result_path: Path) -> None:
        """
        Raises:
            DataError: another process writes this result file, or the folder cannot be written.
        """
        self.path = sidecar_path(result_path)
        self._results = result_path
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Opened once and written in place: a file that is replaced would take its lock with it.
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise DataError(
                f"{result_path} cannot be written: {error.strerror or error} ({error.filename or self.path})"
            ) from None
        if not _lock(self._file):
            owner = self._read().get("pid", "unknown")
            self._file.close()
            raise DataError(f"{result_path} is being written by another process (pid {owner}): wait, or stop that one")

    def check(self, dataset: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Notices about settings that differ from those of the answers that are there.

        Raises:
            DataError: the answers belong to another dataset, or it is not known to which.
        """
        known = self._read()
        if "dataset" not in known:
            raise DataError(
                f"{self.path} does not say which dataset the answers in {self._results.name} belong to: "
                "choose another output, or --overwrite"
            )
        if known_differences(known["dataset"], dataset):
            raise DataError(
                f"{self._results} holds answers to another dataset (its content, #N, seed or column names differ): "
                "resume with the same one, choose another output, or --overwrite"
            )
        changes = known_differences(known.get("settings", {}), settings)
        return [f"the answers that are there were made with other settings: {'; '.join(changes)}"] if changes else []

    def write(self, dataset: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Save these in one write, so that a crash leaves either the old or the new."""
        known = {"version": 1, "pid": os.getpid(), "dataset": dict(dataset), "settings": dict(settings)}
        content = json.dumps(known, ensure_ascii=False, indent=1, default=str).encode("utf-8", "replace") + b"\n"
        self._file.seek(0)
        self._file.write(content)
        self._file.flush()
        self._file.truncate(len(content))
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _read(self) -> dict[str, Any]:
        """What is remembered; {} if nothing readable is. A longer, older text behind ours is not looked at."""
        self._file.seek(0)
        return _parsed(self._file.read())


def known_of(result_path: Path) -> dict[str, Any]:
    """What is remembered beside a result file: `dataset`, `settings`; {} if nothing readable is."""
    try:
        return _parsed(sidecar_path(result_path).read_bytes())
    except OSError:
        return {}


def known_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """ "temperature is 0.7 (was 0)" for each value that differs once both are JSON."""
    now = json.loads(json.dumps(dict(now), default=str))
    names = [*now, *(name for name in before if name not in now)]
    changed = (name for name in names if before.get(name) != now.get(name))
    return [f"{name} is {now.get(name)} (was {before.get(name)})" for name in changed]


def sidecar_path(result_path: Path) -> Path:
    return result_path.with_name(result_path.name + ".meta.json")


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        known, _ = json.JSONDecoder().raw_decode(content.decode("utf-8", "replace"))
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _lock(file: IO[bytes]) -> bool:
    """Whether the lock was taken; also true where the system or the file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _NO_LOCKS_HERE
    return True

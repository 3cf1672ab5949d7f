"""The result file of a batch run: one JSON line per answer, written as it comes, which survives a crash at any moment.

`<path>.meta.json` beside it says which dataset and settings the answers belong to, and is locked while a process
writes. Knows nothing about what is in an answer, except that a failed one has an `error`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from suffice.data.indices import IndexSet
from suffice.data.result_lines import BrokenLine, encode_line, scan
from suffice.data.sidecar import Sidecar
from suffice.errors import DataError

__all__ = ["ResultWriter", "read_results"]

_FSYNC_SECONDS = 5.0
"""A written line survives the death of the process at once, and a power cut after at most this long."""
_NO_LINE = -1


class ResultWriter:
    """Append-only JSON lines with one row's answer each; the newest line of an index counts. For one thread."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dataset: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        retry_failed: bool = True,
    ) -> None:
        """Open the file, and with `resume` find out what is done and repair what a crash left behind.

        Args:
            path: the result file; missing folders are made.
            dataset: fingerprint of the dataset (`dataset_fingerprint`). Resuming with another one is an error.
            settings: what else the answers depend on. Resuming with others is a notice.
            resume: continue the file if it is there.
            overwrite: start anew if it is there.
            retry_failed: rows that ended with an error do not count as finished when resuming.

        Raises:
            DataError: the file is there and neither `resume` nor `overwrite` is set, it belongs to another dataset, is
                damaged before its end, is being written by another process, or cannot be written.
        """
        if resume and overwrite:
            raise DataError("--resume keeps the answers that are there and --overwrite removes them: choose one")
        self.path = Path(os.path.realpath(path))
        self.finished = IndexSet()
        """Indices of rows that need no more work."""
        self.failed = IndexSet()
        """Of rows whose newest line has an error."""
        self.notices: list[str] = []
        self._retry_failed = retry_failed
        self._scratch = self.path.with_name(f".{self.path.name}.compacting")
        self._synced_at = time.monotonic()
        self._in_order = True
        self._last_index = -1
        self._has_answers(allowed=resume or overwrite)  # refused before anything is made
        self._sidecar = Sidecar(self.path)
        try:
            # Asked again under the lock: another process may have written and finished in between.
            continues = self._has_answers(allowed=resume or overwrite) and resume
            self._file = self._start(dataset or {}, settings or {}, continues=continues)
        except BaseException:
            self._sidecar.close()
            raise

    def write(self, index: int, result: Mapping[str, Any]) -> None:
        """Append the answer of row `index`. When this returns, killing the process cannot lose it.

        Args:
            index: 0-based position of the row in the dataset.
            result: what to write, as JSON; a key `error` with a value marks a failed row. `index` is added.

        Raises:
            DataError: the disk is full or the file cannot be written; what was written before is safe.
            ValueError: `result` has a key `index` of its own.
        """
        if "index" in result:
            raise ValueError('a result may not have a key "index": it is the row\'s position, which is added')
        line = encode_line({"index": index, **result})
        try:
            self._append(line)
            if time.monotonic() - self._synced_at >= _FSYNC_SECONDS:
                self._sync()
        except OSError as error:
            raise self._unwritable(error) from None
        self._note(index, failed=result.get("error") is not None)

    def compact(self) -> None:
        """Rewrite the file in input order with one line per index, atomically; nothing to do if it is so already.

        Raises:
            DataError: the disk is full or the file cannot be written; the file is then as it was.
        """
        if self._in_order:
            return
        scratch = self._scratch
        try:
            self._sync()
            with scratch.open("wb") as target:
                for line in _newest_lines(self.path):
                    target.write(line)
                target.flush()
                os.fsync(target.fileno())
            os.replace(scratch, self.path)
            _sync_folder(self.path.parent)
            self._file.close()
            self._file = self.path.open("ab", buffering=0)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise self._unwritable(error) from None
        self._in_order = True

    def close(self) -> None:
        """Write everything to the disk and release the file. May be called twice.

        Raises:
            DataError: the disk reports an error.
        """
        if self._file.closed:
            return
        try:
            self._sync()
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            self._file.close()
            self._sidecar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _has_answers(self, *, allowed: bool) -> bool:
        """Whether there are answers already; refuses what must not be written over."""
        if self.path.is_dir():
            raise DataError(f"{self.path} is a folder: give the name of a file in it")
        if self.path.exists() and not self.path.is_file():
            raise DataError(f"{self.path} is not a regular file: results need one that can be read back")
        there = self.path.exists() and self.path.stat().st_size > 0
        if there and not allowed:
            raise DataError(f"{self.path} has answers already: --resume continues it, --overwrite starts anew")
        return there

    def _start(self, dataset: Mapping[str, Any], settings: Mapping[str, Any], *, continues: bool) -> IO[bytes]:
        if continues:
            self.notices += self._sidecar.check(dataset, settings)
        try:
            self._scratch.unlink(missing_ok=True)
            if continues:
                self._recover()
            else:
                # Emptied before the sidecar changes: old answers never stand beside the new fingerprint.
                self.path.open("wb").close()
            self._sidecar.write(dataset, settings)
            return self.path.open("ab", buffering=0)
        except OSError as error:
            raise self._unwritable(error) from None

    def _recover(self) -> None:
        """Find out what is done; cut off the torn end that a crash in the middle of a write leaves."""
        broken: BrokenLine | None = None
        good_end = 0
        for line in scan(self.path):
            if isinstance(line, BrokenLine):
                broken = broken or line
            elif broken is not None:
                raise DataError(
                    f"{self.path}, line {broken.number} is not an answer ({broken.reason}), and good ones follow: "
                    "delete that line and resume again"
                )
            else:
                good_end = line.end
                self._note(line.index, failed=line.failed)
        if broken is not None:
            os.truncate(self.path, good_end)
            self.notices.append(f"the last line of {self.path} was torn by a crash: removed, its row is run again")
        else:
            with self.path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def _note(self, index: int, *, failed: bool) -> None:
        self._in_order = self._in_order and index > self._last_index
        self._last_index = max(index, self._last_index)
        (self.failed.add if failed else self.failed.discard)(index)
        if failed and self._retry_failed:
            self.finished.discard(index)
        else:
            self.finished.add(index)

    def _append(self, line: bytes) -> None:
        """The whole line or nothing: half a line would spoil the next one."""
        size = os.fstat(self._file.fileno()).st_size
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {error.strerror or error}; the answers that are in it are safe: "
            "put that right and continue with --resume"
        )


def read_results(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The answers in a result file, in the file's order; a torn last line is left out.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        for line in scan(Path(path)):
            if not isinstance(line, BrokenLine):
                yield json.loads(line.content)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _newest_lines(path: Path) -> Iterator[bytes]:
    """The newest line of each index, in the order of the indices. Memory: 8 bytes for each index."""
    starts = array("q")
    for line in scan(path):
        if isinstance(line, BrokenLine):
            continue
        if line.index >= len(starts):
            starts.extend([_NO_LINE] * (line.index + 1 - len(starts)))
        starts[line.index] = line.start
    with path.open("rb") as file:
        for start in starts:
            if start != _NO_LINE:
                file.seek(start)
                yield file.readline()


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Finds the file that a user means by `path` or `path#N`, and the reader for its format."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import NamedTuple

from suffice.data.encodings import looks_like
from suffice.data.readers import (
    DelimitedReader,
    FileReader,
    JsonLinesReader,
    JsonReader,
    ParquetReader,
    TextReader,
    open_bytes,
)
from suffice.data.rows import COLUMNS
from suffice.errors import DataError

__all__ = ["DatasetFile", "find_file", "reader_for"]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")
_HEAD_BYTES = 1 << 16
_PACKED = {b"PK\x03\x04": "zip (or Excel)", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class DatasetFile(NamedTuple):
    """A file that exists, and how many of its rows are to be read (None: all)."""

    path: Path
    sample: int | None


def find_file(spec: str) -> DatasetFile:
    """The file that `path` or `path#N` names. A file whose own name ends in `#N` comes first.

    Raises:
        DataError: there is no such file (with what is there instead), or N is not a number of rows.
    """
    if not spec.strip():
        raise DataError("the dataset's name is empty: give a path, or path#N for N rows of it")
    path, sample = Path(spec).expanduser(), None
    if not path.exists() and "#" in spec:
        name, _, count = spec.rpartition("#")
        stem = Path(name).expanduser()
        if count.isdecimal():
            path, sample = stem, int(count)
        elif name and stem.exists():
            raise DataError(f'"{spec}": after # comes the number of rows to sample, as in {name}#500')
    if sample == 0:
        raise DataError(f'"{spec}" asks for 0 rows: give at least 1, or leave out #0 for all')
    if path.is_file():
        return DatasetFile(path, sample)
    if path.is_dir():
        raise DataError(f"{path} is a folder, a dataset is a file; {_what_is_in(path, '')}")
    if path.exists():
        raise DataError(f"{path} is a pipe or a device, a dataset is a file that can be read twice: save it first")
    raise DataError(_missing(path))


def _missing(path: Path) -> str:
    folder = path.parent
    if folder.is_dir():
        return f'no file "{path}"; {_what_is_in(folder, path.name)}'
    return f'no file "{path}": there is no folder "{folder}" (datasets are local files: download it first)'


def _what_is_in(folder: Path, wanted: str, most: int = 5) -> str:
    try:
        there = (path for path in folder.iterdir() if path.name.removesuffix(".gz").endswith(SUFFIXES))
        names = sorted(path.name for path in there if path.is_file())
    except OSError as error:
        return f"{folder}/ cannot be listed ({error.strerror})"
    if not names:
        return f"{folder}/ has no {', '.join(SUFFIXES)} file"
    similar = difflib.get_close_matches(wanted, names, n=most, cutoff=0.5)
    shown = similar + [name for name in names if name not in similar][: most - len(similar)]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"in {folder}/ there is: {', '.join(shown)}{more}"


def reader_for(path: Path) -> FileReader:
    """The reader for this file, by its first bytes where they settle it, then by its extension, then by its content.

    Raises:
        DataError: the file is empty, packed in a way that is not read, not UTF-8, or of an unknown format.
    """
    try:
        with open_bytes(path) as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if head.startswith(b"PAR1") or suffix in (".parquet", ".pq"):
        return ParquetReader(path)
    _refuse_binary(path, head)
    _refuse_encoding(path, head)
    if suffix in (".csv", ".tsv", ".tab"):
        return DelimitedReader(path, None if suffix == ".csv" else "\t")
    if suffix in (".txt", ".text"):
        return TextReader(path)
    if suffix in (".json", ".jsonl", ".ndjson") or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        by_lines = _is_json_lines(head, named_so=suffix in (".jsonl", ".ndjson"))
        return JsonLinesReader(path) if by_lines else JsonReader(path)
    if _has_known_header(head):
        return DelimitedReader(path)
    raise DataError(f"{path}: cannot tell its format; give it one of these endings: {', '.join(SUFFIXES)} (or .gz)")


def _refuse_binary(path: Path, head: bytes) -> None:
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise DataError(f"{path} is a {name} file: unpack it, or save it as {', '.join(SUFFIXES)}")
    if b"\0" in head:
        raise DataError(f"{path} is a binary file; datasets are {', '.join(SUFFIXES)} (or .gz)")
    if not head.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path} is empty")


def _refuse_encoding(path: Path, head: bytes) -> None:
    """Refuse a file that is in another encoding throughout; where single rows are, they are errors by themselves."""
    lines = [line for line in head.split(b"\n")[:-1] or [head] if not line.isascii()]
    broken = [line for line in lines if not _is_utf8(line)]
    if len(broken) < 2 or 2 * len(broken) <= len(lines) or not (found := looks_like(b"\n".join(broken))):
        return
    name, codec = found
    raise DataError(f"{path} is not UTF-8, it looks like {name}: convert it with `iconv -f {codec} -t UTF-8`")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_json_lines(head: bytes, *, named_so: bool) -> bool:
    """Whether each line is a value by itself. The first line tells: `[` alone opens an array over many lines."""
    lines = [line.strip() for line in head.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    first = lines[0]
    if not first.startswith(b"[") and named_so:
        return first != b"{"
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return len(lines) > 1 or (named_so and not first.startswith(b"["))


def _has_known_header(head: bytes) -> bool:
    first = head.removeprefix(b"\xef\xbb\xbf").splitlines()[0].decode("utf-8", "replace").lower()
    known = {name for names in COLUMNS.values() for name in names}
    return any({cell.strip().strip('"') for cell in first.split(mark)} & known for mark in ",;\t" if mark in first)

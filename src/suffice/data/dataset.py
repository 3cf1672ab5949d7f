"""Reads a dataset: conversations and unusable rows in file order, in bounded memory where the format allows."""

from __future__ import annotations

import hashlib
import itertools
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suffice.data.files import DatasetFile, find_file, reader_for
from suffice.data.readers import FileReader, ParquetReader
from suffice.data.rows import check_columns, read_row
from suffice.data.types import Conversation, DatasetSummary, RowProblem, UnusableRow
from suffice.errors import DataError

__all__ = [
    "DatasetRows",
    "OpenDataset",
    "count_rows",
    "dataset_fingerprint",
    "open_dataset",
    "read_dataset",
    "read_raw",
]

_COUNT_LIMIT_BYTES = 1 << 29
"""Above this size a file is not read a first time only to show a progress bar with an end."""
_DIGEST_BYTES = 1 << 20
"""How much of the start, the middle and the end of a file goes into its fingerprint."""


class DatasetRows(Iterator[Conversation | UnusableRow]):
    """The rows of a dataset, one at a time; `summary` counts those that were read so far."""

    def __init__(self, rows: Iterator[Conversation | UnusableRow], summary: DatasetSummary) -> None:
        self._rows = rows
        self.summary = summary

    def __next__(self) -> Conversation | UnusableRow:
        row = next(self._rows)
        self.summary.add(row)
        return row


def read_dataset(spec: str, *, seed: int = 0, columns: Mapping[str, str] | None = None) -> DatasetRows:
    """Read `path`, or N rows sampled from it with `path#N` (the file's order is kept).

    Args:
        spec: path of a json, jsonl, csv, tsv, parquet or txt file (text formats also as .gz), with `#N` for a sample.
        seed: of the sample; the same seed takes the same rows.
        columns: the user's column names mapped to ours ({"ask": "query"}).

    Returns:
        An iterator over `Conversation` and, in the place of a row that cannot be used, `UnusableRow`. Its `summary`
        says what was found.

    Raises:
        DataError: at once, when the file is missing, empty, of no known format, or broken as a whole; while reading,
            when the file turns out to be damaged (a truncated .gz).
    """
    if columns and (problem := check_columns(columns)):
        raise DataError(problem)
    opened = open_dataset(spec, seed=seed)
    return DatasetRows(_rows(opened, dict(columns or {})), DatasetSummary(notes=opened.notes))


@dataclass(frozen=True, slots=True)
class OpenDataset:
    """A file whose rows are about to be read, before any of them is understood."""

    path: Path
    reader: FileReader
    """Makes a row of a record."""
    records: Iterator[tuple[int, Any]]
    """1-based line (or row) number and record, in file order; a sample's only where one is asked for."""
    notes: list[str]


def open_dataset(spec: str, *, seed: int = 0) -> OpenDataset:
    """The records of `path` or `path#N`, for callers that make something else than conversations of the rows.

    Raises DataError as `read_dataset` does.
    """
    opened = _opened(spec, seed)
    first = next(opened.records, None)  # a broken header or document is an error now, not in the middle of a run
    if first is None:
        raise DataError(f"{opened.path} has no rows")
    return replace(opened, records=itertools.chain([first], opened.records))


def read_raw(spec: str, notes: list[str], *, seed: int = 0) -> Iterator[Mapping[str, Any] | RowProblem]:
    """The rows of a dataset as they lie in the file, and why where one cannot be parsed; `spec` as in `read_dataset`.

    Notices for the user are added to `notes`. Raises DataError as `read_dataset` does.
    """
    opened = _opened(spec, seed)
    notes += opened.notes
    for _, record in opened.records:
        try:
            row = opened.reader.parse(record)
        except RowProblem as problem:
            yield problem
        else:
            yield row if isinstance(row, Mapping) else {"prompt": row}


def count_rows(spec: str) -> int | None:
    """Rows that `read_dataset` will give for this, errors included; None where counting would cost too much.

    Raises:
        DataError: the file is missing or cannot be read.
    """
    file = find_file(spec)
    reader = reader_for(file.path)
    cheap = isinstance(reader, ParquetReader) or file.path.stat().st_size <= _COUNT_LIMIT_BYTES
    if file.sample is None and not cheap:
        return None
    total = _guarded_count(reader, file.path)
    return total if file.sample is None else min(total, file.sample)


def dataset_fingerprint(spec: str, *, seed: int = 0, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What identifies a dataset, as JSON: size, a digest of parts of the file, and how it is read.

    The file's name is not included, so that a folder can be moved.
    """
    path, sample = find_file(spec)
    size = path.stat().st_size
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for offset in sorted({0, max(0, size // 2 - _DIGEST_BYTES // 2), max(0, size - _DIGEST_BYTES)}):
            file.seek(offset)
            digest.update(file.read(_DIGEST_BYTES))
    sampled = {} if sample is None else {"sample": sample, "seed": seed}
    return {"bytes": size, "digest": digest.hexdigest(), "columns": dict(columns or {}), **sampled}


def _opened(spec: str, seed: int) -> OpenDataset:
    file = find_file(spec)
    reader = reader_for(file.path)
    notes: list[str] = []
    records = _guarded(reader, file.path)
    if file.sample is not None:
        records = _sampled(records, _guarded_count(reader, file.path), file, seed, notes)
    return OpenDataset(file.path, reader, records, notes)


def _rows(opened: OpenDataset, columns: dict[str, str]) -> Iterator[Conversation | UnusableRow]:
    source, unseen = str(opened.path), set(columns)
    for index, (line, record) in enumerate(opened.records):
        row: object = None
        try:
            row = opened.reader.parse(record)
            if isinstance(row, Mapping):
                unseen.difference_update(row)
            parsed = read_row(row, columns)
        except RowProblem as problem:
            given = row if isinstance(row, Mapping) else None
            yield UnusableRow(index, line, str(problem), source=source, unit=opened.reader.unit, row=given)
        else:
            original = row if isinstance(row, Mapping) else {"prompt": row}
            yield Conversation(
                messages=parsed.messages,
                answer=parsed.answer,
                format=parsed.format,
                index=index,
                line=line,
                row=original,
                source=source,
                unit=opened.reader.unit,
            )
    opened.notes.extend(f'the column "{name}" is in no row of {source}' for name in sorted(unseen))


def _sampled(
    records: Iterator[tuple[int, Any]], total: int, file: DatasetFile, seed: int, notes: list[str]
) -> Iterator[tuple[int, Any]]:
    """N records chosen at random, in file order. Memory grows with N, not with the file."""
    wanted = file.sample or total
    if wanted > total:
        notes.append(f"{wanted} rows of {file.path} were asked for and it has {total}: all are used")
    if wanted >= total:
        return records
    chosen = sorted(random.Random(seed).sample(range(total), wanted))
    return _at(records, chosen)


def _at(records: Iterator[tuple[int, Any]], positions: list[int]) -> Iterator[tuple[int, Any]]:
    wanted = iter(positions)
    position = next(wanted)
    for number, record in enumerate(records):
        if number == position:
            yield record
            if (position := next(wanted, -1)) < 0:
                return


def _guarded(reader: FileReader, path: Path) -> Iterator[tuple[int, Any]]:
    """The reader's records; damage to the file becomes a DataError that says how far it could be read."""
    line = 0
    try:
        for line, record in reader.records():
            yield line, record
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read after {reader.unit} {line}: {error}") from None


def _guarded_count(reader: FileReader, path: Path) -> int:
    try:
        return reader.count()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None

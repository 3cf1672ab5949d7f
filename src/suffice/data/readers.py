"""One reader per file format, each giving records in order with their place. Knows nothing about conversations."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

from suffice.data.encodings import AsUtf8, not_utf8, unicode_codec
from suffice.data.types import RowProblem, Unit
from suffice.errors import DataError, first_line

__all__ = [
    "DelimitedReader",
    "FileReader",
    "JsonLinesReader",
    "JsonReader",
    "ParquetReader",
    "TextReader",
    "open_bytes",
]

_BOM = b"\xef\xbb\xbf"
_CSV_FIELD_LIMIT = 1 << 24
"""Characters in one CSV field. Python's own limit (131,072) is too low for long documents; without any, a quote that
is never closed would swallow a whole file."""
_PARQUET_BATCH = 1024
"""Rows converted to Python at a time."""
_NEXT = re.compile(r"\s*,?\s*")  # between two JSON values
_CONTAINERS = ("data", "rows", "examples", "instances", "items", "records", "samples", "train", "validation", "test")
"""Where a JSON object that is a whole dataset keeps its list of rows."""


class FileReader(ABC):
    """The records of one file. Reading may raise OSError, EOFError or DataError when the file itself is at fault."""

    unit: Unit

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def records(self) -> Iterator[tuple[int, Any]]:
        """1-based line (or row) number and the record as it lies in the file; blank lines are not records."""

    def parse(self, record: Any) -> object:
        """The record's value: a mapping or a string, if the row is in order.

        Raises:
            RowProblem: this record cannot be parsed.
        """
        return record

    def count(self) -> int:
        return sum(1 for _ in self.records())


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if it is a gzip file (whatever its name), and as UTF-8 if it is UTF-16 or UTF-32."""
    file = path.open("rb")
    if file.peek(2)[:2] == b"\x1f\x8b":
        file.close()
        file = io.BufferedReader(gzip.GzipFile(path), 1 << 20)
    codec = unicode_codec(file.peek(4)[:4])
    return cast(IO[bytes], file if codec is None else io.BufferedReader(AsUtf8(file, codec), 1 << 20))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """All lines with their number and line end, the byte order mark removed."""
    with open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            yield number, line.removeprefix(_BOM) if number == 1 else line


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise RowProblem(not_utf8(line, error.start)) from None


def _short(error: ValueError | RecursionError) -> str:
    """Without the advice to programmers."""
    return first_line(error).partition(";")[0]


def _message(error: json.JSONDecodeError) -> str:
    return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


class _LineReader(FileReader):
    """Files in which a record is a line."""

    unit = "line"

    def records(self) -> Iterator[tuple[int, bytes]]:
        return ((number, line) for number, line in _lines(self.path) if not line.isspace() and line)


class TextReader(_LineReader):
    """txt: one prompt a line."""

    def parse(self, record: bytes) -> str:
        return _decoded(record).rstrip("\r\n")


class JsonLinesReader(_LineReader):
    """jsonl: one JSON object a line."""

    def parse(self, record: bytes) -> object:
        text = _decoded(record).strip()
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if text.endswith(",") and error.msg == "Extra data" and error.pos == len(text) - 1:
                return json.loads(text[:-1])  # an array that has lost its brackets
            near = text[max(0, error.pos - 15) : error.pos + 15].strip()
            raise RowProblem(f"{_message(error)}, near {near!r}") from None
        except (ValueError, RecursionError) as error:
            raise RowProblem(f"not valid JSON: {_short(error)}") from None


class JsonReader(FileReader):
    """json: an array of rows, or an object that holds one under `data`, `rows`, ...; read as a whole."""

    unit = "row"

    def records(self) -> Iterator[tuple[int, object]]:
        return iter(enumerate(self._rows, 1))

    @cached_property
    def _rows(self) -> list[object]:
        with open_bytes(self.path) as file:
            content = file.read().removeprefix(_BOM)
        try:
            document = _document(content.decode())
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise DataError(f"{self.path}, line {line}: {not_utf8(content, error.start)}") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path}, line {error.lineno}: {_message(error)}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: not valid JSON: {_short(error)}") from None
        return self._rows_of(document)

    def _rows_of(self, document: object) -> list[object]:
        if isinstance(document, list):
            return document
        if not isinstance(document, dict):
            raise DataError(f"{self.path} holds a single {type(document).__name__}, expected an array of rows")
        lists = [name for name in _CONTAINERS if isinstance(document.get(name), list)]
        if len(lists) > 1:
            raise DataError(f"{self.path} holds several lists of rows ({', '.join(lists)}): put each into its own file")
        return cast(list[object], document[lists[0]]) if lists else [document]


def _document(text: str) -> object:
    """The document; objects one after the other, each over several lines as `jq` writes them, are an array."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise
    decoder, values, place = json.JSONDecoder(), [], 0
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        values.append(value)
        place = _NEXT.match(text, place).end()  # type: ignore[union-attr]
    return values


class DelimitedReader(FileReader):
    """csv and tsv with a header line. Quoted cells may hold line breaks."""

    unit = "line"

    def __init__(self, path: Path, delimiter: str | None = None) -> None:
        """`delimiter` None takes the comma, or `;` or tab where the header has no comma."""
        super().__init__(path)
        self.delimiter = delimiter or self._delimiter_of_header()
        self._header: list[str] = []

    def records(self) -> Iterator[tuple[int, list[str] | csv.Error]]:
        csv.field_size_limit(max(csv.field_size_limit(), _CSV_FIELD_LIMIT))
        # Strict: a stray quote is an error rather than cells that quietly run together.
        text = (line.decode("utf-8", "surrogateescape") for _, line in _lines(self.path))
        reader = csv.reader(text, delimiter=self.delimiter, strict=True)
        records = self._numbered(reader)
        for line, cells in itertools.islice(records, 1):
            self._header = self._checked_header(line, cells)
        yield from records

    def parse(self, record: list[str] | csv.Error) -> dict[str, str]:
        if isinstance(record, csv.Error):
            raise RowProblem(_csv_message(record))
        if len(record) != len(self._header):
            raise RowProblem(f"{len(record)} cells, and the header has {len(self._header)}")
        for cell in record:
            _decoded(cell.encode("utf-8", "surrogateescape"))
        return dict(zip(self._header, record, strict=True))

    def _numbered(self, reader: Any) -> Iterator[tuple[int, list[str] | csv.Error]]:
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                last = f" (lines {line} to {reader.line_num})" if reader.line_num > line else ""
                yield line, csv.Error(f"{error}{last}")
                continue
            if cells:
                yield line, cells

    def _checked_header(self, line: int, cells: list[str] | csv.Error) -> list[str]:
        try:
            if isinstance(cells, csv.Error):
                raise RowProblem(_csv_message(cells))
            names = [_decoded(cell.encode("utf-8", "surrogateescape")).strip() for cell in cells]
        except RowProblem as problem:
            raise DataError(f"{self.path}, line {line} (the header): {problem}") from None
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise DataError(f"{self.path}: the header has two columns named {', '.join(twice)}: rename one")
        return [name or f"column {number}" for number, name in enumerate(names, 1)]

    def _delimiter_of_header(self) -> str:
        header = next((line for _, line in _lines(self.path) if line.strip()), b"")
        return next((mark for mark in ",;\t" if mark.encode() in header), ",")


def _csv_message(error: csv.Error) -> str:
    """What is wrong, in words for people who do not write Python."""
    said = str(error)
    if said.startswith("new-line character"):
        return "not valid CSV: a line ends with a carriage return alone: save the file with the usual line ends"
    if said.startswith("unexpected end of data"):
        return f"not valid CSV: a quote is opened and never closed{said.removeprefix('unexpected end of data')}"
    return f"not valid CSV: {said} (a quote inside a quoted cell is written twice)"


class ParquetReader(FileReader):
    """parquet, in batches."""

    unit = "row"

    def records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        file = self._open()
        import pyarrow as pa

        number = 0
        try:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: damaged after row {number}: {first_line(error)}") from None
        finally:
            file.close()

    def count(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    def _open(self) -> Any:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise DataError(f"{self.path}: reading parquet needs pyarrow: pip install 'suffice[data]'") from None
        try:
            return pq.ParquetFile(self.path)
        except pa.ArrowException as error:
            raise DataError(f"{self.path} is not a parquet file: {first_line(error)}") from None

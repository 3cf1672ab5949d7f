"""From files to length records: counts that the rows give are used as they are, the rest is counted in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from suffice.data.dataset import open_dataset
from suffice.data.files import SUFFIXES, find_file
from suffice.data.finish_words import finish_reason_of
from suffice.data.rows import check_columns, read_row
from suffice.data.token_columns import at_path, flattened, is_runaway, token_count
from suffice.data.types import RowProblem, Turn
from suffice.errors import DataError
from suffice.profiling.columns import TARGETS, Layout
from suffice.profiling.records import LengthRecord, SourceSummary

__all__ = ["DEFAULT_GROUPS", "LengthReader", "TokenCounter", "find_sources"]

DEFAULT_GROUPS = ("file", "model", "category", "language", "tier", "type")
"""Columns that a measurement is split by when nothing else is asked for."""
_BATCH = 256  # rows whose texts are counted together
_LOG_SUFFIXES = (*SUFFIXES, ".log", ".pq")
_LANGUAGE_HEAD = 80
"""Characters of a prompt by which its language is recognised; more would take longer than all the rest."""
_SHOWN = 60  # characters of a group's name


class TokenCounter(Protocol):
    """Counts tokens of texts, many at a time."""

    def prompts(self, conversations: Sequence[Sequence[Turn]]) -> list[int | None]:
        """Tokens of each conversation as the model sees it; None for one that the chat template refuses."""

    def answers(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each answer, the one that ends it included."""


class _Uncounted(NamedTuple):
    """A record whose texts wait to be counted."""

    record: LengthRecord
    messages: tuple[Turn, ...] | None
    answer: str | None
    place: str


def find_sources(spec: str) -> tuple[list[str], list[str]]:
    """The files that a path stands for: itself, or every data file in a folder and below, and notes about others.

    Raises:
        DataError: there is no such path, or a folder has nothing to read.
    """
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        find_file(spec)
        return [spec], []
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    paths = [path for path in paths if not path.name.endswith(".meta.json")]  # beside result files
    chosen = [path for path in paths if path.name.lower().removesuffix(".gz").endswith(_LOG_SUFFIXES)]
    if not chosen:
        raise DataError(f"{folder}/ has no {', '.join(_LOG_SUFFIXES)} file, nor has a folder in it")
    left = [str(path.relative_to(folder)) for path in paths if path not in chosen]
    shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
    return [str(path) for path in chosen], [f"files in {folder}/ that are not data: {shown}"] if left else []


@dataclass(slots=True)
class LengthReader:
    """Reads files as length records; `summary` counts what was found so far."""

    groups: tuple[str, ...] = DEFAULT_GROUPS
    """Columns to split by: names, or dotted paths. `file` is the file's name, where there are several."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The user's column names mapped to ours: those of datasets, and `TARGETS`."""
    counter: Callable[[], TokenCounter] | None = None
    """Makes the counter when a text has to be counted for the first time."""
    language_of: Callable[[str], str] | None = None
    """The language of a prompt, where no column says it."""
    seed: int = 0
    """Of samples (`path#N`)."""
    summary: SourceSummary = field(default_factory=SourceSummary)
    _layout: Callable[[tuple[Any, ...]], Layout] = field(init=False)
    _text_columns: dict[str, str] = field(init=False)
    _counts: TokenCounter | None = None

    def __post_init__(self) -> None:
        self._text_columns = {theirs: ours for theirs, ours in self.columns.items() if ours not in TARGETS}
        if problem := check_columns(self._text_columns):
            raise DataError(f"{problem}, {', '.join(TARGETS)}")
        # Once for each set of column names: a row costs a look-up. Where names are data, old layouts are forgotten.
        self._layout = lru_cache(maxsize=1000)(lambda names: Layout.of(names, self.groups, self.columns))

    def read(self, specs: Sequence[str]) -> Iterator[LengthRecord]:
        """The records of these files, one after the other.

        Raises:
            DataError: a file is missing, empty, damaged or of no known format. Of several files, such a one is left
                out with a note, and only when none is left it is an error.
        """
        failed: list[DataError] = []
        for spec in specs:
            try:
                yield from self._file(spec, Path(spec).name if len(specs) > 1 else None)
            except DataError as error:
                failed.append(error)
                self.summary.notes.append(f"left out from there on: {error}" if len(specs) > 1 else str(error))
        if failed and len(failed) == len(specs):
            raise failed[0]

    def _file(self, spec: str, name: str | None) -> Iterator[LengthRecord]:
        opened = open_dataset(spec, seed=self.seed)
        self.summary.notes += opened.notes
        source = str(opened.path)
        waiting: list[_Uncounted] = []
        for line, raw in opened.records:
            self.summary.rows += 1
            place = f"{source}, {opened.reader.unit} {line}"
            try:
                for found in self._found(opened.reader.parse(raw), name, place):
                    if isinstance(found, LengthRecord):
                        yield found
                    else:
                        waiting.append(found)
            except RowProblem as problem:
                self.summary.error(source, f"{place}: {problem}")
            if len(waiting) >= _BATCH:
                yield from self._counted(waiting, source)
                waiting = []
        yield from self._counted(waiting, source)

    def _found(self, row: object, name: str | None, place: str) -> Iterator[LengthRecord | _Uncounted]:
        """The records of one row: one, or one for each model where the row has the answers of several."""
        if not isinstance(row, dict):  # what every reader makes of a row with columns
            groups = self._groups({}, self._layout(()), name, "")
            yield from self._texts(LengthRecord(None, None, groups=groups), row, place)
            return
        flat = flattened(row)
        if missing := [path for path in self.groups if "." in path and path not in flat]:
            flat = {**flat, **{path: at_path(row, path) for path in missing}}
        layout = self._layout(tuple(flat))
        prompt = token_count(flat[layout.prompt], layout.prompt) if layout.prompt else None
        answer = flat[layout.answer] if layout.answer else None
        finish = "repetition" if is_runaway(flat) else flat[layout.finish] if layout.finish else None
        text = flat[layout.prompt_text] if layout.prompt_text else _last_user_turn(flat.get("messages"))
        text = text if isinstance(text, str) else ""
        groups = self._groups(flat, layout, name, text)
        if _failed(row):
            yield LengthRecord(prompt, None, "error", groups, text)
        elif isinstance(answer, dict):
            yield from self._of_models(LengthRecord(prompt or None, None, None, groups, text), answer, finish)
        else:
            tokens = token_count(answer, layout.answer or "")
            record = LengthRecord(prompt or None, tokens, finish_reason_of(finish), groups, text)
            if tokens is None or not prompt:
                yield from self._texts(record, flat, place)
            else:
                self.summary.given += 2
                yield record

    def _groups(self, row: Mapping[str, Any], layout: Layout, file: str | None, prompt: str) -> tuple[str | None, ...]:
        values = [
            file if column == "file" else None if name is None else _label(row[name])
            for column, name in zip(self.groups, layout.groups, strict=True)
        ]
        return self._with_language(values, prompt)

    def _with_language(self, groups: Sequence[str | None], prompt: str) -> tuple[str | None, ...]:
        """The groups with the prompt's language, where it is asked for and no column says it."""
        if not prompt or self.language_of is None:
            return tuple(groups)
        return tuple(
            self.language_of(prompt[:_LANGUAGE_HEAD]) if column == "language" and value is None else value
            for column, value in zip(self.groups, groups, strict=True)
        )

    def _of_models(self, row: LengthRecord, answers: Mapping[str, Any], finishes: object) -> Iterator[LengthRecord]:
        for model, value in answers.items():
            own = zip(self.groups, row.groups, strict=True)
            groups = tuple(_label(model) if column == "model" else group for column, group in own)
            finish = finishes.get(model) if isinstance(finishes, Mapping) else finishes
            tokens = token_count(value, f"{model}")
            self.summary.given += 1 + bool(row.prompt_tokens)
            yield LengthRecord(row.prompt_tokens, tokens, finish_reason_of(finish), groups, row.prompt)

    def _texts(self, record: LengthRecord, row: object, place: str) -> Iterator[LengthRecord | _Uncounted]:
        """The record with what its row's texts are to give; as it is where they give nothing."""
        known = (record.prompt_tokens is not None) + (record.answer_tokens is not None)
        try:
            parsed = read_row(_readable(row), self._text_columns)
            messages, reference = parsed.messages, parsed.reference
        except RowProblem:
            if not known:
                raise
            messages, reference = (), None
        self.summary.given += known
        if not record.prompt and messages:
            prompt = str(messages[-1]["content"])
            record = record._replace(prompt=prompt, groups=self._with_language(record.groups, prompt))
        uncounted = messages if record.prompt_tokens is None and messages else None
        answer = reference if record.answer_tokens is None else None
        yield record if uncounted is None and answer is None else _Uncounted(record, uncounted, answer, place)

    def _counted(self, waiting: Sequence[_Uncounted], source: str) -> Iterator[LengthRecord]:
        """The records with their tokens counted, in one batch."""
        if not waiting:
            return
        if self._counts is None:
            if self.counter is None:
                raise DataError(f"{source} gives no token counts, and there is no tokenizer to count with")
            self._counts = self.counter()
        prompts = iter(self._counts.prompts([each.messages for each in waiting if each.messages is not None]))
        answers = iter(self._counts.answers([each.answer for each in waiting if each.answer is not None]))
        for record, messages, answer, place in waiting:
            if messages is not None:
                record = record._replace(prompt_tokens=next(prompts))
            if answer is not None:
                record = record._replace(answer_tokens=next(answers))
            if messages is not None and record.prompt_tokens is None:
                self.summary.error(source, f"{place}: the model's chat template refuses it")
                continue
            self.summary.counted += (messages is not None) + (answer is not None)
            yield record


def _readable(row: object) -> object:
    """A result row of an answer is read as what was asked and what was answered, not with its reference."""
    if isinstance(row, Mapping) and "finish_reason" in row and isinstance(row.get("text"), str):
        return {**row, "response": row["text"]}
    return row


def _failed(row: Mapping[str, Any]) -> bool:
    """Whether the row records a failure: an error in a result file or in an API log, not a column of that name."""
    error = row.get("error")
    return bool(error) and (isinstance(error, Mapping) or "index" in row or "finish_reason" in row)


def _last_user_turn(messages: object) -> str:
    if isinstance(messages, list):
        for turn in reversed(messages):
            if isinstance(turn, Mapping) and turn.get("role") == "user" and isinstance(turn.get("content"), str):
                return str(turn["content"])
    return ""


def _label(value: object) -> str | None:
    """A group's name as it can be shown; None for what is none."""
    if value is None or isinstance(value, dict | list):
        return None
    text = str(value)
    if len(text) > _SHOWN or "\n" in text:
        text = " ".join(text.split())
        text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return text or None

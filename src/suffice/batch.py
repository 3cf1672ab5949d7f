"""Answers a whole dataset through one session: continuous, longest first, one result line per row as it is done."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from suffice.budget import Budget
from suffice.data import Conversation, ResultWriter, UnusableRow
from suffice.deprecated import warn_deprecated
from suffice.engines.base import TakesMemory
from suffice.errors import DataError, EngineError, SufficeError, UsageError
from suffice.session import Answer, Request, Session
from suffice.session.thinking_budget import ThinkingSplit

__all__ = ["BatchSummary", "DescribedLines", "ResultLines", "Row", "place_of", "run_batch"]

Row = Conversation | UnusableRow

_WINDOW = 8  # rows looked ahead for ordering, as a multiple of those answered at once: bounded memory for any dataset
_GIVE_UP = 20  # engine failures in a row, at least, after which the engine and not the rows must be at fault


@dataclass(slots=True)
class BatchSummary:
    """What a run did so far. Rows that were done before a resume are only in `already_done`."""

    already_done: int = 0
    answered: int = 0
    failed: int = 0
    finishes: Counter[str] = field(default_factory=Counter)
    """Answers by finish reason: `stop`, `length` (a limit, or a loop that was stopped) ..."""
    limits: Counter[str] = field(default_factory=Counter)
    """Cut answers by what cut them: `auto`, `caller`, `tier`, `context` ..."""
    loops: int = 0
    """Answers that were stopped because they repeated themselves; they do not count as cut by a limit."""
    closed_thinking: int = 0
    """Answers whose thinking repeated itself and was closed, so that the answer was written."""
    runaways: int = 0
    """Answers that repeated themselves: `loops`, `closed_thinking`, and those only told of (`on_runaway="warn"`)."""
    advancing: int = 0
    """Answers of 200 lines and more which differ in numbers only: noticed, and not stopped for that."""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cap_tokens: int = 0
    """The sum of the caps: what worst-case reservation would have set aside."""
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return self.answered + self.failed

    @property
    def truncation_rate(self) -> float:
        """Share of the answers that a limit ended (0-1), without those that were stopped in a loop."""
        return self.limits.total() / self.answered if self.answered else 0.0

    @property
    def loop_rate(self) -> float:
        """Share of the answers that were stopped in a loop (0-1)."""
        return self.loops / self.answered if self.answered else 0.0

    @property
    def asked_tokens(self) -> int:
        warn_deprecated("BatchSummary.asked_tokens", "BatchSummary.cap_tokens")
        return self.cap_tokens

    def add(self, answer: Answer) -> None:
        self.finishes[answer.finish.reason] += 1
        if answer.finish.reason == "error":
            self.failed += 1
            return
        self.answered += 1
        self.prompt_tokens += answer.usage.prompt_tokens
        self.answer_tokens += answer.usage.answer_tokens
        self.cap_tokens += answer.budget.max_new_tokens
        self.loops += answer.finish.looped
        self.runaways += answer.repetition is not None or answer.finish.looped
        self.advancing += "advancing" in answer.runaway_kinds
        self.closed_thinking += "closed" in answer.runaway_kinds
        if answer.finish.cut:
            self.limits[answer.finish.by] += 1


class ResultLines(Protocol):
    """How results look in their file."""

    def answer(self, row: Conversation, request: Request, answer: Answer) -> dict[str, Any]:
        """The line of an answer. One with the finish reason `error` must have a key `error` with a value."""

    def failure(self, row: Row, error: SufficeError) -> dict[str, Any]:
        """The line of a row that could not be asked; it must have a key `error` with a value."""


class DescribedLines:
    """The project's own lines: what `describe` says of an answer, and the row with the place that it is from."""

    def __init__(
        self,
        describe: Callable[[Answer], dict[str, Any]],
        more: Callable[[Conversation, Answer], Mapping[str, Any]] = lambda *_: {},
    ) -> None:
        self._describe, self._more = describe, more

    def answer(self, row: Conversation, request: Request, answer: Answer) -> dict[str, Any]:
        failed = answer.finish.reason == "error"
        more = {"error": answer.finish.what} if failed else self._more(row, answer)
        return {**place_of(row), **self._describe(answer), **more, "row": dict(row.row)}

    def failure(self, row: Row, error: SufficeError) -> dict[str, Any]:
        given = {} if row.row is None else {"row": dict(row.row)}
        return {**place_of(row), "error": str(error), **given}


def place_of(row: Row) -> dict[str, Any]:
    """Where a row is from, as result lines say it."""
    return {"dataset": row.source, "line": row.line}


@dataclass(frozen=True, slots=True, order=True)
class _Waiting:
    """A row in the window; the least one comes first."""

    rank: tuple[int, int]
    row: Conversation = field(compare=False)
    request: Request = field(compare=False)
    budget: Budget = field(compare=False)

    @property
    def tokens(self) -> int:
        """The most that it can come to, prompt and answer."""
        on_top = ThinkingSplit.plan(self.request, self.budget).on_top
        return (self.budget.prompt_tokens or 0) + self.budget.max_new_tokens + on_top


async def run_batch(
    session: Session,
    rows: Iterable[Row],
    writer: ResultWriter,
    request_for: Callable[[Conversation], Request],
    describe: Callable[[Answer], dict[str, Any]] | ResultLines,
    *,
    concurrency: int,
    longest_first: bool = True,
    on_row: Callable[[BatchSummary], None] = lambda _: None,
    on_failure: Callable[[Row, str], None] = lambda *_: None,
    summary: BatchSummary | None = None,
) -> BatchSummary:
    """Answer every row that `writer` does not have yet.

    A row that fails is written with its `error`, and the others go on. Where the task is cancelled, every answer that
    was complete has been written; those under way have not.

    Args:
        session: over an engine that has been entered.
        rows: the dataset; read as it is needed, a window at a time.
        writer: where results go, the moment they are there.
        request_for: what to ask for a row; an error that it raises (`SufficeError`) is the row's.
        describe: an answer as JSON, or how all lines look.
        concurrency: rows answered at once.
        longest_first: start with the answers expected to be longest, so that no long one runs alone at the end.
        on_row: called after each row.
        on_failure: called with each row that failed, and why.
        summary: filled while rows are answered, for a caller that may stop; a new one by default.

    Raises:
        DataError: the results cannot be written.
        EngineError: so many rows failed in a row that the engine must be down.
    """
    lines = DescribedLines(describe) if callable(describe) else describe
    batch = _Batch(session, rows, writer, request_for, lines, concurrency, longest_first, summary or BatchSummary())
    batch.on_row, batch.on_failure = on_row, on_failure
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(batch.work())
    except ExceptionGroup as failed:  # not `except*`, which before Python 3.11.4 wraps what is raised in it again
        if failed.split((EngineError, UsageError))[1] is not None:
            raise
        raise failed.exceptions[0] from None
    return batch.summary


class _Batch:
    """The state that the workers of one run share."""

    on_row: Callable[[BatchSummary], None]
    on_failure: Callable[[Row, str], None]

    def __init__(
        self,
        session: Session,
        rows: Iterable[Row],
        writer: ResultWriter,
        request_for: Callable[[Conversation], Request],
        lines: ResultLines,
        concurrency: int,
        longest_first: bool,
        summary: BatchSummary,
    ) -> None:
        self.summary = summary
        self._session, self._writer = session, writer
        self._rows = self._unfinished(rows)
        self._request_for, self._lines = request_for, lines
        self._concurrency, self._longest_first = concurrency, longest_first
        self._window: list[_Waiting] = []
        self._refilling = asyncio.Lock()
        self._rows_read = 0
        self._failures_in_a_row = 0
        self._started = time.perf_counter()

    async def work(self) -> None:
        """Answer one row after the other until none is left."""
        while (waiting := await self._next()) is not None:
            answer = await self._session.answer(waiting.request, waiting.budget)
            self.summary.add(answer)
            if answer.finish.reason == "error":
                self.on_failure(waiting.row, answer.finish.what)
            self._write(waiting.row, self._lines.answer(waiting.row, waiting.request, answer))
            self._check_engine(answer)

    async def _next(self) -> _Waiting | None:
        """The next row of the window, which is refilled before it runs low."""
        async with self._refilling:
            if len(self._window) < self._concurrency:
                await self._refill()
        return heapq.heappop(self._window) if self._window else None

    async def _refill(self) -> None:
        first = self._rows_read == 0
        fresh = list(islice(self._rows, self._concurrency * _WINDOW - len(self._window)))
        self._rows_read += len(fresh)
        for waiting in await asyncio.gather(*map(self._prepare, fresh)):
            if waiting is not None:
                heapq.heappush(self._window, waiting)
        engine = self._session.engine
        if first and self._window and isinstance(engine, TakesMemory):
            longest = max(waiting.tokens for waiting in self._window)
            engine.expect(requests=min(self._concurrency, len(self._window)), tokens=longest)

    async def _prepare(self, row: Conversation) -> _Waiting | None:
        """Decide a row's budget; a row that can have none is written as failed."""
        try:
            request = self._request_for(row)
            budget = await self._session.decide(request)
        except SufficeError as error:
            self._fail(row, error, str(error))
            return None
        rank = (-budget.expected_tokens if self._longest_first else 0, row.index)
        return _Waiting(rank, row, request, budget)

    def _unfinished(self, rows: Iterable[Row]) -> Iterator[Conversation]:
        """The rows to answer; those that cannot be read are written as failed on the way."""
        for row in rows:
            if row.index in self._writer.finished:
                self.summary.already_done += 1
            elif isinstance(row, UnusableRow):
                self._fail(row, DataError(str(row)), row.reason)
            else:
                yield row

    def _fail(self, row: Row, error: SufficeError, reason: str) -> None:
        self.summary.failed += 1
        self.on_failure(row, reason)
        self._write(row, self._lines.failure(row, error))

    def _write(self, row: Row, result: dict[str, Any]) -> None:
        self._writer.write(row.index, result)
        self.summary.seconds = time.perf_counter() - self._started
        self.on_row(self.summary)

    def _check_engine(self, answer: Answer) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if answer.finish.reason == "error" else 0
        if self._failures_in_a_row >= max(_GIVE_UP, 2 * self._concurrency):
            raise EngineError(
                f"the last {self._failures_in_a_row} rows all failed, most recently with: {answer.finish.what}; "
                "the answers so far are safe: put that right and continue with --resume"
            )

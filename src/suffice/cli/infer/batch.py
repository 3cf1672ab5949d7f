"""`suffice infer --dataset`: reads rows, answers them, shows progress, sums up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffice.batch import BatchSummary, DescribedLines, ResultLines, Row, run_batch
from suffice.cli.command import command_line
from suffice.cli.infer.answer_view import answer_json
from suffice.cli.infer.output_file import discard_empty, latest_output, new_output
from suffice.cli.infer.row_failures import RowFailures, rows_text
from suffice.cli.infer.scores import Scores
from suffice.cli.infer.stop_signals import STOPPED, StopSignals
from suffice.cli.notes import tell
from suffice.cli.progress import ProgressBar
from suffice.data import (
    Conversation,
    DatasetRows,
    ResultWriter,
    count_rows,
    dataset_fingerprint,
    known_of,
    read_dataset,
    read_results,
)
from suffice.data.rows import parse_columns
from suffice.data.types import BATCH_FORMAT
from suffice.errors import SufficeError, UsageError
from suffice.memory import LiveMemory, Metered

if TYPE_CHECKING:
    from suffice.cli.infer.batch_file import BatchFileRequests
    from suffice.cli.infer.options import InferOptions
    from suffice.engines.patience import PatientEngine
    from suffice.session import Request

__all__ = ["infer_dataset"]

_LOOKED_AT = 20  # rows of which the first usable one says what format the results have
_MAX_WAIT = 600.0  # seconds that a row waits for a busy server, where nothing else is said


def infer_dataset(options: InferOptions) -> int:
    """Answer every row of `--dataset` into `--output`. Returns the exit status: 1 if any row failed, 130 if a signal
    stopped it."""
    columns, seed = parse_columns(options.columns), options.sampling.seed or 0
    datasets = [read_dataset(spec, seed=seed, columns=columns) for spec in options.dataset]
    fingerprint = {
        str(i): dataset_fingerprint(spec, seed=seed, columns=columns) for i, spec in enumerate(options.dataset)
    }
    run = _Run(options, datasets, _total(options.dataset))
    settings = _settings(options) | ({"output_format": "openai"} if run.as_batch_file else {})
    output, resume = _output(options, fingerprint, settings)
    with (
        StopSignals() as stop,
        ResultWriter(
            output, dataset=fingerprint, settings=settings, resume=resume, overwrite=options.overwrite
        ) as writer,
    ):
        for notice in writer.notices:
            tell(f"notice: {notice}")
        try:
            asyncio.run(run.answer(writer, stop))
        except (asyncio.CancelledError, KeyboardInterrupt):
            if not stop.received:
                raise
        except SufficeError:
            if run.summary.rows:
                run.report(output, whole=False)
            elif not options.output:
                discard_empty(output)
            raise
        writer.compact()
    run.report(output, whole=not stop.received)
    return STOPPED if stop.received else int(run.summary.failed > 0)


def _output(options: InferOptions, dataset: dict[str, Any], settings: dict[str, Any]) -> tuple[Path, bool]:
    """The result file, and whether it is there and continued."""
    if options.output:
        before = known_of(Path(options.output)).get("settings") if options.resume else None
        if before is not None and before.get("output_format") != settings.get("output_format"):
            raise UsageError(
                f"{options.output} has lines of another format: give the --output-format that it was made with"
            )
        return Path(options.output), options.resume
    found = latest_output(dataset, settings) if options.resume else None
    if found is None and options.resume:
        tell("notice: output/ has no answers to this dataset that could be continued")
    output = found or new_output(options.dataset)
    tell(f"results: {output}" + (" (continued)" if found else ""))
    return output, found is not None


def _settings(options: InferOptions) -> dict[str, Any]:
    """What the answers depend on, as result files keep it."""
    named = [each.name for each in fields(options) if each.metadata.get("answers", True)]
    settings = {name: getattr(options, name) for name in named}
    settings |= asdict(settings.pop("sampling"))
    return settings | {"max_new_tokens": str(options.max_new_tokens)}  # as it has always been kept


def _total(specs: Sequence[str]) -> int | None:
    counts = [count_rows(spec) for spec in specs]
    totals = [count for count in counts if count is not None]
    return sum(totals) if len(totals) == len(counts) else None


@dataclass(slots=True)
class _Run:
    """One run over all datasets, and what is said of it."""

    options: InferOptions
    datasets: list[DatasetRows]
    total: int | None
    summary: BatchSummary = field(default_factory=BatchSummary)
    failures: RowFailures = field(init=False)
    scores: Scores = field(init=False)
    rows: Iterator[Row] = field(init=False)
    as_batch_file: bool = field(init=False)
    """Whether the results are lines of OpenAI's batch format."""
    requests: BatchFileRequests | None = None
    engine: PatientEngine | None = None
    memory: LiveMemory | None = None
    progress: ProgressBar | None = None

    def __post_init__(self) -> None:
        self.failures = RowFailures(several=len(self.datasets) > 1)
        self.scores = Scores(self.options.metric)
        rows: Iterator[Row] = chain.from_iterable(self.datasets)
        first = list(islice(rows, _LOOKED_AT))
        self.rows = (replace(row, index=index) for index, row in enumerate(chain(first, rows)))
        formats = [row.format for row in first if isinstance(row, Conversation)]
        is_batch_file = bool(formats) and formats[0] == BATCH_FORMAT
        self.as_batch_file = {"auto": is_batch_file, "openai": True, "suffice": False}[self.options.output_format]

    async def answer(self, writer: ResultWriter, stop: StopSignals) -> None:
        stop.watch()
        options = self.options
        self.engine = options.open_patient_engine(_MAX_WAIT, self.show)
        async with self.engine as engine:
            if isinstance(engine.engine, Metered):
                self.memory = LiveMemory(engine.engine.memory_meter(), lambda line: tell(f"warning: {line}"))
            with ProgressBar("answering", self.total) as self.progress:
                await run_batch(
                    options.session(engine),
                    self.rows,
                    writer,
                    self.request,
                    self.lines(engine.model_name),
                    concurrency=options.concurrency or engine.capabilities().usual_concurrency,
                    longest_first=options.sort,
                    on_row=lambda _: self.show(),
                    on_failure=self.failures.add,
                    summary=self.summary,
                )

    def request(self, row: Conversation) -> Request:
        if row.format != BATCH_FORMAT:
            return self.options.request(row.messages)
        from suffice.cli.infer.batch_file import BatchFileRequests  # imports the server's API

        if self.requests is None:
            assert self.engine is not None
            self.requests = BatchFileRequests(self.options, self.engine)
        return self.requests(row)

    def lines(self, model: str) -> ResultLines:
        if not self.as_batch_file:
            return DescribedLines(answer_json, self.scores.of)
        from suffice.cli.infer.batch_file import BatchFileLines

        return BatchFileLines(model, self.scores.of)

    def show(self) -> None:
        """Move the progress bar: a row is done, or the server is waited for."""
        summary, engine = self.summary, self.engine
        waits = engine is not None and engine.waiting > 0
        if self.progress is None:
            if engine is not None and waits and engine.refused == 1:
                tell("notice: the server is busy: waiting for it")
            return
        speed = f"{summary.answer_tokens / max(summary.seconds, 1e-9):.0f} tokens/s"
        note = "waiting for the server" if waits else speed
        note += f", {summary.failed} failed" if summary.failed else ""
        note += f", {self.memory.note()}" if self.memory is not None else ""
        self.progress.update(summary.rows + summary.already_done, note)

    def report(self, output: Path, *, whole: bool) -> None:
        """Sum up; where the run is not whole, also how much there is and how to continue."""
        lines = []
        if whole:
            for spec, rows in zip(self.options.dataset, self.datasets, strict=True):
                lines += [f"{spec}: {rows.summary.describe()}", *rows.summary.notes]
        lines += self.failures.describe() + _describe(self.summary)
        if self.engine is not None and self.engine.refused:
            lines.append(f"waited for the server: {self.engine.waited:.0f} s, after {self.engine.refused} refusals")
        if self.requests is not None:
            lines += [f"in {rows_text(count)}: {what}" for what, count in self.requests.notes.most_common()]
        lines += self.scores.describe(read_results(output))
        lines.append(f"results: {output}")
        if not whole:
            of = "" if self.total is None else f" of {self.total}"
            there = ["--resume"] if self.options.output else ["--output", str(output), "--resume"]
            lines.append(f"stopped: {self.summary.answered + self.summary.already_done}{of} answered; continue with")
        tell("\n".join(lines))
        if not whole:  # spaces that fill rows would be copied, and some may stand within quotation marks
            print("  " + command_line(without=("--resume", "--overwrite"), then=there), file=sys.stderr)


def _describe(summary: BatchSummary) -> list[str]:
    lines = [
        f"{rows_text(summary.rows)} in {summary.seconds:.1f} s: {summary.answered} answered, {summary.failed} failed"
        + (f"; {summary.already_done} were there already" if summary.already_done else "")
    ]
    if summary.answered:
        cut = ", ".join(f"{by} {n}" for by, n in summary.limits.most_common())
        lines.append(
            f"tokens: {summary.prompt_tokens} in prompts, {summary.answer_tokens} in answers of {summary.cap_tokens} "
            f"allowed ({100 * summary.answer_tokens / summary.cap_tokens:.0f} %); "
            f"{summary.answer_tokens / max(summary.seconds, 1e-9):.0f} answer tokens/s"
        )
        lines.append(f"cut by a limit: {100 * summary.truncation_rate:.1f} %" + (f" ({cut})" if cut else ""))
        lines.append(f"loops: {summary.loops} ({100 * summary.loop_rate:.1f} %)")
        if summary.closed_thinking:
            lines.append(f"loops in thinking, which was closed: {summary.closed_thinking}")
        if summary.advancing:
            lines.append(f"200 lines and more that differ in numbers only, not stopped for that: {summary.advancing}")
        if told := summary.runaways - summary.loops - summary.closed_thinking:
            lines.append(f"loops that were not stopped: {told} ({100 * told / summary.answered:.1f} %)")
    return lines

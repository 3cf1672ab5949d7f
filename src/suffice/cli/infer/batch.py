"""`suffice infer --dataset`: reads rows, answers them, shows progress, sums up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from suffice.batch import BatchSummary, run_batch
from suffice.cli.infer.answer_view import answer_json
from suffice.cli.progress import ProgressBar
from suffice.data import Conversation, ResultWriter, UnusableRow, count_rows, dataset_fingerprint, read_dataset
from suffice.data.rows import parse_columns
from suffice.memory import LiveMemory, Metered

if TYPE_CHECKING:
    from suffice.cli.infer.options import InferOptions

__all__ = ["infer_dataset"]


def infer_dataset(options: InferOptions) -> int:
    """Answer every row of `--dataset` into `--output`. Returns the exit status: 1 if any row failed."""
    assert options.output is not None  # InferOptions.check
    columns, seed = parse_columns(options.columns), options.sampling.seed or 0
    datasets = [read_dataset(spec, seed=seed, columns=columns) for spec in options.dataset]
    counts = [count_rows(spec) for spec in options.dataset]
    totals = [count for count in counts if count is not None]
    total = sum(totals) if len(totals) == len(counts) else None
    fingerprint = {
        str(i): dataset_fingerprint(spec, seed=seed, columns=columns) for i, spec in enumerate(options.dataset)
    }
    named = [each.name for each in fields(options) if each.metadata.get("answers", True)]
    settings = {name: getattr(options, name) for name in named}
    settings |= asdict(settings.pop("sampling"))
    settings["max_new_tokens"] = str(options.max_new_tokens)  # as result files have always kept it
    with ResultWriter(
        options.output, dataset=fingerprint, settings=settings, resume=options.resume, overwrite=options.overwrite
    ) as writer:
        for notice in writer.notices:
            print(f"notice: {notice}", file=sys.stderr)
        summary = asyncio.run(_answer_rows(options, _numbered(datasets), writer, total))
        writer.compact()
    for spec, rows in zip(options.dataset, datasets, strict=True):
        print(f"{spec}: {rows.summary.describe()}", *rows.summary.notes, sep="\n", file=sys.stderr)
    print(_describe(summary, options.output), file=sys.stderr)
    return 1 if summary.failed else 0


async def _answer_rows(
    options: InferOptions, rows: Iterator[Conversation | UnusableRow], writer: ResultWriter, total: int | None
) -> BatchSummary:
    async with options.open_engine() as engine:
        warn = partial(print, "warning:", file=sys.stderr)
        memory = LiveMemory(engine.memory_meter(), warn) if isinstance(engine, Metered) else None
        with ProgressBar("answering", total) as progress:

            def show(summary: BatchSummary) -> None:
                note = f"{summary.answer_tokens / max(summary.seconds, 1e-9):.0f} tokens/s"
                note += f", {summary.failed} failed" if summary.failed else ""
                note += f", {memory.note()}" if memory is not None else ""
                progress.update(summary.rows + summary.already_done, note)

            return await run_batch(
                options.session(engine),
                rows,
                writer,
                lambda row: options.request(row.messages),
                answer_json,
                concurrency=options.concurrency or engine.capabilities().usual_concurrency,
                longest_first=options.sort,
                on_row=show,
            )


def _numbered(datasets: list[Any]) -> Iterator[Conversation | UnusableRow]:
    return (replace(row, index=index) for index, row in enumerate(chain.from_iterable(datasets)))


def _describe(summary: BatchSummary, output: str) -> str:
    lines = [
        f"{summary.rows} rows in {summary.seconds:.1f} s: {summary.answered} answered, {summary.failed} failed"
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
        if summary.loops:
            lines.append(f"loops: {summary.loops} ({100 * summary.loop_rate:.1f} %)")
        if told := summary.runaways - summary.loops:
            lines.append(f"loops that were not stopped: {told} ({100 * told / summary.answered:.1f} %)")
    lines.append(f"results: {output}")
    return "\n".join(lines)

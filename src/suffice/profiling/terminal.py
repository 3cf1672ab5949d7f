"""A report for a terminal: tables and bars that stay in line with Chinese text in them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from suffice.profiling.bilingual import percent
from suffice.profiling.charts import Chart, length_charts
from suffice.profiling.report import Report
from suffice.profiling.sentences import advice_sentences, finish_sentences
from suffice.profiling.tables import Table, group_table, length_table, row_limit_table, tier_table, word_tables

__all__ = ["bar", "display_width", "report_lines", "table"]

_BAR_CELLS = 36
_EIGHTHS = " ▏▎▍▌▋▊▉"
_SHOWN_GROUPS = 12


def display_width(text: str) -> int:
    """Columns that a text takes on a terminal: two for wide characters (Unicode Annex 11), none for marks."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn", "Me")
        else 2 if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )  # fmt: skip


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines with the cells in columns: the first `left` to the left, numbers to the right."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - display_width(cell))
            cells.append(cell + space if place < left else space + cell)
        lines.append("  ".join(cells).rstrip())
    return lines


def bar(share: float, cells: int = _BAR_CELLS) -> str:
    """A bar of `share` (0-1) of a number of cells, to an eighth of a cell; something for whatever is not 0."""
    eighths = max(round(share * cells * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def report_lines(report: Report) -> Iterator[str]:
    yield from _head(report)
    yield from _lines(length_table(report))
    chart = next(length_charts(report), None)  # of the answers, or of the prompts where there are none
    if chart is not None:
        yield from ("", f"{chart.title.en.lower().removesuffix('s')} tokens", *_bars(chart))
    for column, groups in report.groups.items():
        yield from _lines(group_table(column, groups, report, _SHOWN_GROUPS))
    yield from _words(report)
    yield from _lines(tier_table(report))
    yield from _lines(row_limit_table(report))
    yield from ("", *(text.en for text in (*finish_sentences(report), *advice_sentences(report))))


def _head(report: Report) -> Iterator[str]:
    found = report.found
    how = f"{found.given:,} token counts given in the rows, {found.counted:,} counted"
    yield f"{report.name}: {found.rows:,} rows, {report.profile.all.answer.rows:,} answers; {how}"
    yield from found.notes
    if found.errors:
        total = found.errors.total()
        yield f"{total:,} {'row' if total == 1 else 'rows'} could not be used:"
        yield from (f"  {example}" for example in found.examples)
        if total > len(found.examples):
            yield f"  and {total - len(found.examples):,} more"


def _lines(shown: Table) -> list[str]:
    rows = [[cell if isinstance(cell, str) else cell.en for cell in row] for row in (shown.head, *shown.rows)]
    return ["", *table(rows), *(note.en for note in shown.notes)] if shown.rows else []


def _bars(chart: Chart) -> Iterator[str]:
    most = max(rows for _, _, rows in chart.bars)
    labels = [f"{low:,}–{high:,}" if high > low else f"{low:,}" for low, high, _ in chart.bars]
    width = max(map(display_width, labels))
    for label, (_, _, rows) in zip(labels, chart.bars, strict=True):
        share = percent(rows / chart.rows) if rows else ""
        yield f"{label:>{width}}  {share:>8}  {bar(rows / most)}".rstrip()


def _words(report: Report) -> Iterator[str]:
    """In a line for longer and one for shorter answers: a word, how many times as long, typical tokens, prompts."""
    if any(report.words):
        yield ""
        yield f"words of prompts with long and short answers (of {report.profile.words.prompts:,} distinct prompts)"
    for title, found in word_tables(report):
        told = (
            f"{word} {times} ({typical} tokens; {prompts} prompts)" for word, times, typical, _, prompts in found.rows
        )
        yield f"  {title.en.removesuffix(' answers')}: " + ", ".join(told)

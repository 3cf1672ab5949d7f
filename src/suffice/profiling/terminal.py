"""A report for a terminal: tables and bars that stay in line with Chinese text in them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from suffice.profiling.accumulators import GroupLengths
from suffice.profiling.histogram import Histogram
from suffice.profiling.phrases import advice_sentences, finish_sentences, human_size, percent
from suffice.profiling.report import LIMITS, QUANTILES, Report, interval
from suffice.profiling.words import SplittingWord

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
    """The whole report, what to do at the end of it."""
    yield from _head(report)
    yield from _lengths(report)
    everything = report.profile.all
    name, histogram = ("answer", everything.answer) if everything.answer.rows else ("prompt", everything.prompt)
    if histogram.rows:
        yield from ("", f"{name} tokens")
        yield from _bars(histogram)
    for column, groups in report.groups.items():
        yield from (
            "",
            *(_groups(column, groups, report) if everything.answer.rows else _prompt_groups(column, groups)),
        )
    yield from _words(report)
    if report.advice is not None and report.advice.tiers:
        yield from ("", *_tiers(report))
    if report.row_limits:
        yield from ("", *_row_limits(report))
    yield ""
    yield from finish_sentences(report)
    yield from advice_sentences(report)


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


def _lengths(report: Report) -> Iterator[str]:
    everything = report.profile.all
    rows = [["tokens", "rows", "mean", *(f"p{p * 100:.0f}" for p in QUANTILES), "max", *(f">{n}" for n in LIMITS)]]
    for name, histogram in (("prompt", everything.prompt), ("answer", everything.answer), ("whole", everything.whole)):
        if histogram.rows:
            quantiles = (f"{histogram.quantile(p):,}" for p in QUANTILES)
            shares = (percent(histogram.over(limit) / histogram.rows) for limit in LIMITS)
            count, mean, most = f"{histogram.rows:,}", f"{histogram.mean:,.0f}", f"{histogram.largest:,}"
            rows.append([name, count, mean, *quantiles, most, *shares])
    if len(rows) > 1:
        yield ""
        yield from table(rows)
    if everything.answer.rows:
        ends = (interval(everything.answer, p) for p in QUANTILES)
        shown = (
            f"{'?' if low is None else f'{low:,}'} to {'?' if high is None else f'{high:,}'}" for low, high in ends
        )
        named = (f"p{p * 100:.0f} {text}" for p, text in zip(QUANTILES, shown, strict=True))
        yield f"answer quantiles with 95 % confidence: {'; '.join(named)}"


def _bars(histogram: Histogram) -> Iterator[str]:
    bars = histogram.bars()
    most = max(rows for _, _, rows in bars)
    rows = [[f"{low:,}–{high:,}" if high > low else f"{low:,}", percent(n / histogram.rows)] for low, high, n in bars]
    width = max(display_width(label) for label, _ in rows)
    for (label, share), (_, _, count) in zip(rows, bars, strict=True):
        yield f"{label:>{width}}  {share if count else '':>8}  {bar(count / most)}".rstrip()


def _prompt_groups(column: str, groups: Mapping[str, GroupLengths]) -> list[str]:
    rows = [[column, "prompts", *(f"p{p * 100:.0f}" for p in QUANTILES), "max"]]
    for name, group in list(groups.items())[:_SHOWN_GROUPS]:
        if (prompt := group.prompt).rows:
            quantiles = (f"{prompt.quantile(p):,}" for p in QUANTILES)
            rows.append([name, f"{prompt.rows:,}", *quantiles, f"{prompt.largest:,}"])
    more = len(groups) - _SHOWN_GROUPS
    return [*table(rows), *([f"and {more:,} more (all of them with --json)"] if more > 0 else [])]


def _groups(column: str, groups: Mapping[str, GroupLengths], report: Report) -> list[str]:
    advised = report.advice.by_group.get(column, {}) if report.advice else {}
    rows = [[column, "answers", "prompt p50", "p50", "p90", "p99", "max", "cut", "cap for 1 %", "tier"]]
    for name, group in list(groups.items())[:_SHOWN_GROUPS]:
        answer, known = group.answer, group.known_finishes
        quantiles = (f"{answer.quantile(p):,}" if answer.rows else "" for p in (0.5, 0.9, 0.99))
        cap, tier = advised.get(name, (None, None))
        shown = "" if cap is None else "?" if cap.suggested is None else f"{cap.suggested:,}"
        prompt = f"{group.prompt.quantile(0.5):,}" if group.prompt.rows else ""
        cut = percent(group.finishes["length"] / known) if known else ""
        most = f"{answer.largest:,}" if answer.rows else ""
        rows.append([name, f"{answer.rows:,}", prompt, *quantiles, most, cut, shown, tier or ("none" if cap else "")])
    cut_place = rows[0].index("cut")
    if not any(row[cut_place] for row in rows[1:]):  # no finish reasons, no column for them
        rows = [row[:cut_place] + row[cut_place + 1 :] for row in rows]
    lines = table(rows)
    if (more := len(groups) - _SHOWN_GROUPS) > 0:
        lines.append(f"and {more:,} more (all of them with --json)")
    if any(row[-2] == "?" for row in rows):
        lines.append("?: the rows do not settle which cap cuts at most 1 % (too few, or too many were cut)")
    return lines


def _words(report: Report) -> Iterator[str]:
    longer, shorter = report.words
    if longer or shorter:
        yield ""
        yield f"words of prompts with long and short answers (of {report.profile.words.prompts:,} distinct prompts)"
        for name, words in (("longer", longer), ("shorter", shorter)):
            if words:
                yield f"  {name}: " + ", ".join(map(_word, words))


def _word(word: SplittingWord) -> str:
    times = f"×{word.factor:.1f}" if word.factor >= 1 else f"÷{1 / word.factor:.1f}"
    return f"{word.word} {times} ({word.typical:,} tokens; {word.prompts:,} prompts)"


def _tiers(report: Report) -> list[str]:
    assert report.advice is not None
    rows = [["tier", "max_new_tokens", "cuts", "95 % from", "to", "smallest tier for"]]
    for tier in report.advice.tiers:
        low, high = (percent(end) for end in tier.interval)
        rows.append(
            [
                tier.name,
                f"{tier.max_new_tokens:,}",
                percent(tier.share),
                low,
                high,
                f"{percent(tier.needed_by)} of answers",
            ]
        )
    return table(rows)


def _row_limits(report: Report) -> list[str]:
    memory = report.memory.training if report.memory else None
    rows = [
        ["max_length", "rows over", "share", "prompt fills it", "tokens lost if dropped", "if cut", "training memory"]
    ]
    for limit in report.row_limits:
        size = human_size(memory[limit.max_length]) if memory and limit.max_length in memory else ""
        numbers = (limit.prompts_over, limit.tokens_dropped, limit.tokens_cut)
        rows.append(
            [f"{limit.max_length:,}", f"{limit.over:,}", percent(limit.share), *(f"{n:,}" for n in numbers), size]
        )
    lines = table(rows)
    if memory is None:
        return [*(line for line in table([row[:-1] for row in rows])), "training memory: give --model FOLDER"]
    assert report.memory is not None
    return [*lines, f"training memory: {report.memory.training_setup}"]

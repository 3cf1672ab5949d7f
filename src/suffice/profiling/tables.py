"""The tables of a report: their figures, and their headings in both languages. Knows nothing of how they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from suffice.profiling.accumulators import GroupLengths
from suffice.profiling.bilingual import Bilingual, heading, human_size, percent, say
from suffice.profiling.histogram import Histogram
from suffice.profiling.report import LIMITS, QUANTILES, Report, interval
from suffice.profiling.words import SplittingWord

__all__ = ["Cell", "Table", "group_table", "length_table", "row_limit_table", "tier_table", "word_tables"]

Cell = str | Bilingual
_GROUP_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[Bilingual] = ()

    def without(self, place: int) -> Table:
        head, *rows = ([*row[:place], *row[place:][1:]] for row in (self.head, *self.rows))
        return Table(head=head, rows=rows, notes=self.notes)


def length_table(report: Report) -> Table:
    """Prompts, answers and both together: quantiles, and the share over some lengths."""
    everything = report.profile.all
    rows: list[list[Cell]] = []
    for name in ("prompt", "answer", "whole"):
        lengths: Histogram = getattr(everything, name)
        if lengths.rows:
            over = (percent(lengths.over(limit) / lengths.rows) for limit in LIMITS)
            counts = f"{lengths.rows:,}", f"{lengths.mean:,.0f}"
            rows.append([*_head(name), *counts, *_quantiles(lengths), f"{lengths.largest:,}", *over])
    notes = [_confidence(everything.answer)] if everything.answer.rows else []
    names = "tokens", "rows", "mean", *map(_name, QUANTILES), "max", *(f">{limit}" for limit in LIMITS)
    return Table(head=_head(*names), rows=rows, notes=notes)


def _confidence(answers: Histogram) -> Bilingual:
    ends = []
    for p in QUANTILES:
        low, high = ("?" if end is None else f"{end:,}" for end in interval(answers, p))
        ends.append(say("from-to", name=_name(p), low=low, high=high))
    listed = Bilingual("; ".join(end.en for end in ends), "；".join(end.zh for end in ends))
    return say("confidence", ends=listed)


def group_table(column: str, groups: Mapping[str, GroupLengths], report: Report, most: int) -> Table:
    """The `most` largest groups of a column: their lengths, and the cap and tier that they need."""
    more = len(groups) - most
    shown = dict(list(groups.items())[:most])
    notes = [say("more", more=more)] if more > 0 else []
    if not report.profile.all.answer.rows:
        return _prompt_groups(column, shown, notes)
    advised = report.advice.by_group.get(column, {}) if report.advice else {}
    rows: list[list[Cell]] = []
    for name, group in shown.items():
        known, (cap, tier) = group.known_finishes, advised.get(name, (None, None))
        lengths = *_quantiles(group.prompt, (0.5,)), *_quantiles(group.answer, (*_GROUP_QUANTILES, 1.0))
        rows.append([name, f"{group.answer.rows:,}", *lengths])
        rows[-1].append(percent(group.finishes["length"] / known) if known else "")
        rows[-1].append("" if cap is None else "?" if cap.suggested is None else f"{cap.suggested:,}")
        rows[-1] += [tier] if tier else _head("none") if cap else [""]
    if any(row[-2] == "?" for row in rows):
        notes.append(say("unsettled"))
    names = "answers", "prompt p50", *map(_name, _GROUP_QUANTILES), "max", "cut", "cap for 1 %", "tier"
    table = Table(head=[column, *_head(*names)], rows=rows, notes=notes)
    return table if any(row[-3] for row in rows) else table.without(len(names) - 2)  # no finish reasons, no column


def _prompt_groups(column: str, groups: Mapping[str, GroupLengths], notes: Sequence[Bilingual]) -> Table:
    prompts = {name: group.prompt for name, group in groups.items() if group.prompt.rows}
    head: list[Cell] = [column, *_head("prompts", *map(_name, QUANTILES), "max")]
    rows = [[name, f"{each.rows:,}", *_quantiles(each), f"{each.largest:,}"] for name, each in prompts.items()]
    return Table(head=head, rows=rows, notes=notes)


def word_tables(report: Report) -> Iterator[tuple[Bilingual, Table]]:
    head = _head("word", "times as long", "typical tokens", "without it", "prompts")
    titles = _head("longer answers", "shorter answers")
    for title, words in zip(titles, report.words, strict=True):
        if words:
            yield title, Table(head=head, rows=list(map(_word, words)))


def _word(word: SplittingWord) -> list[Cell]:
    factor = f"×{word.factor:.1f}" if word.factor >= 1 else f"÷{1 / word.factor:.1f}"
    return [word.word, factor, f"{word.typical:,}", f"{word.others:,}", f"{word.prompts:,}"]


def tier_table(report: Report) -> Table:
    rows: list[list[Cell]] = []
    for tier in report.advice.tiers if report.advice else ():
        rows.append([tier.name, f"{tier.max_new_tokens:,}", *map(percent, (tier.share, *tier.interval))])
        rows[-1].append(say("of-answers", share=percent(tier.needed_by)))
    return Table(head=_head("tier", "max_new_tokens", "cuts", "95 % from", "to", "smallest tier for"), rows=rows)


def row_limit_table(report: Report) -> Table:
    sizes = report.memory.training
    rows: list[list[Cell]] = []
    for limit in report.row_limits:
        tokens = (f"{number:,}" for number in (limit.prompts_over, limit.tokens_dropped, limit.tokens_cut))
        size = human_size(sizes[limit.max_length]) if limit.max_length in sizes else ""
        rows.append([f"{limit.max_length:,}", f"{limit.over:,}", percent(limit.share), *tokens, size])
    note = say("memory", setup=report.memory.training_setup) if sizes else say("no-memory")
    names = "rows over", "share", "prompt fills it", "tokens lost if dropped", "if cut", "training memory"
    table = Table(head=["max_length", *_head(*names)], rows=rows, notes=[note])
    return table if sizes else table.without(len(names))


def _head(*names: str) -> list[Bilingual]:
    return list(map(heading, names))


def _name(p: float) -> str:
    return f"p{p * 100:.0f}"


def _quantiles(lengths: Histogram, shares: Sequence[float] = QUANTILES) -> list[str]:
    return [f"{lengths.quantile(p):,}" if lengths.rows else "" for p in shares]

"""The tables of a report: their figures, and their headings in both languages. Knows nothing of how they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from suffice.profiling.accumulators import GroupLengths
from suffice.profiling.bilingual import Text, human_size, percent
from suffice.profiling.histogram import Histogram
from suffice.profiling.report import LIMITS, QUANTILES, Report, interval
from suffice.profiling.words import SplittingWord

__all__ = ["Cell", "Table", "group_table", "length_table", "row_limit_table", "tier_table", "word_tables"]

Cell = str | Text
_GROUP_QUANTILES = (0.5, 0.9, 0.99)
_CHINESE = {
    "tokens": "token",
    "rows": "行数",
    "mean": "均值",
    "max": "最长",
    "prompt": "提示",
    "answer": "回答",
    "whole": "合计",
    "prompts": "提示数",
    "answers": "回答数",
    "prompt p50": "提示 p50",
    "cut": "截断",
    "cap for 1 %": "1 % 上限",
    "tier": "档位",
    "none": "无",
    "word": "词",
    "times as long": "倍数",
    "typical tokens": "典型长度",
    "without it": "其他",
    "cuts": "截断",
    "95 % from": "95 % 自",
    "to": "至",
    "smallest tier for": "恰好够用",
    "rows over": "超长行",
    "share": "占比",
    "prompt fills it": "提示已占满",
    "tokens lost if dropped": "丢弃损失 token",
    "if cut": "截断损失",
    "training memory": "训练显存",
}
"""Headings that are words."""
_UNSETTLED = Text(
    "?: the rows do not settle which cap cuts at most 1 % (too few, or too many were cut)",
    "?：行数太少或截断太多，无法断定哪个上限至多截断 1 %。",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of figures under their headings."""

    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[Text] = ()

    def without(self, place: int) -> Table:
        """The same without one column."""
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


def _confidence(answers: Histogram) -> Text:
    ends = [(_name(p), *("?" if end is None else f"{end:,}" for end in interval(answers, p))) for p in QUANTILES]
    return Text(
        "answer quantiles with 95 % confidence: " + "; ".join(f"{name} {low} to {high}" for name, low, high in ends),
        "回答分位数的 95 % 置信区间：" + "；".join(f"{name} {low} 至 {high}" for name, low, high in ends),
    )


def group_table(column: str, groups: Mapping[str, GroupLengths], report: Report, most: int) -> Table:
    """The `most` largest groups of a column: their lengths, and the cap and tier that they need."""
    more = len(groups) - most
    shown = dict(list(groups.items())[:most])
    rest = Text(f"and {more:,} more (all of them with --json)", f"另有 {more:,} 个（--json 给出全部）")
    notes = [rest] if more > 0 else []
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
        notes.append(_UNSETTLED)
    names = "answers", "prompt p50", *map(_name, _GROUP_QUANTILES), "max", "cut", "cap for 1 %", "tier"
    table = Table(head=[column, *_head(*names)], rows=rows, notes=notes)
    return table if any(row[-3] for row in rows) else table.without(len(names) - 2)  # no finish reasons, no column


def _prompt_groups(column: str, groups: Mapping[str, GroupLengths], notes: Sequence[Text]) -> Table:
    prompts = {name: group.prompt for name, group in groups.items() if group.prompt.rows}
    return Table(
        head=[column, *_head("prompts", *map(_name, QUANTILES), "max")],
        rows=[[name, f"{each.rows:,}", *_quantiles(each), f"{each.largest:,}"] for name, each in prompts.items()],
        notes=notes,
    )


def word_tables(report: Report) -> Iterator[tuple[Text, Table]]:
    """Words of prompts whose answers are longer, and of those whose answers are shorter, with a title each."""
    head = _head("word", "times as long", "typical tokens", "without it", "prompts")
    titles = Text("longer answers", "回答更长"), Text("shorter answers", "回答更短")
    for title, words in zip(titles, report.words, strict=True):
        if words:
            yield title, Table(head=head, rows=list(map(_word, words)))


def _word(word: SplittingWord) -> list[Cell]:
    factor = f"×{word.factor:.1f}" if word.factor >= 1 else f"÷{1 / word.factor:.1f}"
    return [word.word, factor, f"{word.typical:,}", f"{word.others:,}", f"{word.prompts:,}"]


def tier_table(report: Report) -> Table:
    """How each tier would serve this traffic."""
    rows: list[list[Cell]] = []
    for tier in report.advice.tiers if report.advice else ():
        needed = percent(tier.needed_by)
        rows.append([tier.name, f"{tier.max_new_tokens:,}", *map(percent, (tier.share, *tier.interval))])
        rows[-1].append(Text(f"{needed} of answers", f"{needed} 的回答"))
    return Table(head=_head("tier", "max_new_tokens", "cuts", "95 % from", "to", "smallest tier for"), rows=rows)


def row_limit_table(report: Report) -> Table:
    """What each `max_length` does to a training set."""
    memory = report.memory
    sizes = (memory.training if memory else None) or {}
    rows: list[list[Cell]] = []
    for limit in report.row_limits:
        tokens = (f"{number:,}" for number in (limit.prompts_over, limit.tokens_dropped, limit.tokens_cut))
        size = human_size(sizes[limit.max_length]) if limit.max_length in sizes else ""
        rows.append([f"{limit.max_length:,}", f"{limit.over:,}", percent(limit.share), *tokens, size])
    about = memory.training_setup if memory and memory.training is not None else None
    note = Text(f"training memory: {about or 'give --model FOLDER'}", f"训练显存：{about or '请给出 --model FOLDER'}")
    names = "rows over", "share", "prompt fills it", "tokens lost if dropped", "if cut", "training memory"
    table = Table(head=["max_length", *_head(*names)], rows=rows, notes=[note])
    return table if about is not None else table.without(len(names))


def _head(*names: str) -> list[Text]:
    return [Text(name, _CHINESE.get(name, name)) for name in names]


def _name(p: float) -> str:
    return f"p{p * 100:.0f}"


def _quantiles(lengths: Histogram, shares: Sequence[float] = QUANTILES) -> list[str]:
    return [f"{lengths.quantile(p):,}" if lengths.rows else "" for p in shares]

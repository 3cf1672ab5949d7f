"""A report as one HTML page that loads nothing: inline SVG, light and dark, English and Chinese."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files

from suffice.profiling.accumulators import GroupLengths
from suffice.profiling.histogram import Histogram
from suffice.profiling.phrases import advice_sentences, finish_sentences, human_size, percent
from suffice.profiling.report import LIMITS, QUANTILES, Report
from suffice.profiling.svg import group_chart, histogram_chart, share_chart
from suffice.profiling.words import SplittingWord

__all__ = ["report_page"]

_SHOWN_GROUPS = 40
_CHARTED_GROUPS = 16


def report_page(report: Report) -> str:
    """The whole page."""
    page = files("suffice.profiling").joinpath("page.html").read_text("utf-8")
    body = "\n".join(_sections(report))
    return page.replace("{{title}}", escape(report.name)).replace("{{body}}", body)


def _both(english: str, chinese: str) -> str:
    """A text in both languages, of which the page shows one."""
    return f'<span lang="en">{escape(english)}</span><span lang="zh">{escape(chinese)}</span>'


def _sections(report: Report) -> Iterator[str]:
    everything = report.profile.all
    yield _head(report)
    yield _advice(report)
    if everything.prompt.rows or everything.answer.rows:
        yield _section(_both("Lengths in tokens", "长度（token）"), _lengths(report))
    for name, histogram in (
        (("Answers", "回答"), everything.answer),
        (("Prompts", "提示"), everything.prompt),
    ):
        if histogram.rows:
            marks = [(f"p{p * 100:.0f}", histogram.quantile(p)) for p in (0.5, 0.9, 0.99)]
            chart = histogram_chart(histogram, marks, f"{name[0]}: histogram of tokens")
            yield _section(_both(*name), chart + _caption("Tokens, logarithmic axis.", "横轴为 token 数（对数）。"))
    yield from _distribution(report)
    for column, groups in report.groups.items():
        yield _section(_both(f"By {column}", f"按 {column} 划分"), _groups(column, groups, report))
    if any(report.words):
        yield _section(_both("Words at which lengths split", "区分长短的词"), _words(report))
    if report.advice is not None and report.advice.tiers:
        yield _section(_both("Tiers", "档位"), _tiers(report))
    if report.row_limits:
        yield _section(_both("Training: max_length", "训练：max_length"), _row_limits(report))


def _head(report: Report) -> str:
    found, answers = report.found, report.profile.all.answer.rows
    english = f"{found.rows:,} rows, {answers:,} answers; {found.given:,} token counts given, {found.counted:,} counted"
    chinese = (
        f"{found.rows:,} 行，{answers:,} 条回答；{found.given:,} 个 token 数由数据给出，{found.counted:,} 个为实际计数"
    )
    notes = [*found.notes, *found.examples]
    if found.errors:
        notes.insert(0, f"{found.errors.total():,} rows could not be used / 行无法使用")
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<h1>{escape(report.name)}</h1><p class=sub>{_both(english, chinese)}</p>" + (
        f"<ul class=notes>{listed}</ul>" if notes else ""
    )


def _advice(report: Report) -> str:
    cap = report.advice.cap if report.advice else None
    number = (
        ""
        if cap is None or cap.suggested is None
        else f"<div class=number><b>{cap.suggested:,}</b>max_new_tokens</div>"
    )
    english = [*advice_sentences(report, "en"), *finish_sentences(report, "en")]
    chinese = [*advice_sentences(report, "zh"), *finish_sentences(report, "zh")]
    said = "".join(f"<p>{_both(*pair)}</p>" for pair in zip(english, chinese, strict=True))
    return f"<section class=advice>{number}<div>{said}</div></section>"


def _lengths(report: Report) -> str:
    everything = report.profile.all
    head = [
        "",
        _both("rows", "行数"),
        _both("mean", "均值"),
        *(f"p{p * 100:.0f}" for p in QUANTILES),
        _both("max", "最长"),
    ]
    head += [f"&gt; {limit:,}" for limit in LIMITS]
    rows = []
    named: tuple[tuple[tuple[str, str], Histogram], ...] = (
        (("prompt", "提示"), everything.prompt),
        (("answer", "回答"), everything.answer),
        (("whole", "合计"), everything.whole),
    )
    for name, lengths in named:
        if lengths.rows:
            quantiles = (f"{lengths.quantile(p):,}" for p in QUANTILES)
            shares = (percent(lengths.over(limit) / lengths.rows) for limit in LIMITS)
            row = [
                _both(*name),
                f"{lengths.rows:,}",
                f"{lengths.mean:,.0f}",
                *quantiles,
                f"{lengths.largest:,}",
                *shares,
            ]
            rows.append(row)
    return _table(head, rows)


def _distribution(report: Report) -> Iterator[str]:
    everything = report.profile.all
    series = [
        (name, histogram)
        for name, histogram in (("answer 回答", everything.answer), ("prompt 提示", everything.prompt))
        if histogram.rows
    ]
    if series:
        tiers = [(tier.name, tier.max_new_tokens) for tier in report.advice.tiers] if report.advice else []
        chart = share_chart(series, tiers, "Share of rows up to a length")
        yield _section(
            _both("Share up to a length", "累积分布"),
            chart + _caption("Lines: the caps of the tiers.", "竖线：各档位的上限。"),
        )


def _groups(column: str, groups: Mapping[str, GroupLengths], report: Report) -> str:
    advised = report.advice.by_group.get(column, {}) if report.advice else {}
    head = [escape(column), _both("answers", "回答数"), _both("prompt p50", "提示 p50"), "p50", "p90", "p99"]
    head += [_both("max", "最长"), _both("cut", "截断"), _both("cap for 1 %", "1 % 上限"), _both("tier", "档位")]
    rows = []
    for name, group in list(groups.items())[:_SHOWN_GROUPS]:
        answer, known = group.answer, group.known_finishes
        quantiles = (f"{answer.quantile(p):,}" if answer.rows else "" for p in (0.5, 0.9, 0.99, 1.0))
        cap, tier = advised.get(name, (None, None))
        shown = "" if cap is None else "?" if cap.suggested is None else f"{cap.suggested:,}"
        prompt = f"{group.prompt.quantile(0.5):,}" if group.prompt.rows else ""
        cut = percent(group.finishes["length"] / known) if known else ""
        rows.append([escape(name), f"{answer.rows:,}", prompt, *quantiles, cut, shown, tier or ("–" if cap else "")])
    charted = [(name, group.answer) for name, group in list(groups.items())[:_CHARTED_GROUPS] if group.answer.rows]
    parts = [_table(head, rows)]
    if charted:
        parts.insert(
            0,
            group_chart(charted, f"Answers by {column}")
            + _caption("p50 ● p90 ● p99 of the answers.", "回答的 p50 ● p90 ● p99。"),
        )
    if any(row[-2] == "?" for row in rows):
        parts.append(_caption("?: too few rows, or too many cut, to say.", "?：行数太少或截断太多，无法断定。"))
    if (more := len(groups) - _SHOWN_GROUPS) > 0:
        parts.append(_caption(f"And {more:,} more.", f"另有 {more:,} 个。"))
    return "".join(parts)


def _words(report: Report) -> str:
    longer, shorter = report.words
    parts = []
    for name, words in ((("longer answers", "回答更长"), longer), (("shorter answers", "回答更短"), shorter)):
        if words:
            parts.append(
                f"<h3>{_both(*name)}</h3>"
                + _table(
                    [
                        _both("word", "词"),
                        _both("times as long", "倍数"),
                        _both("typical tokens", "典型长度"),
                        _both("without it", "其他"),
                        _both("prompts", "提示数"),
                    ],
                    [_word(word) for word in words],
                )
            )
    return f"<div class=pair>{''.join(f'<div>{part}</div>' for part in parts)}</div>"


def _word(word: SplittingWord) -> list[str]:
    factor = f"× {word.factor:.1f}" if word.factor >= 1 else f"÷ {1 / word.factor:.1f}"
    return [escape(word.word), factor, f"{word.typical:,}", f"{word.others:,}", f"{word.prompts:,}"]


def _tiers(report: Report) -> str:
    assert report.advice is not None
    head = [
        _both("tier", "档位"),
        "max_new_tokens",
        _both("cuts", "截断"),
        "95 %",
        _both("smallest tier for", "恰好够用的回答"),
    ]
    rows = []
    for tier in report.advice.tiers:
        low, high = (percent(end) for end in tier.interval)
        rows.append(
            [
                escape(tier.name),
                f"{tier.max_new_tokens:,}",
                percent(tier.share),
                f"{low} – {high}",
                percent(tier.needed_by),
            ]
        )
    return _table(head, rows)


def _row_limits(report: Report) -> str:
    memory = report.memory.training if report.memory else None
    head = ["max_length", _both("rows over", "超长行"), _both("share", "占比"), _both("prompt fills it", "提示已占满")]
    head += [_both("tokens lost if dropped", "丢弃损失 token"), _both("if cut", "截断损失"), _both("memory", "显存")]
    rows = []
    for limit in report.row_limits:
        size = human_size(memory[limit.max_length]) if memory and limit.max_length in memory else "–"
        numbers = (f"{n:,}" for n in (limit.prompts_over, limit.tokens_dropped, limit.tokens_cut))
        rows.append([f"{limit.max_length:,}", f"{limit.over:,}", percent(limit.share), *numbers, size])
    setup = report.memory.training_setup if report.memory and memory else "memory: give --model FOLDER"
    return _table(head, rows) + f"<p class=caption>{escape(setup)}</p>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _caption(english: str, chinese: str) -> str:
    return f"<p class=caption>{_both(english, chinese)}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"

"""A report as one HTML page that loads nothing: inline SVG, light and dark, English and Chinese."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files

from suffice.profiling.bilingual import Bilingual, heading, say
from suffice.profiling.charts import Chart, group_chart, length_charts
from suffice.profiling.report import Report
from suffice.profiling.sentences import advice_sentences, finish_sentences
from suffice.profiling.svg import svg
from suffice.profiling.tables import Cell, Table, group_table, length_table, row_limit_table, tier_table, word_tables

__all__ = ["report_page"]

_SHOWN_GROUPS = 40
_CHARTED_GROUPS = 16


def report_page(report: Report) -> str:
    page = files("suffice.profiling").joinpath("page.html").read_text("utf-8")
    body = "\n".join((_head(report), _advice(report), *_sections(report)))
    return page.replace("{{title}}", escape(report.name)).replace("{{body}}", body)


def _sections(report: Report) -> Iterator[str]:
    yield _section(heading("Lengths in tokens"), _table(length_table(report)))
    for chart in length_charts(report):
        yield _section(chart.title, _chart(chart))
    for column, groups in report.groups.items():
        drawn = group_chart(column, groups, _CHARTED_GROUPS)
        content = _table(group_table(column, groups, report, _SHOWN_GROUPS))
        yield _section(say("by-column", column=column), (_chart(drawn) if drawn else "") + content)
    words = "".join(f"<div><h3>{_html(title)}</h3>{_table(table)}</div>" for title, table in word_tables(report))
    yield _section(heading("Words at which lengths split"), words and f"<div class=pair>{words}</div>")
    yield _section(heading("Tiers"), _table(tier_table(report)))
    yield _section(heading("Training: max_length"), _table(row_limit_table(report)))


def _head(report: Report) -> str:
    found, answers = report.found, report.profile.all.answer.rows
    about = say("found", rows=found.rows, answers=answers, given=found.given, counted=found.counted)
    unusable = [say("unusable", rows=found.errors.total())] if found.errors else []
    notes: list[Cell] = [*unusable, *found.notes, *found.examples]
    listed = "".join(f"<li>{_html(note)}</li>" for note in notes)
    head = f"<h1>{escape(report.name)}</h1><p class=sub>{_html(about)}</p>"
    return head + (f"<ul class=notes>{listed}</ul>" if notes else "")


def _advice(report: Report) -> str:
    cap = report.advice.cap.suggested if report.advice else None
    number = "" if cap is None else f"<div class=number><b>{cap:,}</b>max_new_tokens</div>"
    said = "".join(f"<p>{_html(text)}</p>" for text in (*advice_sentences(report), *finish_sentences(report)))
    return f"<section class=advice>{number}<div>{said}</div></section>"


def _html(text: Cell) -> str:
    """A text; one in both languages as two, of which the page shows one."""
    if isinstance(text, str):
        return escape(text)
    return f'<span lang="en">{escape(text.en)}</span><span lang="zh">{escape(text.zh)}</span>'


def _section(title: Bilingual, content: str) -> str:
    return f"<section><h2>{_html(title)}</h2>{content}</section>" if content else ""


def _chart(chart: Chart) -> str:
    return f"{svg(chart)}<p class=caption>{_html(chart.caption)}</p>"


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    head = "".join(f"<th>{_html(cell)}</th>" for cell in table.head)
    body = "".join("<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    shown = f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    return shown + "".join(f"<p class=caption>{_html(note)}</p>" for note in table.notes)

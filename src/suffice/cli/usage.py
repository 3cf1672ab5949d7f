"""`suffice usage`: how much each key used, and how often answers were cut."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

from suffice.cli.command import Command, OneOf, Option
from suffice.cli.keys import database_options, open_store, parse_time

if TYPE_CHECKING:
    from suffice.serve.request_log.usage_report import By

__all__ = ["command"]

_EXAMPLES = """
suffice usage                          by key
suffice usage --by day --since 30d
suffice usage --by tier --csv > tiers.csv
"""


def _run(by: By, since: str | None, as_csv: bool, database: str | None, config: str | None) -> int:
    """Show requests, tokens, cut and looping answers, and latencies, from the server's rows."""
    store = open_store(database, config)
    from suffice.serve.request_log.usage_report import COLUMNS, totals

    began = parse_time(since, future=False) if since is not None else 0.0
    rows = [{by: total.name, **total.row()} for total in totals(store, by, began)]
    header = [by, *COLUMNS]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, header)
        writer.writeheader()
        writer.writerows(rows)
        return 0
    titles = [name.replace("_", " ").replace(" percent", " %") for name in header]
    lines = [titles, *([str(row[name]) for name in header] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    return 0


_BY = ("key", "tier", "model", "day")
_OPTIONS = [
    Option(
        ["--by"],
        type=OneOf(_BY),
        default="key",
        show_default=True,
        help="What each line adds up.",
    ),
    Option(["--since"], metavar="WHEN", help="12h, 30d, 2w ago, or a date. [default: all]"),
    Option(["--csv", "as_csv"], is_flag=True, help="Comma-separated values."),
    *database_options(),
]
command = Command("usage", callback=_run, params=_OPTIONS, help=_run.__doc__, examples=_EXAMPLES)

"""Says on the terminal why rows were not answered: the first few of each reason, and a count of every reason."""

from __future__ import annotations

import re
from collections import Counter

from suffice.batch import Row
from suffice.cli.notes import tell

__all__ = ["RowFailures", "rows_text"]

_SHOWN = 3  # rows of one reason that are said as they come
_REASONS = 20  # that are counted on lines of their own
_VALUE = re.compile(r"""\(.*\)|"[^"]*"|'[^']*'""")
_NUMBER = re.compile(r"(?<!HTTP )(?<![\w-])\d[\d.,:]*")  # not of a name, such as UTF-8


class RowFailures:
    """Counts rows that failed. `several` says whether the rows are from several datasets, which are named then."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._counts: Counter[str] = Counter()

    def add(self, row: Row, reason: str) -> None:
        """Count a row, and say it if its reason is still new."""
        kind = _kind(reason)
        self._counts[kind] += 1
        if self._counts[kind] > _SHOWN:
            return
        where = f"{row.source}, {row.unit} {row.line}" if self._several and row.source else f"{row.unit} {row.line}"
        more = "; more like this are only counted" if self._counts[kind] == _SHOWN else ""
        tell(_printable(f"{where}: {reason}{more}"))

    def describe(self) -> list[str]:
        """Lines such as "not answered: 12 rows (9 not valid JSON; 3 the prompt is empty)"."""
        if not self._counts:
            return []
        counts = self._counts.most_common()
        lines = [f"not answered: {rows_text(self._counts.total())}, each with its error in the results"]
        lines += [_printable(f"  {count:>6} {kind}") for kind, count in counts[:_REASONS]]
        if rest := counts[_REASONS:]:
            lines.append(f"  {sum(count for _, count in rest):>6} for {len(rest)} other reasons")
        return lines


def _kind(reason: str) -> str:
    """A reason without what is different from row to row: values, numbers, what stands behind the colon."""
    parts = _VALUE.sub("…", reason).split(": ")
    heads = next((end for end, part in enumerate(parts, 1) if " " in part), len(parts))  # not a host, but a sentence
    return ": ".join([*parts[: heads - 1], _NUMBER.sub("…", parts[heads - 1])])


def rows_text(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _printable(text: str) -> str:
    """One line: what is in a dataset may not move the terminal's cursor."""
    return "".join(each if each.isprintable() else "�" for each in text)

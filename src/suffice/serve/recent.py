"""What a caller used lately: the store's rows, added up by the database and kept for whoever looks again."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from suffice.serve.problems import Problem
from suffice.serve.store import Store, StoreError

__all__ = ["GROUPS", "MAX_DAYS", "RecentUsage", "read_query"]

GROUPS = ("day", "tier", "model")
"""What the rows can be grouped by: columns of the store."""
MAX_DAYS = 366
_DEFAULT_DAYS = 30
_FRESH = 5.0  # seconds that sums are good for
_REMEMBERED = 256


class RecentUsage:
    """Sums of a caller's own rows.

    Args:
        store: where the rows are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, int, str], tuple[float, Sequence[Mapping[str, Any]]]] = {}
        self._lock = asyncio.Lock()

    async def of(self, key_name: str, by: str, days: int) -> Sequence[Mapping[str, Any]]:
        """The groups in order of their names; the database is asked once in five seconds, in a thread.

        Args:
            key_name: whose; '' for those who have no key.
            by: one of `GROUPS`.
            days: how many, today (UTC) included.

        Raises:
            Problem: 503, while the database is away.
        """
        asked = by, days, key_name
        async with self._lock:
            until, rows = self._known.get(asked, (0.0, ()))
            if time.monotonic() < until:
                return rows
            first = time.strftime("%Y-%m-%d", time.gmtime(time.time() - (days - 1) * 86400))
            try:
                rows = await asyncio.to_thread(self._store.sums, by, first, key_name or None)
            except StoreError:
                raise Problem(503, "the database is away: try again later", code="database_away") from None
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[asked] = time.monotonic() + _FRESH, rows
            return rows


def read_query(query: bytes) -> tuple[str, int]:
    """What to group by and how many days, from the query of a URL.

    Raises:
        Problem: 400 for a value that is neither, or that comes twice.
    """
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    by = _one(given, "by", "day")
    if by not in GROUPS:
        raise Problem(400, f"by is {by!r}: it must be one of {', '.join(GROUPS)}", param="by", code="invalid_value")
    days = _one(given, "days", str(_DEFAULT_DAYS))
    if not re.fullmatch(r"[0-9]{1,3}(\.0)?", days) or not 1 <= float(days) <= MAX_DAYS:
        message = f"days is {days!r}: it must be a whole number from 1 to {MAX_DAYS}"
        raise Problem(400, message, param="days", code="invalid_value")
    return by, int(float(days))


def _one(given: Mapping[str, Sequence[str]], name: str, default: str) -> str:
    values = given.get(name, [default])
    if len(values) > 1:
        raise Problem(400, f"{name} comes {len(values)} times: give it once", param=name, code="invalid_value")
    return values[0]

"""What a caller used lately: rows of the request log, summed by the database and cached for five seconds."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from suffice.errors import StoreAwayError, StoreError
from suffice.outage import Outage
from suffice.serve.http.errors import Problem
from suffice.serve.request_log.store import Store

__all__ = ["GROUPS", "MAX_DAYS", "RecentUsage", "read_query"]

GROUPS = ("day", "tier", "model")  # columns of the store
MAX_DAYS = 366
_LOG = logging.getLogger(__name__)
_DEFAULT_DAYS = 30
_FRESH = 5.0  # seconds that an answer is reused, an error too
_REMEMBERED = 256
_AT_ONCE = 4  # queries that the database works on; rows of new requests are written over the same connections
_IN_LINE = 8  # waiting queries of one caller
_PATIENCE = 10.0  # seconds

_Sums = Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class _Lane:
    """One caller's queries, which are answered one after another."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class RecentUsage:
    """Sums over a caller's own rows; a caller waits `patience` seconds for the database."""

    def __init__(self, store: Store, patience: float = _PATIENCE) -> None:
        self._store, self._patience = store, patience
        self._outage = Outage(_LOG, "usage can be read again")
        self._known: dict[tuple[str, int, str], tuple[float, _Sums | Problem]] = {}
        self._lanes: dict[str, _Lane] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    @property
    def callers(self) -> int:
        """How many have queries that are not answered yet."""
        return len(self._lanes)

    async def of(self, key_name: str, by: str, days: int) -> _Sums:
        """The groups (`by` is one of `GROUPS`) of so many days, today (UTC) included, in order of their names.

        The same query reaches the database at most once in five seconds. Callers without a key have the `key_name` ''.

        Raises:
            Problem: 503 while the database is away or too slow; 500 where it refuses; 429 while too many queries of
                this caller wait.
        """
        lane = self._lanes.setdefault(key_name, _Lane())
        if lane.waiting >= _IN_LINE:
            message = f"{lane.waiting} questions of yours about usage wait for an answer: ask again after that"
            raise Problem(429, message, code="too_many_questions", headers={"retry-after": "5"})
        lane.waiting += 1
        try:
            async with lane.lock:
                found = await self._find((by, days, key_name))
        finally:
            lane.waiting -= 1
            if not lane.waiting:
                del self._lanes[key_name]
        if isinstance(found, Problem):
            raise found
        return found

    async def _find(self, query: tuple[str, int, str]) -> _Sums | Problem:
        until, found = self._known.get(query, (0.0, ()))
        if time.monotonic() < until:
            return found
        try:
            async with asyncio.timeout(self._patience):
                found = await self._sum(*query)
            self._outage.worked()
        except (StoreAwayError, TimeoutError):
            found = Problem(503, "the database is away or too slow: try again later", code="database_away")
        except StoreError as error:
            self._outage.failed(f"usage cannot be read: {error}", cause="refused")
            found = Problem(500, "usage cannot be read: the operator's log says why", code="database_error")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[query] = time.monotonic() + _FRESH, found
        return found

    async def _sum(self, by: str, days: int, key_name: str) -> _Sums:
        await self._turns.acquire()
        first = time.strftime("%Y-%m-%d", time.gmtime(time.time() - (days - 1) * 86400))
        asking = _in_thread(partial(self._store.sums, by, first, key_name or None, self._patience))
        asking.add_done_callback(self._answered)
        return await asyncio.shield(asking)

    def _answered(self, asking: asyncio.Future[_Sums]) -> None:
        """A turn ends with the database's work, which may continue after the last caller has given up."""
        self._turns.release()
        asking.exception()  # marked as seen where no caller waits


def _in_thread(work: Callable[[], _Sums]) -> asyncio.Future[_Sums]:
    """Run it in a daemon thread: the end of the process would wait for the threads of `asyncio.to_thread`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Sums] = loop.create_future()

    def run() -> None:
        try:
            tell = partial(done.set_result, work())
        except Exception as error:
            tell = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="usage", daemon=True).start()
    return done


def read_query(query: bytes) -> tuple[str, int]:
    """What to group by and how many days, from the query of a URL.

    Raises:
        Problem: 400 for a value that is not allowed, or that is given twice.
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

"""Counts of rate limits in PostgreSQL, shared by replicas: a storage for the package `limits`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
from limits.aio.storage import Storage

__all__ = ["PostgresCounts"]

_CONNECTIONS = 4  # a count takes a fraction of a millisecond, so a few connections serve hundreds of requests a second
_NOW = "extract(epoch FROM clock_timestamp())"
_ADD = f"""
INSERT INTO counts AS old (key, count, ends) VALUES (%(key)s, greatest(%(amount)s, 0), {_NOW} + %(expiry)s)
ON CONFLICT (key) DO UPDATE SET
    count = CASE WHEN old.ends > {_NOW} THEN old.count + %(amount)s ELSE excluded.count END,
    ends = CASE WHEN old.ends > {_NOW} THEN old.ends ELSE excluded.ends END
RETURNING count, ends - {_NOW}
"""  # noqa: S608  # no value is in it
"""One statement, so that concurrent counts are exact. All times are those of the database, whose clock replicas share.
An amount that is given back after its window has ended does not begin a new one."""
_GET = f"SELECT coalesce(sum(count), 0) FROM counts WHERE key = %s AND ends > {_NOW}"  # noqa: S608  # no value is in it


class PostgresCounts(Storage):
    """Fixed windows in the table `counts`, which the store's migrations make. `uri` is `async+postgresql://...`."""

    STORAGE_SCHEME = ["async+postgresql"]  # noqa: RUF012  # the base class declares it so

    def __init__(self, uri: str, wrap_exceptions: bool = False, **_: Any) -> None:
        super().__init__(uri, wrap_exceptions)
        self._address = uri.removeprefix("async+")
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._ends: dict[str, float] = {}

    @property
    def base_exceptions(self) -> type[Exception]:
        return psycopg.Error

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a count whose window is `expiry` seconds long from its first use; the count after it."""
        count, left = await self._one(_ADD, {"key": key, "expiry": expiry, "amount": amount})
        self._ends[key] = time.time() + float(left)
        return int(count)

    async def get(self, key: str) -> int:
        """The count in the window that runs; 0 where none does."""
        return int((await self._one(_GET, (key,)))[0])

    async def get_expiry(self, key: str) -> float:
        """When the window of the last count ends, in seconds since 1970."""
        return self._ends.get(key, time.time())

    async def check(self) -> bool:
        await self._one("SELECT count(*) FROM counts")
        return True

    async def reset(self) -> int | None:
        return int((await self._one("WITH gone AS (DELETE FROM counts RETURNING 1) SELECT count(*) FROM gone"))[0])

    async def clear(self, key: str) -> None:
        query = "WITH gone AS (DELETE FROM counts WHERE key = %s RETURNING 1) SELECT count(*) FROM gone"
        await self._one(query, (key,))

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _one(self, query: str, values: Any = None) -> tuple[Any, ...]:
        """A query's only row. A connection that failed, or whose user was cancelled, is not used again."""
        async with self._turns:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                row = await (await connection.execute(query, values)).fetchone()
            except BaseException:
                await connection.close()
                raise
            self._idle.append(connection)
        assert row is not None
        return tuple(row)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        # Losing counts in a crash of the database costs less than a flush to the disk for each request.
        return await psycopg.AsyncConnection.connect(
            self._address, autocommit=True, options="-c synchronous_commit=off", connect_timeout=5
        )

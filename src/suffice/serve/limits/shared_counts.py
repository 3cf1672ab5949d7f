"""Counts that replicas share, in PostgreSQL or Redis, and what happens while that storage is away."""

from __future__ import annotations

import asyncio
import logging
import time

from limits.aio.storage import Storage
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from suffice.errors import StorageAwayError, UsageError, first_line, packages_of
from suffice.outage import Outage
from suffice.serve.config import without_password

__all__ = ["SharedCounts"]

_LOG = logging.getLogger(__name__)
_PATIENCE = 1.0  # seconds that a request waits for the storage
_PAUSE = 5.0  # seconds


class SharedCounts:
    """Fixed windows in a storage of the package limits: `database`, whose URL is given, or a redis:// URL.

    Raises:
        UsageError: the storage cannot be used.
    """

    def __init__(self, storage: str, database: str) -> None:
        self._storage = _open_database(database) if storage == "database" else _open(storage)
        theirs = self._storage.base_exceptions
        theirs = theirs if isinstance(theirs, tuple) else (theirs,)
        self._failures: tuple[type[Exception], ...] = (*theirs, OSError)  # a TimeoutError is one
        self.pause = _PAUSE
        """Seconds until a storage that is away is asked again."""
        self._ask_again = 0.0
        self._outage = Outage(_LOG, "the storage of limits is back")

    @property
    def there(self) -> bool:
        """Whether the storage is worth asking."""
        return not self._outage.lasts or time.monotonic() >= self._ask_again

    async def add(self, key: str, seconds: int, amount: int) -> tuple[int, float]:
        """The count of a window after `amount`, and when it ends; a new one begins where there is none.

        Raises:
            StorageAwayError: the storage did not answer within a second.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                count = await self._storage.incr(key, seconds, amount=amount)
                ends = await self._storage.get_expiry(key)
        except self._failures as error:
            why = first_line(error)
            self._outage.failed(f"the storage of limits is away ({why}); this replica counts alone")
            self._ask_again = time.monotonic() + self.pause
            raise StorageAwayError(why) from None
        self._outage.worked()
        return count, ends

    async def check(self) -> None:
        """Raises `UsageError` where the storage does not answer."""
        why = "nothing answers there"
        try:
            async with asyncio.timeout(_PATIENCE):
                if await self._storage.check():
                    return
        except self._failures as error:
            why = first_line(error)
        raise UsageError(f"the storage of limits cannot be reached: {why}")

    async def close(self) -> None:
        if (close := getattr(self._storage, "close", None)) is not None:
            await close()


def _open_database(database: str) -> Storage:
    if not database.startswith("postgresql"):
        raise UsageError(f"quota_storage = database needs PostgreSQL, and the database is {database.partition(':')[0]}")
    with packages_of("postgresql", "limits in the database need"):
        import suffice.serve.limits.postgres_counts  # noqa: F401  # which makes the scheme known
    return _open(f"postgresql:{database.partition(':')[2]}")


def _open(uri: str) -> Storage:
    # redis-py: what limits' default client of newer versions needs is not what limits gives it
    options = {"implementation": "redispy"} if uri.startswith("redis") else {}
    try:
        found = storage_from_string(f"async+{uri}", **options)
    except (ConfigurationError, ImportError, ValueError):
        shown = without_password(uri)
        raise UsageError(
            f"quota_storage {shown!r} cannot be used: it must be memory, database, or a redis:// URL (extra redis)"
        ) from None
    assert isinstance(found, Storage)
    return found

"""Rate limits and quotas per key: reserved by the prediction before an answer, settled by its real length after it."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.errors import ConfigurationError
from limits.storage import storage_from_string

from suffice.errors import UsageError
from suffice.serve.callers import Caller
from suffice.serve.config import without_password
from suffice.serve.problems import Problem

__all__ = ["Quotas", "Reservation"]

_PATIENCE = 1.0  # seconds that a request waits for a shared storage
_PAUSE = 5.0  # seconds until a storage that was away is asked again


@dataclass(frozen=True, slots=True)
class _Hold:
    """An amount taken from one limit."""

    storage: Storage
    item: RateLimitItem
    key: str
    """Its name in the storage."""
    kind: str
    """`requests`, `tokens` or `tokens-day`."""
    amount: int
    window_ends: float
    """Seconds since 1970; what was taken from a window that is over needs no settling."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one request holds."""

    holds: tuple[_Hold, ...]


class Quotas:
    """Counts in fixed windows that begin with a key's first request in them.

    While a shared storage is away, each replica counts for itself: limits are then per replica, and nobody is refused
    because of it.

    Args:
        storage: `memory`; `database`, for replicas that share PostgreSQL; or a redis:// URL that they share.
        database: URL of the database.

    Raises:
        UsageError: the storage cannot be used.
    """

    def __init__(self, storage: str = "memory", database: str = "") -> None:
        self._own = _open("memory://")
        self._shared = None if storage == "memory" else _open_shared(storage, database)
        self._away_until = 0.0

    async def check(self) -> None:
        """Ask a shared storage whether it is there.

        Raises:
            UsageError: it is not.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._shared is not None and not await self._shared.check():
                    raise UsageError("the storage of limits does not answer")
        except _failures(self._shared) as error:
            raise UsageError(f"the storage of limits does not answer: {_first_line(error)}") from None

    async def close(self) -> None:
        """Close the connections of a shared storage."""
        if (close := getattr(self._shared, "close", None)) is not None:
            await close()

    async def reserve(self, caller: Caller, tokens: int) -> tuple[Reservation | None, dict[str, str]]:
        """Take one request and `tokens` from the caller's limits: all of it, or nothing.

        Returns:
            What is held, and the x-ratelimit headers.

        Raises:
            Problem: 429, with the seconds after which it is worth trying again.
        """
        if self._shared is not None and time.monotonic() >= self._away_until and _limits_of(caller):
            try:
                async with asyncio.timeout(_PATIENCE):
                    taken = await self._take(self._shared, caller, tokens)
            except _failures(self._shared) as error:
                self._lost(error)
            else:
                self._found()
                return taken
        return await self._take(self._own, caller, tokens)

    async def _take(self, storage: Storage, caller: Caller, tokens: int) -> tuple[Reservation | None, dict[str, str]]:
        holds: list[_Hold] = []
        headers: dict[str, str] = {}
        for kind, item, key in _limits_of(caller):
            amount = 1 if kind == "requests" else tokens
            count = await storage.incr(key, item.get_expiry(), amount=amount)
            window_ends = await storage.get_expiry(key)
            seconds = max(0, math.ceil(window_ends - time.time()))
            holds.append(_Hold(storage, item, key, kind, amount, window_ends))
            taken = count <= item.amount
            if not taken:  # all is given back, also what was just taken
                count -= amount
                await self.settle(Reservation(tuple(holds)), 0, requests=0)
            if kind != "tokens-day" or "x-ratelimit-limit-tokens" not in headers:
                name = kind.removesuffix("-day")
                headers[f"x-ratelimit-limit-{name}"] = str(item.amount)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(item.amount - count, 0))
                headers[f"x-ratelimit-reset-{name}"] = f"{seconds}s"
            if not taken:
                raise _exceeded(kind, item, amount, seconds, headers)
        return (Reservation(tuple(holds)) if holds else None), headers

    async def settle(self, reservation: Reservation, tokens: int, *, requests: int = 1) -> None:
        """Put the real amounts in place of the reserved ones. What a storage that is away holds stays as it is."""
        for hold in reservation.holds:
            difference = (requests if hold.kind == "requests" else tokens) - hold.amount
            if difference and time.time() < hold.window_ends:
                try:
                    async with asyncio.timeout(None if hold.storage is self._own else _PATIENCE):
                        await hold.storage.incr(hold.key, hold.item.get_expiry(), amount=difference)
                except _failures(self._shared) as error:
                    self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not self._away_until:
            why = _first_line(error)
            print(f"warning: the storage of limits is away ({why}); this replica counts alone", file=sys.stderr)
        self._away_until = time.monotonic() + _PAUSE

    def _found(self) -> None:
        if self._away_until:
            print("notice: the storage of limits is back", file=sys.stderr)
        self._away_until = 0.0


def _open_shared(storage: str, database: str) -> Storage:
    if storage != "database":
        # redis-py: what limits' default client of newer versions needs is not what limits gives it
        options = {"implementation": "redispy"} if storage.startswith("redis") else {}
        return _open(storage, **options)
    if not database.startswith("postgresql"):
        raise UsageError(f"quota_storage = database needs PostgreSQL, and the database is {database.partition(':')[0]}")
    try:
        import suffice.serve.counts  # noqa: F401  # which makes the scheme known
    except ModuleNotFoundError as error:
        raise UsageError(
            f"limits in the database need the package {error.name}: pip install 'suffice[postgresql]'"
        ) from None
    return _open(f"postgresql:{database.partition(':')[2]}")


def _open(uri: str, **options: str) -> Storage:
    try:
        found = storage_from_string(f"async+{uri}", **options)
    except (ConfigurationError, ImportError, ValueError) as error:
        raise UsageError(f"quota_storage {without_password(uri)!r} cannot be used: {error}") from None
    assert isinstance(found, Storage)
    return found


def _failures(storage: Storage | None) -> tuple[type[Exception], ...]:
    """What a storage raises while it is away."""
    if storage is None:
        return ()
    theirs = storage.base_exceptions
    return (*(theirs if isinstance(theirs, tuple) else (theirs,)), OSError)  # a TimeoutError is one


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


@lru_cache(maxsize=10_000)
def _limits_of(caller: Caller) -> tuple[tuple[str, RateLimitItem, str], ...]:
    """The caller's limits: kind, limit, and its name in the storage."""
    limits = caller.limits
    items: list[tuple[str, RateLimitItem]] = []
    if limits.requests_per_minute is not None:
        items.append(("requests", RateLimitItemPerMinute(limits.requests_per_minute, namespace="requests")))
    if limits.tokens_per_minute is not None:
        items.append(("tokens", RateLimitItemPerMinute(limits.tokens_per_minute, namespace="tokens")))
    if limits.tokens_per_day is not None:
        items.append(("tokens-day", RateLimitItemPerDay(limits.tokens_per_day, namespace="tokens")))
    return tuple((kind, item, item.key_for(caller.key_id)) for kind, item in items)


def _exceeded(kind: str, item: RateLimitItem, amount: int, seconds: int, headers: dict[str, str]) -> Problem:
    unit, span = kind.removesuffix("-day"), "day" if kind.endswith("-day") else "minute"
    if amount > item.amount:
        message = (
            f"this request may take {amount} {unit}, and this key has {item.amount} {unit} per {span}: ask for less"
        )
        return Problem(429, message, code="request_too_large", headers={**headers, "x-should-retry": "false"})
    message = f"this key's limit of {item.amount} {unit} per {span} is reached: try again in {seconds} s"
    return Problem(429, message, code="rate_limit_exceeded", headers={**headers, "retry-after": str(max(seconds, 1))})

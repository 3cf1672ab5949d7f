"""Rate limits and quotas per key: reserved by the prediction before an answer, settled by its real length after it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute

from suffice.serve.callers import Caller
from suffice.serve.problems import Problem
from suffice.serve.shared import SharedCounts, StorageAwayError

__all__ = ["Quotas", "Reservation"]

_Add = Callable[[str, int, int], Awaitable[tuple[int, float]]]
"""Adds to a count: its name, its window's seconds and the amount give the count and when the window ends."""


@dataclass(frozen=True, slots=True)
class _Hold:
    """An amount taken from one limit."""

    add: _Add
    """Where it was taken."""
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


class _Windows:
    """Counters in this process. (The one in `limits` looks at all of its keys each time it counts.)"""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, float]] = {}
        self._swept = 1000  # windows from which on those that are over are looked for

    def add(self, key: str, seconds: float, amount: int) -> tuple[int, float]:
        """The count of a window and when it ends; a new one begins where there is none."""
        now = time.time()
        count, ends = self._windows.get(key, (0, 0.0))
        if ends <= now:
            count, ends = 0, now + seconds
            if len(self._windows) >= self._swept:
                self._windows = {name: window for name, window in self._windows.items() if window[1] > now}
                self._swept = max(1000, 2 * len(self._windows))
        self._windows[key] = count + amount, ends
        return self._windows[key]


class Quotas:
    """Counts in fixed windows that begin with a key's first request in them.

    While a shared storage is away each replica counts for itself: limits are then per replica, and nobody is refused
    because of it.

    Args:
        storage: `memory`; `database`, for replicas that share PostgreSQL; or a redis:// URL that they share.
        database: URL of the database.

    Raises:
        UsageError: the storage cannot be used.
    """

    def __init__(self, storage: str = "memory", database: str = "") -> None:
        self._settling: set[asyncio.Task[None]] = set()
        self._local = _Windows()
        self.shared = None if storage == "memory" else SharedCounts(storage, database)

    async def close(self) -> None:
        """Wait for what is being settled, and close the connections of a shared storage."""
        await self.settled()
        if self.shared is not None:
            await self.shared.close()

    async def settled(self) -> None:
        """Wait for what `settle_soon` does in the background."""
        await asyncio.gather(*self._settling)

    async def reserve(self, caller: Caller, tokens: int) -> tuple[Reservation | None, dict[str, str]]:
        """Take one request and `tokens` from the caller's limits: all of it, or nothing.

        Returns:
            What is held, and the x-ratelimit headers.

        Raises:
            Problem: 429, with the seconds after which it is worth trying again.
        """
        if self.shared is not None and self.shared.there:
            with suppress(StorageAwayError):
                return await self._take(self.shared.add, caller, tokens)
        return await self._take(self._add, caller, tokens)

    async def _take(self, add: _Add, caller: Caller, tokens: int) -> tuple[Reservation | None, dict[str, str]]:
        holds: list[_Hold] = []
        headers: dict[str, str] = {}
        for kind, item, key in _limits_of(caller):
            amount = 1 if kind == "requests" else tokens
            count, window_ends = await add(key, item.get_expiry(), amount)
            seconds = max(0, math.ceil(window_ends - time.time()))
            holds.append(_Hold(add, item, key, kind, amount, window_ends))
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
        for hold, difference in _differences(reservation, tokens, requests):
            with suppress(StorageAwayError):
                await hold.add(hold.key, hold.item.get_expiry(), difference)

    def settle_soon(self, reservation: Reservation, tokens: int) -> None:
        """`settle`, for who cannot wait: at once in this process, else in the background."""
        if self.shared is None:
            for hold, difference in _differences(reservation, tokens, 1):
                self._local.add(hold.key, hold.item.get_expiry(), difference)
            return
        settling = asyncio.create_task(self.settle(reservation, tokens))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def _add(self, key: str, seconds: int, amount: int) -> tuple[int, float]:
        return self._local.add(key, seconds, amount)


def _differences(reservation: Reservation, tokens: int, requests: int) -> Iterator[tuple[_Hold, int]]:
    """What has to be added to each limit so that it holds the real amounts."""
    for hold in reservation.holds:
        difference = (requests if hold.kind == "requests" else tokens) - hold.amount
        if difference and time.time() < hold.window_ends:
            yield hold, difference


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

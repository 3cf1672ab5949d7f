"""Rate limits and quotas per key.

How a request is charged:

1. `charge_request` takes one request from the caller's limits before anything is done for it.
2. `charge_tokens` takes its prompt and the predicted length of its answer before the answer starts. Where that exceeds
   a limit, everything is given back and the caller gets 429.
3. `top_up` raises that while the answer runs longer than predicted. It never refuses: it makes later requests wait.
4. `settle` replaces what was taken by what was used, when the request has ended, however it ended.

What is taken from one limit is a hold: it remembers where it was counted (in this process, or in the storage that
replicas share) and until when, because a window that is over needs no settling.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute

from suffice.errors import RateLimitError, StorageAwayError
from suffice.serve.auth.permissions import Caller
from suffice.serve.limits.shared_counts import SharedCounts

__all__ = ["Charge", "Quotas"]


@dataclass(kw_only=True, slots=True)
class _Hold:
    """An amount taken from one limit."""

    item: RateLimitItem
    key: str
    """Its name in the storage."""
    kind: str
    """`requests`, `tokens` or `tokens-day`."""
    amount: int
    window_ends: float
    """Seconds since 1970; what was taken from a window that is over needs no settling."""
    shared: bool
    """Where it was taken: in the shared storage, or in this process."""


@dataclass(slots=True)
class Charge:
    """What one request has taken of its caller's limits."""

    caller: Caller
    headers: dict[str, str] = field(default_factory=dict)
    """`x-ratelimit-...`, of the limits that were looked at."""
    holds: list[_Hold] = field(default_factory=list)
    changing: asyncio.Task[None] | None = None
    """The last change of holds in a shared storage; the next one waits for it."""


class _Windows:
    """Counters in this process. (The one in `limits` looks at all of its keys each time it counts.)"""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[int, float]] = {}
        self._swept = 1000  # windows from which on those that are over are looked for

    def __len__(self) -> int:
        return len(self._windows)

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
    """Counts in fixed windows that begin with a key's first request in them. While a shared storage is away each
    replica counts for itself: limits are then per replica, and no request is refused because of it.

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
        await asyncio.gather(*self._settling)

    @property
    def windows(self) -> int:
        """How many are counted in this process."""
        return len(self._local)

    async def charge_request(self, charge: Charge) -> None:
        """Take one request from the caller's limits.

        Raises:
            RateLimitError: with the seconds after which it is worth trying again; so does `charge_tokens`.
        """
        await self._take(charge, 1, tokens=False)

    async def charge_tokens(self, charge: Charge, tokens: int) -> None:
        """Take tokens from the caller's limits; where they are too many, everything is given back, the request too."""
        await self._take(charge, tokens, tokens=True)

    def top_up(self, charge: Charge, tokens: int) -> None:
        """Raise the charge to `tokens`, because the answer outgrows what was taken. Never waits and never refuses."""
        self._change(charge, [(hold, tokens) for hold in charge.holds if hold.kind != "requests"])

    def settle(self, charge: Charge, tokens: int, *, requests: int = 1) -> None:
        """Replace what was taken by what was used: at once in this process, in the background in a shared storage. What
        was counted in a storage that is away stays as it is."""
        holds, charge.holds = charge.holds, []
        self._change(charge, [(hold, requests if hold.kind == "requests" else tokens) for hold in holds])

    async def _take(self, charge: Charge, amount: int, *, tokens: bool) -> None:
        headers = charge.headers
        for kind, item, key in _limits_of(charge.caller):
            if (kind != "requests") != tokens:
                continue
            shared, (count, window_ends) = await self._count(key, item.get_expiry(), amount)
            seconds = max(0, math.ceil(window_ends - time.time()))
            hold = _Hold(item=item, key=key, kind=kind, amount=amount, window_ends=window_ends, shared=shared)
            charge.holds.append(hold)
            taken = count <= item.amount
            if kind != "tokens-day" or "x-ratelimit-limit-tokens" not in headers:
                name = kind.removesuffix("-day")
                headers[f"x-ratelimit-limit-{name}"] = str(item.amount)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(item.amount - count + (0 if taken else amount), 0))
                headers[f"x-ratelimit-reset-{name}"] = f"{seconds}s"
            if not taken:
                if tokens and (left := headers.get("x-ratelimit-remaining-requests")) is not None:
                    headers["x-ratelimit-remaining-requests"] = str(int(left) + 1)
                self.settle(charge, 0, requests=0)
                raise _exceeded(kind, item, amount, seconds, headers)

    async def _count(self, key: str, seconds: int, amount: int) -> tuple[bool, tuple[int, float]]:
        """Add to a count; whether it is a shared one, the count, and when its window ends."""
        if self.shared is None or not self.shared.there:
            return False, self._local.add(key, seconds, amount)
        counting = asyncio.create_task(self.shared.add(key, seconds, amount))
        try:
            return True, await asyncio.shield(counting)
        except StorageAwayError:
            return False, self._local.add(key, seconds, amount)
        except asyncio.CancelledError:  # its client went; what was counted all the same is given back
            self._in_background(self._give_back(counting, key, seconds, amount))
            raise

    async def _give_back(self, counting: asyncio.Task[tuple[int, float]], key: str, seconds: int, amount: int) -> None:
        assert self.shared is not None
        with suppress(StorageAwayError):
            _, window_ends = await counting
            if time.time() < window_ends:
                await self.shared.add(key, seconds, -amount)

    def _change(self, charge: Charge, amounts: Iterable[tuple[_Hold, int]]) -> None:
        """Make each hold its amount."""
        elsewhere = []
        for hold, amount in amounts:
            if hold.shared:
                elsewhere.append((hold, amount))
            elif amount != hold.amount and time.time() < hold.window_ends:
                self._local.add(hold.key, hold.item.get_expiry(), amount - hold.amount)
                hold.amount = amount
        if charge.changing is not None or any(amount != hold.amount for hold, amount in elsewhere):
            charge.changing = self._in_background(self._change_shared(charge.changing, elsewhere))

    async def _change_shared(self, before: asyncio.Task[None] | None, amounts: Iterable[tuple[_Hold, int]]) -> None:
        """One after the other, because only what the storage has taken may be subtracted from what follows."""
        assert self.shared is not None
        if before is not None:
            await asyncio.wait([before])
        for hold, amount in amounts:
            if amount != hold.amount and time.time() < hold.window_ends:
                with suppress(StorageAwayError):
                    await self.shared.add(hold.key, hold.item.get_expiry(), amount - hold.amount)
                    hold.amount = amount

    def _in_background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task


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


def _exceeded(kind: str, item: RateLimitItem, amount: int, seconds: int, headers: dict[str, str]) -> RateLimitError:
    unit, span = kind.removesuffix("-day"), "day" if kind.endswith("-day") else "minute"
    if amount > item.amount:
        limit = f"this key has {item.amount} {unit} per {span}"
        message = f"this request may take {amount} {unit}, and {limit}: ask for less"
        return RateLimitError(message, "request_too_large", {**headers, "x-should-retry": "false"})
    message = f"this key's limit of {item.amount} {unit} per {span} is reached: try again in {seconds} s"
    return RateLimitError(message, "rate_limit_exceeded", {**headers, "retry-after": str(max(seconds, 1))})

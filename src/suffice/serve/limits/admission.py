"""A bounded queue in front of a bounded number of running requests. Knows nothing about engines or HTTP."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from suffice.errors import QueueFullError

__all__ = ["Admission", "Slot", "Throughput"]

_CLASS_SECONDS = 5.0
"""Seconds of waiting that one step of priority is worth: the lower class is overtaken, but never starves."""
_UNKNOWN_RATE_SECONDS = 5  # Retry-After while no answer has been measured yet
_LONGEST_RETRY = 120  # OpenAI's clients ignore a longer Retry-After


class Throughput:
    """Answer tokens per second of busy time, old measurements fading with a half-life of a minute."""

    _HALF_LIFE = 60.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens = self._seconds = 0.0
        self._last = clock()

    def advance(self, tokens: int = 0, *, busy: bool) -> None:
        """Note that time has passed until now, with requests running or not, and tokens that were generated in it."""
        now = self._clock()
        passed, self._last = now - self._last, now
        if busy:
            fade = 0.5 ** (passed / self._HALF_LIFE)
            self._tokens *= fade
            self._seconds = self._seconds * fade + passed
        self._tokens += tokens

    @property
    def tokens_per_second(self) -> float | None:
        """None before anything was generated."""
        return self._tokens / self._seconds if self._tokens and self._seconds else None


@dataclass(slots=True, eq=False)
class Slot:
    """One request's place, from the moment it asks until `Admission.leave`."""

    expected_tokens: int
    """How long the answer is predicted to be."""
    prompt_tokens: int = 0
    generated: int = 0
    """Tokens so far, as the holder counts them."""
    waited: float = 0.0
    """Seconds in the queue."""
    running: bool = False
    _turn: asyncio.Future[None] | None = field(default=None, repr=False)

    @property
    def remaining(self) -> int:
        return max(self.expected_tokens - self.generated, 0)


class Admission:
    """Lets `max_running` requests run and `max_waiting` wait, and refuses the rest with the time after which a retry is
    worthwhile.

    Requests wait in order of arrival; a class with a lower `priority` counts as if it had arrived some seconds earlier.
    """

    def __init__(self, max_running: int, max_waiting: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_running, self.max_waiting = max_running, max_waiting
        self.throughput = Throughput(clock)
        self.running: set[Slot] = set()
        self._clock = clock
        self._queue: list[tuple[float, int, Slot]] = []
        self._numbers = itertools.count()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def tokens_held(self) -> int:
        """Prompt and answer tokens of all running requests."""
        return sum(slot.prompt_tokens + slot.generated for slot in self.running)

    def retry_after(self) -> int:
        """Whole seconds until the predicted work ahead is done at the measured rate, 1 to 120."""
        rate = self.throughput.tokens_per_second
        if rate is None:
            return _UNKNOWN_RATE_SECONDS
        ahead = sum(slot.remaining for slot in self.running) + sum(slot.remaining for _, _, slot in self._queue)
        return min(max(math.ceil(ahead / rate), 1), _LONGEST_RETRY)

    async def enter(self, slot: Slot, *, priority: int = 0, patience: float | None = None) -> None:
        """Wait for a turn. The caller must call `leave` afterwards, whatever happens.

        Args:
            slot: taken into `running` when its turn has come.
            priority: of its class; lower goes first.
            patience: most seconds to wait.

        Raises:
            QueueFullError: the queue is full, or the time is up.
        """
        if len(self.running) < self.max_running and not self._queue:
            self._start(slot)
            return
        if len(self._queue) >= self.max_waiting:
            said = f"{len(self.running)} requests are running and {self.waiting} are waiting: try again later"
            raise QueueFullError(said, self.retry_after())
        arrived = self._clock()
        slot._turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (arrived + priority * _CLASS_SECONDS, next(self._numbers), slot))
        try:
            async with asyncio.timeout(patience):
                await slot._turn
        except TimeoutError:
            raise QueueFullError(f"no turn within {patience:g} s: try again later", self.retry_after()) from None
        finally:
            slot.waited = self._clock() - arrived

    def leave(self, slot: Slot) -> None:
        """Give the place back, wherever the slot is: running, waiting, or nowhere."""
        if slot.running:
            self.throughput.advance(slot.generated, busy=True)
            self.running.discard(slot)
            slot.running = False
        elif slot._turn is not None:
            self._queue = [entry for entry in self._queue if entry[2] is not slot]
            heapq.heapify(self._queue)
        self._next()

    def _next(self) -> None:
        while self._queue and len(self.running) < self.max_running:
            slot = heapq.heappop(self._queue)[2]
            assert slot._turn is not None
            if not slot._turn.done():
                self._start(slot)
                slot._turn.set_result(None)

    def _start(self, slot: Slot) -> None:
        self.throughput.advance(busy=bool(self.running))
        slot.running = True
        self.running.add(slot)

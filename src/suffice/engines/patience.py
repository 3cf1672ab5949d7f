"""An engine that waits where another one is refused for a moment: for batches, whose callers have time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Self

from suffice.engines.base import (
    AnswerPrefix,
    Capabilities,
    Chunk,
    Engine,
    GenerationRequest,
    Health,
    TakesMemory,
    TokenCount,
)
from suffice.errors import EngineError
from suffice.prompt import Prompt

__all__ = ["BUSY", "PatientEngine"]

BUSY = (429, 502, 503, 529)
"""Refusals that pass by themselves: too many requests, restarting behind a proxy, overloaded (529 is Anthropic's)."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds, where the server does not say how long to wait
_JITTER = 0.1  # of what it says, so that those who wait do not all come back at once


@dataclass(slots=True)
class _Throttle:
    """How many requests may run at once: halved when the server is busy, one more for each round that went well (AIMD,
    as TCP's congestion control)."""

    most: int
    limit: float
    running: int = 0
    pause_until: float = 0.0
    """Before which nothing is sent, by the clock."""

    def begun(self, now: float) -> bool:
        """Take a place, if there is one now."""
        if now < self.pause_until or self.running >= max(1, int(self.limit)):
            return False
        self.running += 1
        return True

    def went_well(self) -> None:
        self.limit = min(self.most, self.limit + 1 / self.limit)

    def was_refused(self, sent_at: float, now: float, seconds: float) -> None:
        """Refusals of requests that were sent before the last pause are part of what led to it."""
        if sent_at >= self.pause_until:
            self.limit = max(1.0, min(self.limit, self.running) / 2)
        self.pause_until = max(self.pause_until, now + seconds)


class PatientEngine:
    """Passes everything on to `engine`, and asks it again where it refuses a request because it is busy (`BUSY`).

    It waits as long as the server says (`Retry-After`), or longer each time, and sends fewer requests at once for a
    while. An answer that has begun is never asked for again. A request that has waited for `max_wait` seconds, or is
    told to wait longer than that, fails with the server's refusal.

    Args:
        engine: entered and left with this one.
        max_wait: seconds that one request may wait in all, its turn among the others not counted.
        concurrency: the most requests at once.
        on_wait: called when the number of those that wait has changed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_wait: float,
        concurrency: int = 1 << 20,
        on_wait: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine, self.on_wait = engine, on_wait
        self.waiting = 0
        """Requests that the server has refused and that wait now."""
        self.refused = 0
        """Refusals that were waited for, so far."""
        self.waited = 0.0
        """Seconds in which at least one request waited."""
        self._max_wait, self._clock = max_wait, clock
        self._throttle = _Throttle(concurrency, float(concurrency))
        self._turn = asyncio.Condition()
        self._waits_since = 0.0

    def expect(self, *, requests: int, tokens: int) -> None:
        """As `TakesMemory.expect`, where the engine is one that can be told."""
        if isinstance(self.engine, TakesMemory):
            self.engine.expect(requests=requests, tokens=tokens)

    @property
    def model_name(self) -> str:
        return self.engine.model_name

    @property
    def decode_token(self) -> Callable[[int], str] | None:
        return self.engine.decode_token

    @property
    def concurrency(self) -> int:
        """Requests that may run at once now."""
        return max(1, int(self._throttle.limit))

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        waited, tries = 0.0, 0
        asked = request
        while True:
            sent_at = await self._begin()
            begun = False
            try:
                async with aclosing(self.engine.submit(asked)) as chunks:
                    async for chunk in chunks:
                        if not begun:
                            begun = True
                            self._throttle.went_well()
                        yield chunk
                return
            except EngineError as error:
                if begun:
                    raise
                seconds = self._pause(error, tries, waited)
                self._throttle.was_refused(sent_at, self._clock(), seconds)
            finally:
                await self._end()
            await self._wait(seconds)
            waited, tries = waited + seconds, tries + 1
            asked = replace(request, id=f"{request.id}~{tries}")  # a pool asks no upstream twice for one id

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        return await self.engine.resume_point(request, written, then)

    def capabilities(self) -> Capabilities:
        return self.engine.capabilities()

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        return await self.engine.count_tokens(prompt)

    async def health(self) -> Health:
        return await self.engine.health()

    async def __aenter__(self) -> Self:
        """Enters the engine; one that is busy is waited for."""
        waited, tries = 0.0, 0
        while True:
            try:
                await self.engine.__aenter__()
                return self
            except EngineError as error:
                seconds = self._pause(error, tries, waited)
            await self._wait(seconds)
            waited, tries = waited + seconds, tries + 1

    async def __aexit__(self, *error: object) -> None:
        await self.engine.__aexit__(*error)

    def _pause(self, error: EngineError, tries: int, waited: float) -> float:
        """Seconds to wait before asking again. Raises the error where that is no use, or takes too long."""
        if error.status not in BUSY or error.permanent:
            raise error
        if error.retry_after is not None:
            seconds = error.retry_after + random.random() * max(_JITTER, _JITTER * error.retry_after)
        else:
            seconds = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**tries) * (0.5 + random.random() / 2)
        if waited + seconds > self._max_wait:
            raise error.in_words(f"{error.message}; given up after {waited:.0f} s of waiting (--max-wait)")
        return seconds

    async def _begin(self) -> float:
        """Wait for a turn, and take it; the time by the clock."""
        async with self._turn:
            while not self._throttle.begun(now := self._clock()):
                pause = self._throttle.pause_until - now
                try:
                    await asyncio.wait_for(self._turn.wait(), pause if pause > 0 else None)
                except TimeoutError:
                    continue
            return now

    async def _end(self) -> None:
        self._throttle.running -= 1
        async with self._turn:
            self._turn.notify_all()

    async def _wait(self, seconds: float) -> None:
        self.refused += 1
        self._count(+1)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        now = self._clock()
        if self.waiting:
            self.waited += now - self._waits_since
        self._waits_since = now
        self.waiting += change
        self.on_wait()

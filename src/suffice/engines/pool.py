"""Several engines as one: each request goes to the least loaded healthy one, and each attempt is noted on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from suffice.engines.base import (
    AnswerPrefix,
    Attempt,
    Capabilities,
    Chunk,
    Engine,
    GenerationRequest,
    Health,
    TokenCount,
)
from suffice.engines.circuit_breaker import CircuitBreaker
from suffice.errors import EngineError, ModelError
from suffice.prompt import Prompt

__all__ = ["Pool", "Upstream"]

_RETRY_ELSEWHERE = (408, 409, 425, 429)
"""Refusals (4xx) that another server may not share; the others say that the request itself is wrong."""


@dataclass(slots=True, eq=False)
class Upstream(CircuitBreaker):
    """One engine, how much it is doing, and whether it can be trusted with more."""

    engine: Engine
    name: str
    running: int = 0
    entered: bool = False
    healthy: bool = True
    """What the last health check said."""
    recovering: bool = False
    """It is not healthy, and requests wait for it to be."""
    detail: str = ""


@dataclass(slots=True)
class Pool:
    """An engine made of engines that serve the same model.

    It makes one attempt for each `submit`. A failure says whether another upstream can be asked
    (`EngineError.may_retry`), and submitting the same request again then asks one at which it has not failed.
    """

    upstreams: Sequence[Upstream]
    failure_limit: int = 3
    """Failures in a row that open an upstream's circuit."""
    pause: float = 10.0
    """Seconds for which it stays open."""
    check_every: float = 5.0
    """Seconds between health checks."""
    clock: Callable[[], float] = time.monotonic
    _turn: int = 0
    _checking: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, engines: Sequence[Engine]) -> Pool:
        """A pool of engines, named by their model or their server's address."""
        return cls([Upstream(engine, engine.model_name) for engine in engines])

    @property
    def model_name(self) -> str:
        return self._first_there.engine.model_name

    async def __aenter__(self) -> Self:
        """Enters every engine. One that cannot be reached is tried again at each health check, unless it is the only.

        Raises:
            EngineError: none of the engines is there.
            ModelError: an engine cannot run its model.
        """
        await asyncio.gather(*map(self._enter, self.upstreams))
        if not any(each.entered for each in self.upstreams):
            raise EngineError("; ".join(each.detail for each in self.upstreams))
        self._checking = asyncio.create_task(self._check_for_ever())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait([self._checking])
        for each in self.upstreams:
            if each.entered:
                each.entered = False
                await each.engine.__aexit__(*error)

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one answer on the least loaded upstream at which it has not failed."""
        own = [each for each in request.attempts if each.request_id == request.id]
        upstream = self._pick(self._failed_at(own))
        if upstream is None:
            raise self._none_left(request, own)
        attempt = Attempt(upstream=upstream.name, request_id=request.id, engine=upstream.engine)
        request.attempts.append(attempt)
        begun, well = False, False
        self._turn += 1
        upstream.running += 1
        upstream.begin(self.failure_limit)
        try:
            async with aclosing(upstream.engine.submit(request)) as chunks:
                async for chunk in chunks:
                    if not begun:
                        begun = True
                        upstream.answer(self.failure_limit)
                    well = well or chunk.finish is not None  # after which nothing more need be asked for
                    yield chunk
        except EngineError as error:
            well = _is_refusal(error)  # the server is well: it is the request that it does not like
            self._failed(upstream, error, request.attempts)
            attempt.error = error
            elsewhere = not well and self._pick(self._failed_at([*own, attempt])) is not None
            error.may_retry = error.recovers or elsewhere
            raise
        finally:
            upstream.running -= 1
            upstream.end(well=well)

    @property
    def decode_token(self) -> Callable[[int], str] | None:
        return self._first_there.engine.decode_token

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        if (upstream := self._pick(())) is None:
            raise _none_is_healthy()
        return await upstream.engine.resume_point(request, written, then)

    def capabilities(self) -> Capabilities:
        """The shortest context of those that are there, and the KV caches of all together."""
        found = [each.engine.capabilities() for each in self.upstreams if each.entered]
        if len(found) == 1:
            return found[0]
        caches = _known(each.kv_tokens for each in found)
        return Capabilities(
            context_tokens=min(_known(each.context_tokens for each in found), default=None),
            kv_tokens=sum(caches) if caches and len(caches) == len(found) else None,
            default_max_new_tokens=min(_known(each.default_max_new_tokens for each in found), default=None),
            charges=found[0].charges if found else "nothing",
            calls_in_text=any(each.calls_in_text for each in found),
            counts_tokens=any(each.counts_tokens for each in found),
            ignores_end_tokens=any(each.ignores_end_tokens for each in found),
            models=tuple(name for name in found[0].models if all(name in each.models for each in found))
            if found
            else (),
            forwards_unknown_fields=all(each.forwards_unknown_fields for each in found),
            usual_concurrency=sum(each.usual_concurrency for each in found),
        )

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        tried: list[Upstream] = []
        while (upstream := self._pick(tried)) is not None:
            try:
                return await upstream.engine.count_tokens(prompt)
            except EngineError as error:
                self._failed(upstream, error, ())
                tried.append(upstream)
        raise _none_is_healthy()

    async def health(self) -> Health:
        if any(each.healthy and self.is_available(each) for each in self.upstreams):
            return Health(True)
        return Health(False, "; ".join(f"{each.name}: {each.detail or 'too many failures'}" for each in self.upstreams))

    def is_available(self, upstream: Upstream) -> bool:
        there = upstream.entered and (upstream.healthy or upstream.recovering)
        return there and upstream.allows(self.failure_limit, self.clock())

    async def check(self) -> None:
        """Ask every upstream how it is, and enter those that were not there."""
        await asyncio.gather(*map(self._check, self.upstreams))

    @property
    def _first_there(self) -> Upstream:
        return next((each for each in self.upstreams if each.entered), self.upstreams[0])

    def _pick(self, tried: Sequence[Upstream]) -> Upstream | None:
        """The least loaded one that may be asked; equally loaded ones take turns at generating."""
        candidates = [each for each in self.upstreams if each not in tried and self.is_available(each)]
        if not candidates:
            return None
        first = self._turn % len(candidates)
        return min(candidates[first:] + candidates[:first], key=lambda each: (not each.healthy, each.running))

    def _failed(self, upstream: Upstream, error: EngineError, earlier: Sequence[Attempt]) -> None:
        """Count a failure; several answers to one request that fail at the same upstream are one."""
        upstream.detail = str(error)
        if error.recovers:  # it knows, and mends itself
            upstream.healthy, upstream.recovering = False, True
            return
        blamed = any(each.engine is upstream.engine and each.error and _is_failure(each.error) for each in earlier)
        if not blamed and _is_failure(error):
            upstream.fail(self.failure_limit, self.clock() + self.pause)

    def _failed_at(self, attempts: Sequence[Attempt]) -> list[Upstream]:
        failed = [each.engine for each in attempts if each.error is not None and not each.error.recovers]
        return [each for each in self.upstreams if each.engine in failed]

    def _none_left(self, request: GenerationRequest, own: Sequence[Attempt]) -> EngineError:
        """Why an answer cannot be generated: what failed last, or that no upstream is left."""
        error = own[-1].error if own else None
        if error is None:
            error = _none_is_healthy()
            request.attempts.append(Attempt(upstream="", request_id=request.id, error=error))
        error.may_retry = False
        return error

    async def _enter(self, upstream: Upstream) -> None:
        try:
            await upstream.engine.__aenter__()
        except ModelError:
            raise
        except EngineError as error:
            upstream.detail = str(error)
        else:
            upstream.entered, upstream.healthy, upstream.detail = True, True, ""

    async def _check_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.check_every)
            await self.check()

    async def _check(self, upstream: Upstream) -> None:
        if not upstream.entered:
            try:
                await self._enter(upstream)
            except ModelError as error:
                upstream.detail = str(error)
            return
        health = await upstream.engine.health()
        upstream.healthy, upstream.recovering, upstream.detail = health.ok, health.recovering, health.detail


def _none_is_healthy() -> EngineError:
    return EngineError("no upstream is healthy: try again later", status=503)


def _known(values: Iterable[int | None]) -> list[int]:
    return [each for each in values if each is not None]


def _is_refusal(error: EngineError) -> bool:
    return error.status is not None and 400 <= error.status < 500 and error.status not in _RETRY_ELSEWHERE


def _is_failure(error: EngineError) -> bool:
    return error.status is None or error.status >= 500

"""Several engines as one: who is asked, who is asked instead, and who is not asked for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from suffice.engines.base import Chunk, GenerationRequest, Health
from suffice.engines.pool import Pool
from suffice.errors import EngineError
from suffice.prompt import Prompt
from suffice.session import Answer, Event, Request, Restarted, Session, Text
from suffice.testing.scripted_engine import ScriptedEngine


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Flaky(ScriptedEngine):
    """Fails while `broken` is set, with the status that is set."""

    def __init__(self, name: str, status: int | None = None) -> None:
        super().__init__("hi")
        self.model_name = name  # type: ignore[misc]
        self.status, self.broken, self.well = status, False, True

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        if self.broken:
            self.asked.append(request)
            raise EngineError(f"{self.model_name} is broken", status=self.status)
        async for chunk in super().submit(request):
            yield chunk

    async def health(self) -> Health:
        return Health(self.well, "" if self.well else "not well")


async def answer(pool: Pool, number: int = 0, **wishes: Any) -> tuple[Answer, list[str]]:
    """The answer, and who was asked for it."""
    request = Request("x", max_new_tokens=10, id=str(number), **wishes)
    whole = await Session(pool).answer(request)
    return whole, [each.upstream for each in request.attempts]


async def ask(pool: Pool, number: int = 0) -> str:
    """Who answered."""
    whole, asked = await answer(pool, number)
    if whole.finish.reason == "error":
        raise EngineError(whole.finish.what)
    assert whole.text == "hi"
    return asked[-1]


def test_load_is_shared_and_a_failed_upstream_is_replaced() -> None:
    async def main() -> None:
        a, b = Flaky("a"), Flaky("b")
        async with Pool.of([a, b]) as pool:
            assert sorted([await ask(pool, n) for n in range(4)]) == ["a", "a", "b", "b"]
            names = []
            for number in range(4):  # counting a prompt takes nobody's turn
                await pool.count_tokens(Prompt(raw="x"))
                names.append(await ask(pool, number))
            assert sorted(names) == ["a", "a", "b", "b"]
            a.asked.clear()
            a.broken = True
            assert {await ask(pool, n) for n in range(4)} == {"b"}
            assert 1 <= len([1 for request in a.asked]) <= 6
            b.broken = True
            with pytest.raises(EngineError):
                await ask(pool)

    asyncio.run(main())


def test_a_circuit_opens_after_failures_and_one_request_tries_it_again() -> None:
    async def main() -> None:
        clock = Clock()
        a = Flaky("a")
        async with Pool.of([a]) as pool:
            pool.clock = clock
            a.broken = True
            for _ in range(3):
                with pytest.raises(EngineError, match="broken"):
                    await ask(pool)
            with pytest.raises(EngineError, match="no upstream is healthy"):
                await ask(pool)
            assert len(a.asked) == 3
            assert not (await pool.health()).ok
            clock.now += 11
            with pytest.raises(EngineError, match="broken"):
                await ask(pool)  # the trial fails, and the circuit stays open
            with pytest.raises(EngineError, match="no upstream is healthy"):
                await ask(pool)
            clock.now += 11
            a.broken = False
            assert [await ask(pool), await ask(pool)] == ["a", "a"]

    asyncio.run(main())


def test_several_answers_to_one_request_are_one_failure() -> None:
    async def main() -> None:
        a = Flaky("a")
        a.broken = True
        async with Pool.of([a]) as pool:
            for failures, ids in enumerate((("x/0", "x/1", "x/2"), ("y/0", "y/1"), ("z",)), 1):
                first = GenerationRequest(ids[0], Prompt(raw="x"), 10)
                for each in ids:
                    with pytest.raises(EngineError, match="broken"):
                        await anext(pool.submit(replace(first, id=each)))
                assert pool.upstreams[0].failures == failures
                assert [(each.upstream, each.request_id) for each in first.attempts] == [("a", each) for each in ids]
            assert not (await pool.health()).ok

    asyncio.run(main())


def test_failures_that_are_not_in_a_row_open_no_circuit() -> None:
    async def main() -> None:
        a = Flaky("a")
        async with Pool.of([a]) as pool:
            for _ in range(5):
                a.broken = True
                with pytest.raises(EngineError, match="broken"):
                    await ask(pool)
                a.broken = False
                assert await ask(pool) == "a"

    asyncio.run(main())


def test_the_first_piece_of_a_trial_closes_the_circuit_and_one_more_failure_opens_it() -> None:
    async def main() -> None:
        a, clock = Flaky("a"), Clock()
        async with Pool.of([a]) as pool:
            pool.clock = clock
            a.broken = True
            for _ in range(3):
                with pytest.raises(EngineError, match="broken"):
                    await ask(pool)
            clock.now += 11
            a.broken = False
            async with aclosing(pool.submit(GenerationRequest("trial", Prompt(raw="x"), 10))) as trial:
                await anext(trial)
                a.broken = True
                with pytest.raises(EngineError, match="broken"):
                    await ask(pool)
                with pytest.raises(EngineError, match="no upstream is healthy"):
                    await ask(pool)

    asyncio.run(main())


def test_one_attempt_for_each_submit_and_a_failure_says_whether_another_can_be_asked() -> None:
    async def main() -> None:
        a, b = Flaky("a"), Flaky("b")
        a.broken = b.broken = True
        async with Pool.of([a, b]) as pool:
            request = GenerationRequest("0", Prompt(raw="x"), 10)
            for may_retry in (True, False, False):  # the last finds nobody to ask, and says what it knows
                with pytest.raises(EngineError, match="is broken") as caught:
                    await anext(pool.submit(request))
                assert caught.value.may_retry == may_retry
            assert sorted(each.upstream for each in request.attempts) == ["a", "b"]
            assert len(a.asked) == len(b.asked) == 1

    asyncio.run(main())


def test_nobody_to_ask_is_an_attempt_without_an_upstream() -> None:
    async def main() -> None:
        a = Flaky("a")
        async with Pool.of([a]) as pool:
            a.well = False
            await pool.check()
            request = GenerationRequest("0", Prompt(raw="x"), 10)
            with pytest.raises(EngineError, match="no upstream is healthy"):
                await anext(pool.submit(request))
            [attempt] = request.attempts
            assert (attempt.upstream, attempt.error and attempt.error.status) == ("", 503)

    asyncio.run(main())


def test_an_answer_that_broke_off_begins_again_elsewhere_while_nothing_of_it_was_used() -> None:
    async def main() -> None:
        a, b = Flaky("a"), Flaky("b")
        async with Pool.of([a, b]) as pool:
            for used in (False, True):
                pool._turn, a.fail_after = 0, 1
                request = Request("x", max_new_tokens=10, may_restart=lambda: not used)  # noqa: B023
                events: list[Event] = [event async for event in Session(pool).stream(request)]
                shown = [type(each) for each in events if isinstance(each, Text | Restarted)]
                whole, broken = [Text, Restarted, Text, Text], [Text]
                assert shown == (broken if used else whole)
                assert [each.upstream for each in request.attempts] == (["a"] if used else ["a", "b"])
            again = (await answer(pool, may_restart=lambda: True))[0]
            assert (again.text, again.finish.reason, again.usage.answer_tokens) == ("hi", "stop", 2)
            a.fail_after, b.broken, b.status, pool._turn = 1, True, 400, 0
            refused, asked = await answer(pool, may_restart=lambda: True)
            assert (refused.text, refused.finish.what, asked) == ("", "b is broken", ["a", "b"])

    asyncio.run(main())


def test_a_refusal_of_the_request_is_not_tried_elsewhere_and_blames_nobody() -> None:
    async def main() -> None:
        a, b = Flaky("a", status=400), Flaky("b", status=400)
        a.broken = b.broken = True
        async with Pool.of([a, b]) as pool:
            for _ in range(5):
                with pytest.raises(EngineError, match="broken"):
                    await ask(pool)
            assert len(a.asked) + len(b.asked) == 5
            assert (await pool.health()).ok

    asyncio.run(main())


def test_health_checks_take_upstreams_out_and_bring_them_back() -> None:
    async def main() -> None:
        a, b = Flaky("a"), Flaky("b")
        async with Pool.of([a, b]) as pool:
            a.well = False
            await pool.check()
            assert {await ask(pool, n) for n in range(4)} == {"b"}
            b.well = False
            await pool.check()
            assert "not well" in (await pool.health()).detail
            a.well = True
            await pool.check()
            assert {await ask(pool, n) for n in range(2)} == {"a"}

    asyncio.run(main())


class Returning(Flaky):
    """Says that it is coming back when it fails, and is well again when it is asked once more."""

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        if self.broken:
            self.broken = False
            error = EngineError("it ended")
            error.recovers = True
            raise error
        async for chunk in super().submit(request):
            yield chunk

    async def health(self) -> Health:
        return Health(False, "being started again", recovering=True)


def test_an_engine_that_comes_back_is_asked_again_and_not_blamed() -> None:
    async def main() -> None:
        engine = Returning("only")
        async with Pool.of([engine]) as pool:
            engine.broken = True
            whole, asked = await answer(pool)
            assert (whole.text, asked) == ("hi", ["only", "only"])
            assert pool.upstreams[0].failures == 0
            assert not (await pool.health()).ok, "balancers go elsewhere"
            await pool.check()
            assert await ask(pool, 1) == "only", "and what comes all the same waits there"

    asyncio.run(main())


def test_while_one_comes_back_the_others_are_asked() -> None:
    async def main() -> None:
        engines = [Returning("away"), Flaky("well")]
        async with Pool.of(engines) as pool:
            await pool.check()
            assert {await ask(pool, number) for number in range(4)} == {"well"}

    asyncio.run(main())

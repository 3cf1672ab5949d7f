"""Admission and routing, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from suffice.engines.base import Chunk, GenerationRequest, Health
from suffice.engines.pool import Pool
from suffice.errors import EngineError, QueueFullError
from suffice.prompt import Prompt
from suffice.serve.limits.admission import Admission, Slot
from suffice.testing.scripted_engine import ScriptedEngine


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_run_wait_and_are_refused() -> None:
    async def main() -> None:
        admission = Admission(max_running=2, max_waiting=1)
        first, second, third, fourth = (Slot(10) for _ in range(4))
        await admission.enter(first)
        await admission.enter(second)
        turn = asyncio.create_task(admission.enter(third))
        await asyncio.sleep(0)
        assert (len(admission.running), admission.waiting) == (2, 1)
        with pytest.raises(QueueFullError, match="2 requests are running and 1 are waiting"):
            await admission.enter(fourth)
        admission.leave(fourth)
        admission.leave(first)
        await turn
        assert admission.running == {second, third}
        for slot in (second, third, second):  # giving back twice does no harm
            admission.leave(slot)
        assert not admission.running

    asyncio.run(main())


def test_whoever_stops_waiting_leaves_the_queue() -> None:
    async def main() -> None:
        admission = Admission(max_running=1, max_waiting=5)
        running, impatient, gone, last = (Slot(10) for _ in range(4))
        await admission.enter(running)
        turns = [asyncio.create_task(admission.enter(slot)) for slot in (gone, last)]
        with pytest.raises(QueueFullError, match="no turn within"):
            await admission.enter(impatient, patience=0.001)
        admission.leave(impatient)
        turns[0].cancel()
        await asyncio.wait([turns[0]])
        admission.leave(gone)
        assert admission.waiting == 1
        admission.leave(running)
        await turns[1]
        assert admission.running == {last}

    asyncio.run(main())


def test_a_turn_that_came_together_with_a_cancellation_is_given_back() -> None:
    async def main() -> None:
        admission = Admission(max_running=1, max_waiting=5)
        running, gone, last = (Slot(10) for _ in range(3))
        await admission.enter(running)
        turns = [asyncio.create_task(admission.enter(slot)) for slot in (gone, last)]
        await asyncio.sleep(0)
        admission.leave(running)  # `gone` has its turn now, and is cancelled before it notices
        turns[0].cancel()
        await asyncio.wait([turns[0]])
        admission.leave(gone)
        await turns[1]
        assert admission.running == {last}

    asyncio.run(main())


def test_a_lower_class_is_overtaken_but_does_not_starve() -> None:
    async def main() -> None:
        clock = Clock()
        admission = Admission(1, 10, clock)
        order: list[str] = []
        await admission.enter(running := Slot(1))

        async def wait(name: str, priority: int) -> None:
            slot = Slot(1)
            await admission.enter(slot, priority=priority)
            order.append(name)
            admission.leave(slot)

        tasks = []
        for name, priority, second in (("low", 1, 0), ("high", 0, 1), ("late", 0, 6)):
            clock.now = 100.0 + second
            tasks.append(asyncio.create_task(wait(name, priority)))
            await asyncio.sleep(0)
        admission.leave(running)
        await asyncio.gather(*tasks)
        assert order == ["high", "low", "late"]

    asyncio.run(main())


def test_retry_after_is_the_work_ahead_at_the_measured_rate() -> None:
    async def main() -> None:
        clock = Clock()
        admission = Admission(1, 10, clock)
        assert admission.retry_after() == 5  # nothing measured yet
        await admission.enter(slot := Slot(100))
        slot.generated = 100
        clock.now += 2
        admission.leave(slot)
        clock.now += 1000  # idle time counts nothing
        assert admission.throughput.tokens_per_second == pytest.approx(50)
        await admission.enter(slot := Slot(400))
        waiting = asyncio.create_task(admission.enter(Slot(150)))
        await asyncio.sleep(0)
        assert admission.retry_after() == 11
        slot.generated = 300
        assert admission.retry_after() == 5
        waiting.cancel()

    asyncio.run(main())


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


async def ask(pool: Pool, number: int = 0) -> str:
    request = GenerationRequest(str(number), Prompt(raw="x"), 10)
    [trace] = pool.follow(request.id)
    text = ""
    try:
        async with aclosing(pool.submit(request)) as chunks:
            async for chunk in chunks:
                text += chunk.text
                if chunk.finish is not None:  # as sessions do: nobody asks for what follows the last
                    break
        assert text == "hi"
        return trace.upstream
    finally:
        pool.forget(request.id)


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
                pool.follow(*ids)
                for each in ids:
                    with pytest.raises(EngineError, match="broken"):
                        await anext(pool.submit(GenerationRequest(each, Prompt(raw="x"), 10)))
                    pool.forget(each)
                assert pool.upstreams[0].failures == failures
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


def test_a_failed_request_may_be_tried_again_where_it_has_not_failed() -> None:
    async def main() -> None:
        a, b = Flaky("a"), Flaky("b", status=400)
        async with Pool.of([a, b]) as pool:
            [trace] = pool.follow("0")
            assert not pool.may_retry("0")  # it has not failed
            trace.error = EngineError("dropped after 3 pieces")
            trace.failed_on.append(pool.upstreams[0])
            assert pool.may_retry("0")
            b.broken = True
            with pytest.raises(EngineError, match="b is broken"):
                await anext(pool.submit(GenerationRequest("0", Prompt(raw="x"), 10)))
            assert not pool.may_retry("0")
            assert not a.asked

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

"""Who may run, who waits, and who is refused. Without HTTP."""

from __future__ import annotations

import asyncio

import pytest

from suffice.errors import QueueFullError
from suffice.serve.limits.admission import Admission, Slot


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

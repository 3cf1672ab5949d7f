"""Progress events: how often they come, and what they promise."""

from __future__ import annotations

import asyncio

from suffice.session import Progress, Request, Session
from suffice.testing.scripted_engine import ScriptedEngine


def test_progress_comes_every_16_tokens_and_only_when_wanted() -> None:
    async def main(wanted: bool) -> list[Progress]:
        request = Request(({"role": "user", "content": "Count."},), max_new_tokens=100, progress=wanted)
        events = [event async for event in Session(ScriptedEngine("abcde " * 20)).stream(request)]
        return [event for event in events if isinstance(event, Progress)]

    told = asyncio.run(main(True))
    assert [each.tokens for each in told] == [16, 32, 48, 64, 80, 96]
    assert all(0 <= each.remaining_tokens <= 100 - each.tokens for each in told)
    assert all(each.remaining_seconds >= 0 for each in told)
    assert asyncio.run(main(False)) == []

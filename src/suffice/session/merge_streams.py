"""Several answers at once, as one stream: what belongs to one request, and ends together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from suffice.session.events import Event

__all__ = ["merge_streams"]

_AHEAD = 64  # events that may wait for a reader


async def merge_streams(streams: Sequence[AsyncGenerator[Event, None]]) -> AsyncGenerator[tuple[int, Event], None]:
    """The events of several answers as they come, each with its stream's place in `streams`.

    The first stream that raises ends all of them; closing this generator cancels all at once.

    Raises:
        What a stream raises.
    """
    queue: asyncio.Queue[tuple[int, Event | Exception | None]] = asyncio.Queue(_AHEAD)

    async def follow(index: int, stream: AsyncGenerator[Event, None]) -> None:
        last: Exception | None = None
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    await queue.put((index, event))
        except Exception as error:
            last = error
        await queue.put((index, last))

    tasks = [asyncio.create_task(follow(index, stream)) for index, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            index, item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

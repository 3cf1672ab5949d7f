"""Clients that say exactly what they saw, and try again as OpenAI's Python client does.

That is (openai-python, `_base_client.py`): at most two more times after a connection that failed, 408, 409, 429 and
5xx; after what `Retry-After` says (up to a minute), else after 0.5 s and 1 s, less up to a quarter by chance. A stream
is not tried again once its response has begun. Each time the next server is asked, as a balancer in front would.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp

from gateway_parts import MODEL
from reliability_parts.upstream import words

__all__ = ["Attempt", "Clients", "Story"]

WHOLE, EVENT, LOST, REFUSED = "whole", "error event", "connection lost", "connection refused"
_MOST_RETRIES = 2
_PATIENCE = 60.0  # seconds until a client gives up on one attempt; counted as `silent`
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
_RETRY_STATUS = (408, 409, 429)


@dataclass(slots=True)
class Attempt:
    """One HTTP request."""

    id: str
    server: str
    seen: str = ""
    """`whole`, `error event`, `connection lost`, `connection refused`, `silent`, `wrong`, or `HTTP 502` and so on."""
    code: str = ""
    """What the error said of itself, for programs."""
    used: int | None = None
    """Answer tokens that the server said were used."""
    pieces: int = 0
    """Pieces of the answer that arrived."""
    retry_after: float | None = None
    begun: bool = False
    """The response had begun."""
    started: float = field(default_factory=time.time)
    ended: float = 0.0

    @property
    def owed(self) -> bool:
        """Whether the store must have a row: the server answered, and not that it is shutting down."""
        return self.seen not in (LOST, REFUSED, "silent") and self.code != "shutting_down"


@dataclass(slots=True)
class Story:
    """One request of a client, with all its attempts."""

    stream: bool
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def seen(self) -> str:
        """What the client had in the end."""
        last = self.attempts[-1].seen
        return "whole after a retry" if last == WHOLE and len(self.attempts) > 1 else last


@dataclass
class Clients:
    """Some clients, each asking for one answer after another; every second one streams.

    Args:
        servers: URLs, asked in turn.
        key: bearer token.
        pieces: what a whole answer has.
        name: begins every request's id.
    """

    servers: Sequence[str]
    key: str
    pieces: int
    name: str
    stories: list[Story] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def load(self, clients: int, seconds: float) -> None:
        """Ask for some seconds, and wait for what was asked."""
        ends = time.monotonic() + seconds
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            await asyncio.gather(*(self._one(http, ends, number, seconds / 10) for number in range(clients)))

    def first(self) -> Counter[str]:
        """What was seen by clients that do not try again."""
        return Counter(story.attempts[0].seen for story in self.stories)

    def last(self) -> Counter[str]:
        """What was seen by clients that do."""
        return Counter(story.seen for story in self.stories)

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for story in self.stories for attempt in story.attempts]

    async def _one(self, http: aiohttp.ClientSession, ends: float, number: int, spread: float) -> None:
        await asyncio.sleep(random.random() * spread)
        while time.monotonic() < ends:
            story = Story(stream=number % 2 == 0)
            self.stories.append(story)
            await self.ask(http, story)

    async def ask(self, http: aiohttp.ClientSession, story: Story) -> None:
        """One request, tried until it is answered or no longer worth trying."""
        number = next(self._numbers)
        for retry in range(_MOST_RETRIES + 1):
            server = self.servers[(number + retry) % len(self.servers)]
            attempt = Attempt(f"{self.name}-{number}-{retry}", server)
            story.attempts.append(attempt)
            await self.attempt(http, attempt, stream=story.stream)
            if retry == _MOST_RETRIES or not _worth_trying_again(story, attempt):
                return
            await asyncio.sleep(_pause(attempt, retry))

    async def attempt(
        self, http: aiohttp.ClientSession, attempt: Attempt, *, stream: bool, patience: float = _PATIENCE
    ) -> None:
        """One HTTP request, and what is seen of its answer."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "go on"}], "max_tokens": 2 * self.pieces}
        headers = {"authorization": f"Bearer {self.key}", "x-request-id": attempt.id}
        wanted = {**body, "stream": stream, "stream_options": {"include_usage": True}}
        try:
            async with (
                asyncio.timeout(patience),
                http.post(
                    f"{attempt.server}/v1/chat/completions", json=wanted, headers=headers, timeout=_NO_TIMEOUT
                ) as response,
            ):
                attempt.begun = True
                await self._read(response, attempt, stream)
        except aiohttp.ClientConnectorError:
            attempt.seen = REFUSED
        except (aiohttp.ClientError, ConnectionError):
            attempt.seen = LOST
        except TimeoutError:
            attempt.seen = "silent"
        attempt.ended = time.time()

    async def _read(self, response: aiohttp.ClientResponse, attempt: Attempt, stream: bool) -> None:
        if response.status != 200:
            attempt.seen = f"HTTP {response.status}"
            if "retry-after" in response.headers:
                attempt.retry_after = float(response.headers["retry-after"])
            attempt.code = str((await response.json())["error"]["code"])
        elif stream:
            await self._read_stream(response, attempt)
        else:
            whole = await response.json()
            attempt.pieces = attempt.used = whole["usage"]["completion_tokens"]
            right = whole["choices"][0]["message"]["content"] == "".join(words(self.pieces))
            attempt.seen = WHOLE if right else "wrong"

    async def _read_stream(self, response: aiohttp.ClientResponse, attempt: Attempt) -> None:
        text, error, done = "", "", False
        async for line in response.content:
            if not line.startswith(b"data: "):
                continue
            done = line.startswith(b"data: [DONE]")
            event = {} if done else json.loads(line[6:])
            if "error" in event:
                error = str(event["error"]["code"])
            if event.get("usage"):
                attempt.used = event["usage"]["completion_tokens"]
            for choice in event.get("choices", ()):
                piece = choice["delta"].get("content") or ""
                attempt.pieces += bool(piece)
                text += piece
        right = done and text == "".join(words(self.pieces)) and attempt.used == self.pieces
        attempt.seen, attempt.code = (EVENT, error) if error and done else (WHOLE if right else "wrong", "")


def _worth_trying_again(story: Story, attempt: Attempt) -> bool:
    if attempt.seen.startswith("HTTP"):
        status = int(attempt.seen.split()[1])
        return status in _RETRY_STATUS or status >= 500
    return attempt.seen in (LOST, REFUSED) and not (story.stream and attempt.begun)


def _pause(attempt: Attempt, retry: int) -> float:
    if attempt.retry_after is not None and 0 < attempt.retry_after <= 60:
        return attempt.retry_after
    return float(min(0.5 * 2**retry, 8.0) * (1 - 0.25 * random.random()))

"""A prompt is rendered and tokenized once for each request, and nothing of it outlives the request."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("transformers")

from serving import serving
from suffice.checkpoints.model_source import bundled_model
from suffice.engines.local.engine import LocalEngine
from suffice.session import Request, Session

HI = ({"role": "user", "content": "Count to 3."},)

pytestmark = pytest.mark.skipif(not (bundled_model() / "config.json").is_file(), reason="no bundled model")


class CountingTokenizer:
    """Counts what is asked of a tokenizer: texts that are encoded, conversations that are rendered."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.asked: Counter[str] = Counter()

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.asked["encode"] += 1
        return self._tokenizer(*args, **options)

    def apply_chat_template(self, *args: Any, **options: Any) -> Any:
        self.asked["render"] += 1
        return self._tokenizer.apply_chat_template(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class CountingEngine(LocalEngine):
    """The local engine with a `CountingTokenizer`."""

    counting: CountingTokenizer

    async def __aenter__(self) -> LocalEngine:
        await super().__aenter__()
        texts = self._ready()
        texts.tokenizer = self.counting = CountingTokenizer(texts.tokenizer)
        return self


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[CountingEngine, Session]]:
    async with CountingEngine(kv_tokens=4096, device="cpu") as engine:
        session = Session(engine)
        await session.decide(Request("x"))  # measures the tokenizer's words, once
        engine.counting.asked.clear()
        yield engine, session


def test_a_request_that_is_decided_first_and_answered_later_is_tokenized_once() -> None:
    async def main() -> None:
        async with opened() as (engine, session):
            request = Request(HI, max_new_tokens=8)
            budget = await session.decide(request)
            answer = await session.answer(request, budget)
            assert answer.usage.prompt_tokens == budget.prompt_tokens
            assert engine.counting.asked == {"render": 1, "encode": 1}
            await asyncio.gather(*(session.answer(replace(request, id=f"{n}"), budget) for n in range(3)))
            assert engine.counting.asked == {"render": 1, "encode": 1}  # three more answers to the same prompt
            await session.answer(Request("Count", max_new_tokens=8))
            assert engine.counting.asked == {"render": 1, "encode": 2}

    asyncio.run(main())


def test_the_server_tokenizes_a_request_once() -> None:
    engine = CountingEngine(kv_tokens=4096, device="cpu")
    with serving(engine) as server:
        server.post("/v1/chat/completions", {"messages": [*HI], "max_tokens": 8})
        before = Counter(engine.counting.asked)
        for n, stream in ((1, False), (1, True), (3, False)):
            server.post("/v1/chat/completions", {"messages": [*HI], "max_tokens": 8, "n": n, "stream": stream})
        assert engine.counting.asked - before == {"render": 3, "encode": 3}


def test_tokens_are_gone_with_their_prompt() -> None:
    async def main() -> None:
        async with opened() as (engine, session):
            request = Request(HI, max_new_tokens=4)
            await session.answer(request)
            prompt = weakref.ref(request.prompt)
            assert [len(ids) for ids in request.prompt.known_ids.values()] == [
                (await session.decide(request)).prompt_tokens
            ]
            del request
            gc.collect()
            assert prompt() is None
            assert not engine._streams

    asyncio.run(main())

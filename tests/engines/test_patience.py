"""Waiting for a server that is busy, as batches do."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Any

import pytest

from suffice.engines import GenerationRequest, open_engine
from suffice.engines.openai.requests import is_permanent, retry_after
from suffice.engines.patience import PatientEngine
from suffice.engines.pool import Pool
from suffice.errors import EngineError
from suffice.prompt import Prompt
from suffice.session import Answer, Request, Session
from suffice.testing import FakeOpenAI, Reply
from suffice.testing.scripted_engine import ScriptedEngine

SOON = {"retry-after-ms": "20"}


def busy(status: int = 429, headers: dict[str, str] | None = None, code: str = "") -> Reply:
    refused = {"error": {"message": "slow down", "code": code}}
    return Reply(body=refused, status=status, headers=SOON if headers is None else headers)


def ask(
    *replies: Reply, times: int = 1, max_wait: float = 60, **options: Any
) -> tuple[list[Answer], PatientEngine, int]:
    """The answers to that many requests at once, the engine, and the requests that the server has seen."""

    async def main() -> tuple[list[Answer], PatientEngine, int]:
        async with FakeOpenAI() as server:
            server.script(*replies)
            engine = PatientEngine(open_engine(upstream=server.url), max_wait=max_wait, **options)
            async with engine:
                session = Session(engine)
                requests = [session.answer(Request("hi", max_new_tokens=9)) for _ in range(times)]
                answers = await asyncio.gather(*requests)
            return list(answers), engine, len(server.generations)

    return asyncio.run(main())


@pytest.mark.parametrize("status", [429, 503, 502, 529])
def test_a_busy_server_is_asked_again(status: int) -> None:
    seen: list[int] = []
    answers, engine, asked = ask(busy(status), busy(status), Reply(), on_wait=lambda: seen.append(1))
    assert (answers[0].text, answers[0].finish.reason, asked, engine.refused) == ("Hello, world", "stop", 3, 2)
    assert len(seen) == 4, "each wait is told at its begin and its end"
    assert engine.waiting == 0


def test_without_a_word_from_the_server_it_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suffice.engines.patience._FIRST_PAUSE", 0.01)
    pauses: list[float] = []
    slept = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await slept(seconds)

    monkeypatch.setattr("suffice.engines.patience.asyncio.sleep", sleep)
    answers, _, _ = ask(*[busy(headers={})] * 5, Reply())
    assert answers[0].text == "Hello, world"
    steps = [pause for pause in pauses if pause > 0]
    assert all(0.005 * 2**n <= pause <= 0.01 * 2**n for n, pause in enumerate(steps[-5:]))


def test_waiting_has_an_end_and_the_refusal_is_told() -> None:
    answers, _, asked = ask(busy(headers={"Retry-After": "3600"}))
    assert asked == 1, "an hour is not waited for where a minute is allowed"
    assert "slow down; Retry-After: 3600; given up after 0 s of waiting (--max-wait)" in answers[0].finish.what
    answers, _, asked = ask(busy(), max_wait=0.2)
    assert 2 <= asked <= 11
    assert answers[0].finish.reason == "error"


def test_other_refusals_and_an_empty_account_are_not_waited_for() -> None:
    spent = busy(429, {**SOON, "x-should-retry": "false"}), busy(429, code="insufficient_quota")
    for reply in (busy(500), busy(400), busy(401), *spent):
        answers, engine, asked = ask(reply, Reply())
        assert (answers[0].finish.reason, asked, engine.refused) == ("error", 1, 0)


def test_an_answer_that_has_begun_is_not_asked_for_again() -> None:
    answers, _, asked = ask(Reply(error_event={"error": {"message": "rate limit", "code": 429}}), Reply())
    assert (answers[0].text, answers[0].finish.reason, asked) == ("Hello, world", "error", 1)


def test_fewer_are_asked_at_once_for_a_while() -> None:
    answers, engine, _ = ask(*[busy()] * 8, Reply(piece_delay=0.001), times=8, concurrency=8)
    assert all(answer.text == "Hello, world" for answer in answers)
    assert 4 <= engine.concurrency < 8, "halved once for all eight, and growing again with each answer"


def test_a_server_that_starts_is_waited_for() -> None:
    class Starting(ScriptedEngine):
        left = 2

        async def __aenter__(self) -> Starting:
            self.left -= 1
            if self.left >= 0:
                raise EngineError("loading the model", status=503, retry_after=0.01)
            return self

    async def main() -> str:
        async with PatientEngine(Starting("ready"), max_wait=5) as engine:
            return (await Session(engine).answer(Request("hi"))).text

    assert asyncio.run(main()) == "ready"
    with pytest.raises(EngineError, match="given up after 0 s"):
        asyncio.run(PatientEngine(Starting(), max_wait=0).__aenter__())


def test_a_pool_behind_it_is_asked_again_and_its_circuit_stays_closed() -> None:
    async def main() -> tuple[str, int]:
        async with FakeOpenAI() as server:
            server.script(*[busy()] * 5, Reply())
            pool = Pool.of([open_engine(upstream=server.url)])
            async with PatientEngine(pool, max_wait=60) as engine:
                request = GenerationRequest(id="1", prompt=Prompt.of("hi"), max_new_tokens=9)
                text = "".join([chunk.text async for chunk in engine.submit(request)])
                return text, pool.upstreams[0].failures

    assert asyncio.run(main()) == ("Hello, world", 0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "7", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_is_a_time_to_wait() -> None:
    seconds = retry_after({"Retry-After": formatdate(time.time() + 1000, usegmt=True)})
    assert seconds is not None
    assert 0 < seconds <= 1000
    assert not is_permanent("<html>busy</html>", {})

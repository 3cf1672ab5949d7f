"""Limits that two replicas share: through a real Redis (SUFFICE_TEST_REDIS=redis://..., or a redis-server that is
installed) and a real PostgreSQL (SUFFICE_TEST_POSTGRESQL=postgresql://...)."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving import charged, serving
from suffice.errors import RateLimitError, UsageError
from suffice.serve.auth.api_keys import hash_key, make_key
from suffice.serve.auth.permissions import Caller, KeyLimits
from suffice.serve.limits.quotas import Charge, Quotas
from suffice.serve.limits.shared_counts import SharedCounts
from suffice.serve.request_log.store import Store
from suffice.testing.scripted_engine import ScriptedEngine

POSTGRESQL = os.environ.get("SUFFICE_TEST_POSTGRESQL", "")
REDIS = os.environ.get("SUFFICE_TEST_REDIS", "")


@dataclass
class Shared:
    """A storage for limits, and the database that goes with it."""

    storage: str
    database: str


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


class RedisServer:
    """A redis-server of the test's own, on loopback, that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen(["redis-server", *place], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture(params=["redis", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Shared:
    if request.param == "postgresql":
        if not POSTGRESQL:
            pytest.skip("SUFFICE_TEST_POSTGRESQL is not set")
        return Shared("database", POSTGRESQL)
    url = REDIS or request.getfixturevalue("redis").url
    return Shared(url, f"sqlite:///{tmp_path}/shared.db")


def key_with(database: str, **limits: int | None) -> str:
    """A new key with these limits; its text."""
    key_id, text = make_key()
    all_limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "tokens_per_day")) | limits
    permits = {"tiers": [], "models": [], "created": time.time(), "expires": None, "revoked": None}
    store = Store(database)
    store.add_key({"id": key_id, "name": f"n-{key_id}", "hash": hash_key(text), **permits, **all_limits})
    store.close()
    return text


@pytest.mark.slow
def test_two_replicas_together_let_exactly_the_limit_through(shared: Shared) -> None:
    key = key_with(shared.database, requests_per_minute=25, tokens_per_day=1_000_000)
    settings = {"database": shared.database, "quota_storage": shared.storage}
    with serving(ScriptedEngine(), **settings) as one, serving(ScriptedEngine(), **settings) as two:

        def ask(number: int) -> Any:
            return (one, two)[number % 2].post("/infer/short", {"prompt": "hi"}, Authorization=f"Bearer {key}")

        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(ask, range(80)))
        statuses = [reply.status for reply in replies]
        assert (statuses.count(200), statuses.count(429)) == (25, 55)
        refused = next(reply for reply in replies if reply.status == 429)
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        left = sorted(int(each.headers["x-ratelimit-remaining-requests"]) for each in replies if each.status == 200)
        assert left == list(range(25))  # each was counted once, whoever counted it


@pytest.mark.slow
def test_tokens_are_settled_to_what_was_used_wherever_that_was(shared: Shared) -> None:
    key = key_with(shared.database, tokens_per_minute=100_000)
    settings = {"database": shared.database, "quota_storage": shared.storage}
    with serving(ScriptedEngine(), **settings) as one, serving(ScriptedEngine(), **settings) as two:

        def ask(number: int) -> Any:
            return (one, two)[number % 2].post("/infer/short", {"prompt": "hi"}, Authorization=f"Bearer {key}")

        with ThreadPoolExecutor(8) as pool:
            assert {reply.status for reply in pool.map(ask, range(40))} == {200}
        for server in (one, two):
            server.run(server.service.released())
        caller = one.service.ring.identify([(b"authorization", f"Bearer {key}".encode())])
        found = two.run(charged(two.service.quotas, caller, 1))
        assert (
            int(found.headers["x-ratelimit-remaining-tokens"]) == 100_000 - 40 * 7 - 1
        )  # 2 of the prompt, 5 of the answer


@pytest.mark.slow
def test_refused_reservations_take_nothing_whoever_asks_at_the_same_time(shared: Shared) -> None:
    async def run() -> None:
        Store(shared.database).close()
        caller = Caller(make_key()[0], "k", limits=KeyLimits(requests_per_minute=1000, tokens_per_minute=100))
        both = [Quotas(shared.storage, shared.database) for _ in range(2)]
        for quotas in both:
            assert quotas.shared is not None
            await quotas.shared.check()
        found = await asyncio.gather(
            *(charged(both[i % 2], caller, 10) for i in range(60)), return_exceptions=True
        )  # fmt: skip
        assert sum(isinstance(each, Charge) for each in found) == 10
        assert sum(isinstance(each, RateLimitError) for each in found) == 50
        for quotas in both:
            await quotas.settled()
        last = await charged(both[0], Caller(caller.key_id, "k", limits=KeyLimits(requests_per_minute=1000)), 0)
        assert last.headers["x-ratelimit-remaining-requests"] == str(1000 - 11)
        for quotas in both:
            await quotas.close()

    asyncio.run(run())


@pytest.mark.slow
def test_while_redis_is_away_each_replica_counts_alone(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    database = f"sqlite:///{tmp_path}/serve.db"
    key = key_with(database, requests_per_minute=3)
    with serving(ScriptedEngine(), database=database, quota_storage=redis.url) as server:
        assert server.service.quotas.shared is not None
        server.service.quotas.shared.pause = 0.2

        def ask() -> int:
            return server.post("/infer/short", {"prompt": "hi"}, Authorization=f"Bearer {key}").status

        assert [ask(), ask()] == [200, 200]
        redis.stop()
        assert [ask(), ask(), ask(), ask()] == [200, 200, 200, 429]
        redis.start()
        time.sleep(0.25)
        assert [ask(), ask(), ask(), ask()] == [200, 200, 200, 429]  # it has forgotten: nothing was saved
    assert caplog.text.count("the storage of limits is away") == 1
    assert caplog.text.count("the storage of limits is back") == 1
    assert "Traceback" not in caplog.text + capfd.readouterr().err


@pytest.mark.slow
def test_a_redis_that_hangs_holds_no_request_for_long(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        quotas = Quotas(redis.url)
        caller = Caller("k", "k", limits=KeyLimits(requests_per_minute=2))
        await charged(quotas, caller, 1)
        redis.process.send_signal(signal.SIGSTOP)
        try:
            found = await asyncio.gather(*(charged(quotas, caller, 1) for _ in range(3)), return_exceptions=True)
        finally:
            redis.process.send_signal(signal.SIGCONT)
        assert sum(isinstance(each, Charge) for each in found) == 2  # this replica's own limit

    asyncio.run(run())
    assert caplog.text.count("is away") == 1


def test_storages_that_cannot_be_used_are_explained() -> None:
    for storage, words in (
        ("database", "needs PostgreSQL, and the database is sqlite"),
        ("nonsense://x", "cannot be used"),
        ("memcached", "cannot be used"),
    ):
        with pytest.raises(UsageError, match=words):
            Quotas(storage, "sqlite:///x.db")
    with pytest.raises(UsageError, match="cannot be reached"):
        asyncio.run(SharedCounts("redis://127.0.0.1:9", "").check())

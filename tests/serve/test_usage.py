"""What callers see of their own use: /v1/usage, on SQLite and PostgreSQL (SUFFICE_TEST_POSTGRESQL=postgresql://...)."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serving import Reply, Server, request_row, serving
from suffice.errors import StoreAwayError
from suffice.serve.auth.api_keys import hash_key, make_key
from suffice.serve.http.errors import Problem
from suffice.serve.request_log.store import Store
from suffice.serve.request_log.usage_query import RecentUsage, read_query
from suffice.serve.request_log.usage_report import totals
from suffice.testing.scripted_engine import ScriptedEngine

POSTGRESQL = os.environ.get("SUFFICE_TEST_POSTGRESQL", "")
DAY = 86400


def row(name: str | None, days_ago: int, **values: Any) -> dict[str, Any]:
    then = time.time() - days_ago * DAY
    day = time.strftime("%Y-%m-%d", time.gmtime(then))
    said = {"time": then, "day": day, "request_id": uuid.uuid4().hex, "key_name": name, "finish_detail": "end_token"}
    return request_row(**{**said, **values})


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return Store(f"sqlite:///{tmp_path}/serve.db")
    if not POSTGRESQL:
        pytest.skip("SUFFICE_TEST_POSTGRESQL is not set")
    return Store(POSTGRESQL)


def test_rows_are_added_up_by_day_tier_and_model_for_one_key_alone(store: Store) -> None:
    anna, bob = uuid.uuid4().hex, uuid.uuid4().hex
    store.add_requests(
        [
            row(anna, 0, tier="short", model="m", answer_tokens=100, finish="length", finish_detail="tier"),
            row(anna, 0, tier="short", model="m", answer_tokens=30, finish="stop", finish_detail="repetition"),
            row(anna, 0, tier="long", model="m", answer_tokens=7, finish="length", finish_detail="repetition"),
            row(anna, 2, tier="long", model="n", prompt_tokens=50, finish="cancelled", finish_detail="client_gone"),
            row(anna, 2, finish="error", finish_detail="", answer_tokens=0, prompt_tokens=0),
            row(anna, 9, tier="long", model="m"),
            row(bob, 0, tier="short", model="m", answer_tokens=999),
        ]
    )

    def of(by: str, days: int, name: str = anna) -> dict[str, Mapping[str, Any]]:
        found = asyncio.run(RecentUsage(store).of(name, by, days))
        assert [each["name"] for each in found] == sorted(each["name"] for each in found)
        return {each["name"]: each for each in found}

    day = of("day", 3)
    today, before = (time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago * DAY)) for ago in (0, 2))
    assert set(day) == {before, today}
    sums = ("requests", "errors", "cancelled", "truncated", "runaways", "prompt_tokens", "answer_tokens")
    assert [day[today][name] for name in sums] == [3, 0, 0, 1, 2, 3, 137]
    assert [day[before][name] for name in sums] == [2, 1, 1, 0, 0, 50, 1]
    assert {name: each["requests"] for name, each in of("tier", 10).items()} == {"-": 1, "long": 3, "short": 2}
    assert {name: each["requests"] for name, each in of("model", 3).items()} == {"-": 1, "m": 3, "n": 1}
    assert of("day", 1, bob)[today]["answer_tokens"] == 999
    assert of("day", 1, "nobody") == {}
    store.close()


def test_the_database_adds_up_what_the_command_counts(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/serve.db")
    ends = [("stop", "end_token"), ("stop", "repetition"), ("length", "tier"), ("length", "repetition")]
    ends += [("error", ""), ("error", "repetition"), ("cancelled", "client_gone"), ("repetition", "")]
    store.add_requests([row(None, 0, tier="short", finish=finish, finish_detail=detail) for finish, detail in ends])
    [total] = totals(store, "tier")
    [found] = store.sums("tier", "2026-01-01", None, 10.0)
    names = ("name", "requests", "errors", "cancelled", "truncated", "runaways", "prompt_tokens", "answer_tokens")
    assert found == {name: getattr(total, name) for name in names}
    store.close()


def ask(server: Server, query: str = "", key: str = "") -> Reply:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return server.ask("GET", f"/v1/usage{query}", **headers)


def test_a_key_sees_what_it_used_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/serve.db"
    store, keys = Store(url), {}
    permits = {"tiers": [], "models": [], "created": 0.0}
    limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "tokens_per_day", "expires", "revoked"))
    for name in ("anna", "bob"):
        key_id, keys[name] = make_key()
        store.add_key({"id": key_id, "name": name, "hash": hash_key(keys[name]), **permits, **limits})
    store.add_requests([row("anna", 1), row("anna", 0), row("bob", 0), row(None, 0)])
    store.close()
    with serving(ScriptedEngine(), database=url) as server:
        said = ask(server, "?by=day", keys["anna"]).json
        assert (said["object"], said["days"], [each["requests"] for each in said["data"]]) == (
            "suffice.usage",
            30,
            [1, 1],
        )
        assert [each["requests"] for each in ask(server, "?days=1", keys["bob"]).json["data"]] == [1]
        assert ask(server).status == 401
        assert ask(server, key="sk-wrong").status == 401
        for query, param in (("?by=key", "by"), ("?days=0", "days"), ("?days=1_0", "days"), ("?by=day&by=day", "by")):
            refused = ask(server, query, keys["bob"])
            assert (refused.status, refused.json["error"]["param"]) == (400, param)
    with serving(ScriptedEngine(), database=url, no_auth=True) as server:
        assert [each["requests"] for each in ask(server, "?days=1").json["data"]] == [1]


def test_days_may_be_written_as_a_whole_number_with_a_point() -> None:
    assert read_query(b"days=7.0&by=tier") == ("tier", 7)
    assert read_query(b"") == ("day", 30)
    with pytest.raises(Problem, match="from 1 to 366"):
        read_query("days=٣".encode())


class SlowStore(Store):
    """A store that notes who asks, and answers when `free` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.free = threading.Event()
        self.free.set()

    def sums(self, by: str, first_day: str, key_name: str | None, patience: float) -> list[Mapping[str, Any]]:
        assert threading.current_thread().daemon  # so that the end of the process does not wait for it
        self.asked.append((by, key_name))
        self.free.wait(20)
        if by == "model":
            raise StoreAwayError("the server closed the connection")
        return []


def test_the_database_is_asked_the_same_once_for_many_and_one_that_is_away_is_said() -> None:
    async def look() -> None:
        store = SlowStore()
        usage = RecentUsage(store)
        assert await asyncio.gather(*(usage.of("", "day", 30) for _ in range(5))) == [[]] * 5
        assert len(store.asked) == 1
        for _ in range(2):
            with pytest.raises(Problem, match="database is away"):
                await usage.of("", "model", 30)
        assert await usage.of("", "day", 30) == []
        assert len(store.asked) == 2

    asyncio.run(look())


def test_who_asks_much_keeps_nobody_waiting_and_is_told() -> None:
    async def look() -> None:
        store = SlowStore()
        store.free.clear()
        usage = RecentUsage(store)
        anna = [asyncio.create_task(usage.of("anna", "day", days)) for days in range(1, 9)]
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="8 questions of yours") as refused:
            await usage.of("anna", "day", 9)
        assert refused.value.status == 429
        bob = asyncio.create_task(usage.of("bob", "day", 1))
        while len(store.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert store.asked == [("day", "anna"), ("day", "bob")]
        for task in anna[1:4]:
            task.cancel()
        store.free.set()
        assert await bob == []
        await asyncio.gather(*anna, return_exceptions=True)
        assert len(store.asked) == 2 + 4
        assert usage.callers == 0

    asyncio.run(look())


def test_a_database_that_is_too_slow_keeps_its_turn_and_no_caller() -> None:
    async def look() -> None:
        store = SlowStore()
        store.free.clear()
        usage = RecentUsage(store, patience=0.05)
        for name in "abcde":
            with pytest.raises(Problem, match="too slow"):
                await usage.of(name, "day", 1)
        assert len(store.asked) == 4  # the fifth never had its turn
        store.free.set()
        while usage._turns.locked():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await usage.of("f", "day", 1) == []

    asyncio.run(look())


@pytest.mark.slow
@pytest.mark.skipif(not POSTGRESQL, reason="SUFFICE_TEST_POSTGRESQL is not set")
def test_postgresql_gives_up_in_time() -> None:
    store, holder = Store(POSTGRESQL), Store(POSTGRESQL)
    with holder._engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE requests IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(StoreAwayError, match="statement timeout"):
            store.sums("day", "2026-01-01", None, 0.1)
    assert isinstance(store.sums("day", "2999-01-01", None, 0.1), list)
    store.close()
    holder.close()

"""The writer of rows while its database is away, and the store on PostgreSQL (SUFFICE_TEST_POSTGRESQL=postgresql://...)."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving import request_row, serving
from suffice.errors import RejectedRowError, StoreAwayError
from suffice.serve.auth.api_keys import KeyRing, hash_key, make_key
from suffice.serve.log.store import Store
from suffice.serve.log.tables import prompt_rows
from suffice.serve.log.usage_report import totals
from suffice.serve.log.writer import RequestLogWriter
from suffice.testing.scripted_engine import ScriptedEngine

POSTGRESQL = os.environ.get("SUFFICE_TEST_POSTGRESQL")


def row(number: int) -> dict[str, Any]:
    return request_row(request_id=str(number))


class Away(Store):
    """A database that is away while `away` is set."""

    away = False
    late = False
    """It writes before the connection breaks."""
    refused = 0

    def add_requests(self, rows: Sequence[Mapping[str, Any]], *, again: bool = False) -> None:
        if any(row["finish"] == "poison" for row in rows):
            raise RejectedRowError("value too long")
        if self.away:
            if self.late and not self.refused:
                super().add_requests(rows, again=again)
            self.refused += 1
            raise StoreAwayError("the server closed the connection")
        super().add_requests(rows, again=again)


def wait_for_refusal(store: Away) -> None:
    deadline = time.monotonic() + 20
    while not store.refused:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_rows_wait_while_the_database_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = Away(f"sqlite:///{tmp_path}/serve.db")
    writer = RequestLogWriter(store, KeyRing())
    store.away = True
    for number in range(2500):
        writer.add(row(number))
    wait_for_refusal(store)
    store.away = False
    writer.close()
    [total] = totals(store, "day")
    assert (total.name, total.requests) == ("2026-01-01", 2500)
    said = caplog.text
    assert "the database is away (the server closed the connection)" in said
    assert "the database is back" in said


def test_rows_that_were_written_before_the_connection_broke_are_not_written_twice(tmp_path: Path) -> None:
    store = Away(f"sqlite:///{tmp_path}/serve.db")
    store.away = store.late = True
    writer = RequestLogWriter(store, KeyRing())
    for number in range(3):
        writer.add(row(number))
    wait_for_refusal(store)
    writer.add(row(3))
    store.away = False
    writer.close()
    assert sorted(name for (name,) in store.requests(0, ["request_id"])) == ["0", "1", "2", "3"]


def test_a_shutdown_waits_for_a_database_that_comes_back(tmp_path: Path) -> None:
    store = Away(f"sqlite:///{tmp_path}/serve.db")
    writer = RequestLogWriter(store, KeyRing())
    store.away = True
    writer.add(row(1))
    closing = threading.Thread(target=writer.close)
    closing.start()
    wait_for_refusal(store)
    store.away = False
    closing.join()
    assert list(store.requests(0, ["request_id"])) == [("1",)]


def test_a_row_that_the_database_will_not_take_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Away(f"sqlite:///{tmp_path}/serve.db")
    writer = RequestLogWriter(store, KeyRing())
    for number in range(5):
        writer.add({**row(number), "finish": "poison" if number == 2 else "stop"})
    writer.close()
    assert sorted(name for (name,) in store.requests(0, ["request_id"])) == ["0", "1", "3", "4"]
    assert "refused one of the rows of usage (value too long)" in caplog.text


def test_what_is_lost_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Away(f"sqlite:///{tmp_path}/serve.db")
    store.away = True
    writer = RequestLogWriter(store, KeyRing(), patience=0.1)
    writer.add(row(1))
    writer.close()
    assert "1 rows of usage were lost" in caplog.text


def test_a_database_of_an_earlier_release_is_brought_up_to_date(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/serve.db"
    Store(url).close()
    with sqlite3.connect(tmp_path / "serve.db") as connection:
        connection.execute("ALTER TABLE requests DROP COLUMN replica")
        connection.execute("ALTER TABLE requests DROP COLUMN lessons")
        connection.execute("ALTER TABLE prompts DROP COLUMN tool_calls")
        connection.execute("DELETE FROM migrations WHERE name LIKE 'add_%'")
    store = Store(url)
    store.add_requests([row(1)])
    store.add_prompts(
        [{column.name: "x" for column in prompt_rows.columns if column.name not in ("row", "time")} | {"time": 1.0}]
    )
    assert [each["tool_calls"] for each in store.prompts()] == ["x"]
    numbers, rows = store.rows_after(0, 9, own="a")
    assert numbers == [1]
    assert [(each["row"], each["replica"]) for each in rows] == [(1, None)]
    store.close()


def test_replicas_that_start_together_share_a_sqlite_file(tmp_path: Path) -> None:
    found: list[float | Exception] = []

    def open_it() -> None:
        try:
            store = Store(f"sqlite:///{tmp_path}/serve.db")
            found.append(store.identity())
            store.close()
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert isinstance(found[0], float)


@pytest.mark.slow
@pytest.mark.skipif(POSTGRESQL is None, reason="SUFFICE_TEST_POSTGRESQL is not set")
def test_replicas_that_start_together_share_postgresql() -> None:
    assert POSTGRESQL is not None
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(Store(POSTGRESQL))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 4
    key_id, text = make_key()
    limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "tokens_per_day"))
    permits = {"tiers": ["short"], "models": [], "created": time.time(), "expires": None, "revoked": None}
    stores[0].add_key({"id": key_id, "name": f"n-{key_id}", "hash": hash_key(text), **permits, **limits})
    with serving(ScriptedEngine(), database=POSTGRESQL) as one, serving(ScriptedEngine(), database=POSTGRESQL) as two:
        for server in (one, two):
            bearer = {"Authorization": f"Bearer {text}"}
            assert server.post("/infer/short", {"prompt": "hi"}, **bearer).status == 200
            assert server.post("/infer/long", {"prompt": "hi"}, **bearer).status == 403
    found = {total.name: (total.requests, total.answer_tokens) for total in totals(stores[0], "key")}
    assert found[f"n-{key_id}"] == (2, 10)
    for store in stores:
        store.close()

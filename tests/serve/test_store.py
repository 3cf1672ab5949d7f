"""The writer of rows while its database is away, and the store on PostgreSQL (SUFFICE_TEST_POSTGRESQL=postgresql://...)."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serving import request_row, serving
from suffice.errors import RejectedRowError, StoreAwayError, StoreBrokenError, StoreError
from suffice.serve.auth.api_keys import KeyRing, hash_key, make_key
from suffice.serve.request_log.store import Store
from suffice.serve.request_log.store_errors import store_error
from suffice.serve.request_log.tables import text_rows
from suffice.serve.request_log.usage_report import totals
from suffice.serve.request_log.writer import RequestLogWriter
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


def wait_for(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_refusal(store: Away) -> None:
    wait_for(lambda: store.refused)


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


def test_rows_are_kept_where_the_database_rejects_every_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A constraint that somebody added, which is mended later."""
    caplog.set_level(logging.INFO)
    store = Store(f"sqlite:///{tmp_path}/serve.db")
    never = "CREATE TRIGGER never BEFORE INSERT ON requests BEGIN SELECT RAISE(ABORT, 'never'); END"
    with sqlite3.connect(tmp_path / "serve.db") as connection:
        connection.execute(never)
    writer = RequestLogWriter(store, KeyRing())
    for number in range(50):
        writer.add(row(number))
    wait_for(lambda: "the database does not take rows of usage (never)" in caplog.text)
    with sqlite3.connect(tmp_path / "serve.db") as connection:
        connection.execute("DROP TRIGGER never")
    wait_for(lambda: "takes rows of usage again" in caplog.text)
    writer.close()
    assert len(list(store.requests(0, ["request_id"]))) == 50
    assert not [each for each in caplog.records if "refused one" in each.getMessage() or "lost" in each.getMessage()]


def with_driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Callable[[str], None]]]:
    """A database that no other test uses, and a way to change it behind the server's back."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/serve.db"
    elif POSTGRESQL is None:
        pytest.skip("SUFFICE_TEST_POSTGRESQL is not set")
    else:
        schema = f"own_{time.time_ns()}"
        admin = sa.create_engine(
            POSTGRESQL.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT"
        )
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
        url = f"{POSTGRESQL}?options=-csearch_path%3D{schema}"
    store, changes = Store(url), sa.create_engine(with_driver(url))

    def change(statement: str) -> None:
        with changes.begin() as connection:
            connection.execute(sa.text(statement))

    yield store, change
    store.close()
    changes.dispose()
    if request.param == "postgresql":
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
        admin.dispose()


def test_a_column_that_is_missing_is_said_once_as_such_and_no_row_is_lost(
    own: tuple[Store, Callable[[str], None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (store, change), ring = own, KeyRing()
    writer = RequestLogWriter(store, ring)
    change("ALTER TABLE requests DROP COLUMN tier")
    writer.add(row(1))
    wait_for(lambda: "does not take rows of usage" in caplog.text)
    keyed = make_key()[0]
    limits = dict.fromkeys(("requests_per_minute", "tokens_per_minute", "tokens_per_day", "expires", "revoked"))
    store.add_key({"id": keyed, "name": keyed, "hash": "", "tiers": [], "models": [], "created": 0.0, **limits})
    wait_for(lambda: ring.configured)  # keys are read all the while
    time.sleep(2.5)
    [(level, said)] = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert (level, "tier" in said, "tables must be those of this release" in said) == ("WARNING", True, True)
    assert "away" not in caplog.text
    change("ALTER TABLE requests ADD COLUMN tier VARCHAR(100)")
    wait_for(lambda: "the database takes rows of usage again" in caplog.text)
    writer.close()
    assert list(store.requests(0, ["request_id"])) == [("1",)]
    assert len(caplog.records) == 2


def test_what_cannot_be_read_is_said_once_while_rows_are_written(
    own: tuple[Store, Callable[[str], None]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store, change = own
    writer = RequestLogWriter(store, KeyRing())
    change("ALTER TABLE keys RENAME TO other_keys")
    for number in range(3):
        writer.add(row(number))
        time.sleep(2.2)
    writer.close()
    [said] = [each.getMessage() for each in caplog.records]
    assert said.startswith("the keys cannot be read, and stay as they were: the database refuses, until it is mended (")
    assert len(list(store.requests(0, ["request_id"]))) == 3


def test_what_the_database_says_is_told_apart(own: tuple[Store, Callable[[str], None]]) -> None:
    store, change = own
    with pytest.raises(RejectedRowError):
        store.add_requests([row(1) | {"day": None}])
    change("ALTER TABLE requests RENAME COLUMN tier TO tear")
    with pytest.raises(StoreBrokenError, match="tier"):
        store.add_requests([row(1)])
    change("DROP TABLE prompts")
    with pytest.raises(StoreBrokenError, match="prompts"):
        store.forget_texts(1.0)
    with pytest.raises(StoreBrokenError, match=r"^the database refuses, until it is mended \(.*prompts"):
        list(store.texts())


def test_a_locked_or_unreadable_file_is_away_and_a_protected_one_is_not(tmp_path: Path) -> None:
    def said(code: int) -> StoreError:
        driver = sqlite3.OperationalError("x")
        driver.sqlite_errorcode = code
        return store_error(sa.exc.OperationalError("INSERT", {}, driver))

    for code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        assert isinstance(said(code), StoreAwayError)
    for code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        assert isinstance(said(code), StoreBrokenError)
    assert isinstance(said(sqlite3.SQLITE_IOERR | 10 << 8), StoreAwayError)  # an extended code
    lost = sa.exc.ProgrammingError("INSERT", {}, Exception("x"), connection_invalidated=True)
    assert isinstance(store_error(lost), StoreAwayError)
    unreadable = sa.exc.StatementError("x", "INSERT", {}, ValueError("half a character"))
    assert isinstance(store_error(unreadable), RejectedRowError)


def test_every_error_of_sqlalchemy_has_a_home() -> None:
    away = ("OperationalError", "InterfaceError", "TimeoutError")
    for kind in vars(sa.exc).values():
        if isinstance(kind, type) and issubclass(kind, sa.exc.SQLAlchemyError):
            error = kind.__new__(kind)
            Exception.__init__(error, "why")
            error.__dict__ |= {"orig": Exception("why"), "connection_invalidated": False}
            found = store_error(error)
            assert isinstance(found, StoreError), kind
            assert isinstance(found, StoreAwayError) == (kind.__name__ in away), kind


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
    store.add_texts(
        [{column.name: "x" for column in text_rows.columns if column.name not in ("row", "time")} | {"time": 1.0}]
    )
    assert [each["tool_calls"] for each in store.texts()] == ["x"]
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

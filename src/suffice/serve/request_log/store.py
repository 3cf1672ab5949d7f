"""The database: keys, and one row per request, in SQLite or PostgreSQL. Blocking; called from threads."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from suffice.errors import RejectedRowError, StoreError, UsageError, first_line, packages_of
from suffice.json_codec import dump, load
from suffice.serve.request_log.store_errors import store_error
from suffice.serve.request_log.tables import MIGRATIONS, TABLES, key_rows, migration_rows, request_rows, text_rows

__all__ = ["Store", "cannot_be_opened", "sqlite_file"]

_SQLITE_PATIENCE = 5.0  # seconds that a locked file is waited for
_LOCK = 7_466_331  # of PostgreSQL's advisory lock for migrations: any number that nothing else uses

_OBSERVED = ("row", "replica", "lessons", "key_id", "route", "model", "answer_tokens", "finish", "finish_detail")
"""The columns that the length model learns from."""

_POSTGRESQL = {"connect_timeout": "5", "tcp_user_timeout": "10000"}
"""Parameters of libpq, in seconds and milliseconds, so that a vanished server is noticed. A URL can override them."""

_NOT_A_URL = "the database is not a URL like sqlite:///FILE or postgresql://USER@HOST/NAME"


class Store:
    """A database, with its schema brought up to date. Every method raises `StoreError` where the database fails.

    Args:
        url: of SQLAlchemy; `sqlite:///FILE`, or `postgresql://...`, which means the driver psycopg.
        must_exist: whether a missing SQLite file is an error; otherwise it is created.
        migrate: bring the schema up to date; otherwise `pending` says what that would do.

    Raises:
        UsageError: the URL cannot be used, or the database cannot be opened.
    """

    def __init__(self, url: str, *, must_exist: bool = False, migrate: bool = True) -> None:
        parsed = _parsed(url)
        file = sqlite_file(url)
        if must_exist and file is not None and not file.is_file():
            raise UsageError(f"there is no database at {parsed.database}: `suffice serve --check` shows the server's")
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            if parsed.drivername == "postgresql+psycopg":
                parsed = parsed.set(query={**_POSTGRESQL, **parsed.query})
            with packages_of("postgresql", "the database needs"):
                to_json = {"json_serializer": lambda value: dump(value).decode(), "json_deserializer": load}
                self._engine = sa.create_engine(parsed, pool_pre_ping=True, **to_json)
            names = [column.name for column in request_rows.columns if column.name != "row"]
            self._insert = sa.insert(request_rows).compile(dialect=self._engine.dialect, column_keys=names)
            if parsed.drivername.startswith("sqlite"):
                sa.event.listen(self._engine, "connect", _set_up_sqlite)
            if migrate:
                self._migrate()
        except (ArgumentError, NoSuchModuleError):
            raise UsageError(_NOT_A_URL) from None
        except (SQLAlchemyError, StoreError, OSError) as error:
            raise cannot_be_opened(error) from None

    def close(self) -> None:
        self._engine.dispose()

    def keys(self) -> Sequence[Mapping[str, Any]]:
        """All keys, the oldest first, without their text, which is not stored."""
        with self._connected() as connection:
            return _dicts(connection, sa.select(key_rows).order_by(key_rows.c.created))

    def add_key(self, row: Mapping[str, Any]) -> None:
        """Add a key. Raises `UsageError` where there is one of that name."""
        try:
            with self._connected(write=True) as connection:
                connection.execute(sa.insert(key_rows).values(**row))
        except RejectedRowError:
            raise UsageError(f"there is a key named {row['name']!r} already: choose another name") from None

    def change_key(self, name: str, **values: Any) -> None:
        """Change columns of the key of that name (or id). Raises `UsageError` where there is none."""
        named = (key_rows.c.name == name) | (key_rows.c.id == name)
        with self._connected(write=True) as connection:
            if not connection.execute(sa.update(key_rows).where(named).values(**values)).rowcount:
                raise UsageError(f"no key named {name!r}: `suffice keys list` shows them")

    def add_requests(self, rows: Sequence[Mapping[str, Any]], *, again: bool = False) -> None:
        """Write rows, all or none; `again` where the same call has failed, perhaps after all of them were written.

        Raises:
            RejectedRowError: the database does not take one of them.
        """
        with self._connected(write=True) as connection:
            if not (again and self._has(connection, rows[0])):
                connection.exec_driver_sql(str(self._insert), [self._bound(row) for row in rows])

    def _bound(self, row: Mapping[str, Any]) -> Any:
        """A row as the driver takes it. Conversion by SQLAlchemy's types takes as long as the database does."""
        observations = row["lessons"]
        values = {**row, "lessons": None if observations is None else dump(observations).decode()}
        names = self._insert.positiontup
        return values if names is None else tuple([values[name] for name in names])

    @staticmethod
    def _has(connection: sa.Connection, row: Mapping[str, Any]) -> bool:
        """Ids may be used again, but not at the same time."""
        same = (request_rows.c.time == row["time"]) & (request_rows.c.request_id == row["request_id"])
        return connection.scalar(sa.select(sa.literal(1)).where(same).limit(1)) is not None

    def add_texts(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with self._connected(write=True) as connection:
            connection.execute(sa.insert(text_rows), list(rows))

    def texts(self, since: float = 0.0) -> Iterable[Mapping[str, Any]]:
        """Rows of `prompts` since a time (seconds since 1970), the oldest first."""
        query = sa.select(text_rows).where(text_rows.c.time >= since).order_by(text_rows.c.row)
        with self._connected() as connection:
            for row in connection.execute(query.execution_options(yield_per=100)).mappings():
                yield dict(row)

    def forget_texts(self, before: float) -> int:
        """Delete the texts from before a time (seconds since 1970); returns how many there were."""
        with self._connected(write=True) as connection:
            return connection.execute(sa.delete(text_rows).where(text_rows.c.time < before)).rowcount

    def requests(self, since: float, columns: Iterable[str]) -> Iterable[Sequence[Any]]:
        """Some columns of every request since a time (seconds since 1970), row by row."""
        query = sa.select(*(request_rows.c[name] for name in columns)).where(request_rows.c.time >= since)
        with self._connected() as connection:
            yield from connection.execute(query.order_by(request_rows.c.time).execution_options(yield_per=1000))

    def sums(self, by: str, first_day: str, key_name: str | None, patience: float) -> list[Mapping[str, Any]]:
        """Counts of requests and tokens, grouped by a column, in order of its values.

        Args:
            by: `day`, `tier` or `model`.
            first_day: such as 2027-01-31.
            key_name: the key whose requests are counted; None for those without a key.
            patience: seconds after which PostgreSQL gives up.

        Raises:
            StoreAwayError: also where it takes longer than that.
        """
        of = request_rows.c
        looped = sa.or_(of.finish == "repetition", of.finish_detail == "repetition")
        counted = {
            "errors": of.finish == "error",
            "cancelled": of.finish == "cancelled",
            "truncated": sa.and_(of.finish == "length", sa.not_(looped)),
            "runaways": sa.and_(of.finish.not_in(["error", "cancelled"]), looped),
        }
        query = (
            sa.select(
                sa.func.coalesce(sa.func.nullif(of[by], ""), "-").label("name"),
                sa.func.count().label("requests"),
                *(sa.func.sum(sa.case((what, 1), else_=0)).label(name) for name, what in counted.items()),
                *(sa.func.sum(of[name]).label(name) for name in ("prompt_tokens", "answer_tokens")),
            )
            .where(of.day >= first_day, of.key_name == key_name)
            .group_by(sa.text("name"))
        )
        with self._connected() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text(f"SET LOCAL statement_timeout = {round(1000 * patience)}"))
            rows = _dicts(connection, query)
        # PostgreSQL sums to decimals, and databases sort by alphabets of their own
        whole = [{name: each if name == "name" else int(each) for name, each in row.items()} for row in rows]
        return sorted(whole, key=itemgetter("name"))

    def identity(self) -> float:
        """When the database's first table was made, which tells it from another."""
        with self._connected() as connection:
            return float(connection.scalar(sa.select(sa.func.min(migration_rows.c.applied))) or 0.0)

    def last_row(self) -> int:
        """Number of the newest request; 0 without any."""
        with self._connected() as connection:
            return int(connection.scalar(sa.select(sa.func.max(request_rows.c.row))) or 0)

    def rows_after(
        self, row: int, most: int, missed: Collection[int] = (), own: str | None = None
    ) -> tuple[Sequence[int], Sequence[Mapping[str, Any]]]:
        """The numbers of `missed` that exist by now, followed by the first `most` numbers above `row`, in order; and
        the rows among them that replicas other than `own` wrote."""
        number = request_rows.c.row
        there, theirs = sa.select(number).order_by(number), request_rows.c.replica.is_distinct_from(own)
        others = sa.select(*(request_rows.c[name] for name in _OBSERVED)).where(theirs).order_by(number)
        with self._connected() as connection:
            late = connection.scalars(there.where(number.in_(missed))).all() if missed else []
            fresh = connection.scalars(there.where(number > row).limit(most)).all()
            rows = _dicts(connection, others.where(number.in_(late))) if late else []
            if fresh:  # between two numbers, because thousands of them are too many for a statement
                rows += _dicts(connection, others.where(number.between(fresh[0], fresh[-1])))
            known = {*late, *fresh}
            return [*late, *fresh], [each for each in rows if each["row"] in known]

    def newest_rows(self, most: int) -> Sequence[Mapping[str, Any]]:
        """The last requests, the oldest of them first."""
        query = sa.select(*(request_rows.c[name] for name in _OBSERVED)).order_by(request_rows.c.row.desc())
        with self._connected() as connection:
            return _dicts(connection, query.limit(most))[::-1]

    def pending(self) -> list[str]:
        """Names of the migrations that a start would apply."""
        with self._connected() as connection:
            there = sa.inspect(connection).has_table(migration_rows.name)
            applied = set(connection.scalars(sa.select(migration_rows.c.name))) if there else set()
        return [name for name in MIGRATIONS if name not in applied]

    @contextmanager
    def _connected(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """A connection, to write in a transaction of its own; what goes wrong is a `StoreError`."""
        try:
            with self._engine.begin() if write else self._engine.connect() as connection:
                yield connection
        except (SQLAlchemyError, OverflowError, ValueError) as error:
            raise store_error(error) from error

    def missing_columns(self) -> list[str]:
        """Columns that this release needs and the database lacks, such as `requests.tier`."""
        with self._connected() as connection:
            inspector = sa.inspect(connection)
            tables = inspector.get_table_names()
            there = {f"{table}.{each['name']}" for table in tables for each in inspector.get_columns(table)}
        return [name for table in TABLES for each in table.columns if (name := str(each)) not in there]

    def _migrate(self) -> None:
        with self._connected(write=True) as connection:
            if connection.dialect.name == "postgresql":  # replicas that start together take turns
                connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
            elif connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            migration_rows.create(connection, checkfirst=True)
            applied = set(connection.scalars(sa.select(migration_rows.c.name)))
            for name, migrate in MIGRATIONS.items():
                if name not in applied:
                    migrate(connection)
                    connection.execute(sa.insert(migration_rows).values(name=name, applied=time.time()))


def _dicts(connection: sa.Connection, query: sa.Executable) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _parsed(url: str) -> sa.URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the second: a port that is not a number
        raise UsageError(_NOT_A_URL) from None
    return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite database; None for others, and for one in memory. Raises `UsageError` for what is no URL."""
    parsed = _parsed(url)
    if not parsed.drivername.startswith("sqlite") or parsed.database in (None, "", ":memory:"):
        return None
    name = str(parsed.database)
    if not name.startswith("file:"):
        return Path(name).expanduser()
    uri = urlsplit(name)
    in_memory = parsed.query.get("mode") == "memory" or uri.path in ("", ":memory:")
    return None if in_memory else Path(unquote(uri.path))


def cannot_be_opened(error: Exception) -> UsageError:
    """What is wrong with the database, in a line."""
    reason = error.reason if isinstance(error, StoreError) else first_line(getattr(error, "orig", None) or error)
    return UsageError(f"the database cannot be opened: {reason}")


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Readers and the writer do not block each other, and a commit survives the process (not a power failure)."""
    connection.execute(f"PRAGMA busy_timeout={_SQLITE_PATIENCE * 1000:.0f}")
    given_up = time.monotonic() + _SQLITE_PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:  # two that switch a new file at once: SQLite does not wait for this lock
            if time.monotonic() > given_up:
                raise
            time.sleep(0.05)
    connection.execute("PRAGMA synchronous=NORMAL")

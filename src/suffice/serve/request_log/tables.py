"""The tables of the store, and the steps that bring an older database up to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

__all__ = ["MIGRATIONS", "TABLES", "count_rows", "key_rows", "migration_rows", "request_rows", "text_rows"]

_METADATA = sa.MetaData()

key_rows = sa.Table(
    "keys",
    _METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("tiers", sa.JSON, nullable=False),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("tokens_per_minute", sa.Integer),
    sa.Column("tokens_per_day", sa.Integer),
    sa.Column("on_runaway", sa.String(4)),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
    sa.Column("revoked", sa.Float),
)
"""Times are seconds since 1970. `hash` is SHA-256 of the key's text, which is 256 random bits."""

request_rows = sa.Table(
    "requests",
    _METADATA,
    sa.Column("row", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float, nullable=False, index=True),
    sa.Column("day", sa.String(10), nullable=False, index=True),
    sa.Column("request_id", sa.String(100), nullable=False),
    sa.Column("key_id", sa.String(16)),
    sa.Column("key_name", sa.String(200)),
    sa.Column("route", sa.String(100), nullable=False),
    sa.Column("model", sa.String(200)),
    sa.Column("upstream", sa.String(200)),
    sa.Column("tier", sa.String(100)),
    sa.Column("stream", sa.Boolean, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("error", sa.String(100)),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("answer_tokens", sa.Integer, nullable=False),
    sa.Column("thinking_tokens", sa.Integer, nullable=False),
    sa.Column("max_new_tokens", sa.Integer),
    *(sa.Column(quantile, sa.Integer) for quantile in ("p50", "p90", "p95", "p99")),
    sa.Column("limited_by", sa.String(20)),
    sa.Column("finish", sa.String(20), nullable=False),
    sa.Column("finish_detail", sa.String(40), nullable=False),
    sa.Column("queue_seconds", sa.Float, nullable=False),
    sa.Column("first_token_seconds", sa.Float),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("replica", sa.String(32)),
    sa.Column("lessons", sa.JSON(none_as_null=True)),
)
"""`replica` is the process that wrote the row; `lessons` holds its observations, from which other replicas learn."""

count_rows = sa.Table(
    "counts",
    _METADATA,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("ends", sa.Float, nullable=False),
)
"""What is charged to limits that replicas share through PostgreSQL, until the window ends."""

text_rows = sa.Table(
    "prompts",
    _METADATA,
    sa.Column("row", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float, nullable=False, index=True),
    sa.Column("request_id", sa.String(100), nullable=False, index=True),
    sa.Column("key_id", sa.String(16)),
    sa.Column("model", sa.String(200)),
    sa.Column("messages", sa.JSON(none_as_null=True)),
    sa.Column("prompt", sa.Text),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("thinking", sa.Text),
    sa.Column("prompt_ids", sa.JSON(none_as_null=True)),
    sa.Column("tool_calls", sa.JSON(none_as_null=True)),
)
"""Texts, where `log_prompts` is on. They have their own table because they are kept for a shorter time, if at all."""

migration_rows = sa.Table(
    "migrations",
    _METADATA,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("applied", sa.Float, nullable=False),
)
"""Which of `MIGRATIONS` this database has seen."""

TABLES = tuple(_METADATA.tables.values())

_Migration = Callable[[sa.Connection], None]


def _create(*tables: sa.Table) -> _Migration:
    return lambda connection: _METADATA.create_all(connection, tables)


def _add_columns(table: str, **columns: str) -> _Migration:
    """Adds the columns that are not there, by name and type; they are NULL in existing rows."""

    def migrate(connection: sa.Connection) -> None:
        there = {column["name"] for column in sa.inspect(connection).get_columns(table)}
        for name, kind in columns.items():
            if name not in there:
                connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN {name} {kind}"))

    return migrate


MIGRATIONS: Mapping[str, _Migration] = {
    "create_keys_and_requests": _create(key_rows, request_rows),
    "add_replica_and_lessons": _add_columns("requests", replica="VARCHAR(32)", lessons="JSON"),
    "create_counts": _create(count_rows),
    "create_prompts": _create(text_rows),
    "add_prompt_ids_and_tool_calls": _add_columns("prompts", prompt_ids="JSON", tool_calls="JSON"),
    "add_on_runaway_to_keys": _add_columns("keys", on_runaway="VARCHAR(4)"),
}
"""In the order in which they are applied, each once. A new one is added at the end, and none is ever changed."""

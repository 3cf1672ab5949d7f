"""`suffice keys`: keys of the server, and what each permits."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from suffice.cli.command import Command, CommandGroup, OneOf, Option, TokenLimit, number_type
from suffice.errors import UsageError, packages_of
from suffice.nearest import did_you_mean

if TYPE_CHECKING:
    from suffice.serve.request_log.store import Store

__all__ = ["command", "database_options", "open_store", "parse_time"]

_EXAMPLES = """
suffice keys create alice                                     the tiers that need no key
suffice keys create bob --tiers short standard long --expires 30d
suffice keys create carol --rpm 60 --tokens-per-day 500k
"""
_LONGEST_NAME = 200  # characters, as in the database
_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def open_store(database: str | None, config: str | None, *, make: bool = False) -> Store:
    """The store that the server uses with the same flags; with `make`, a missing SQLite file is created.

    Raises:
        UsageError: packages are missing, or the database cannot be opened.
    """
    with packages_of("serve", "this command needs"):
        from suffice.serve.config import load_serve_settings
        from suffice.serve.request_log.store import Store, sqlite_file
    url = load_serve_settings(config, {"database": database}).database_url
    if not make and (file := sqlite_file(url)) is not None and not file.exists():
        raise UsageError(
            f"there is no database {file}: give the server's with --database or --config (`suffice serve` and `suffice "
            "keys create` make it)"
        )
    return Store(url)


def parse_time(text: str, *, future: bool) -> float:
    """`30d`, `12h`, `2w` from now (or ago), or a date such as 2027-01-31 (UTC), as seconds since 1970."""
    try:
        if match := re.fullmatch(r"(\d+)([hdw])", text):
            span = timedelta(seconds=int(match[1]) * _UNITS[match[2]])
            return (datetime.now(UTC) + (span if future else -span)).timestamp()
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):  # the second: a year that no calendar has
        raise UsageError(f"{text!r} is not a time: write 12h, 30d, 2w, or a date such as 2027-01-31") from None


def _create(name: str, expires: str | None, database: str | None, config: str | None, **permits: Any) -> int:
    """Make a key for NAME and show it, this once: only its hash is stored."""
    from suffice.serve.auth.api_keys import hash_key, make_key

    if not name.strip() or not name.isprintable():
        raise UsageError(f"the name {name!r} cannot be read in a list: choose another")
    if len(name) > _LONGEST_NAME:
        raise UsageError(f"the name has {len(name)} characters: at most {_LONGEST_NAME}")
    until = parse_time(expires, future=True) if expires is not None else None
    if until is not None and until <= time.time():
        raise UsageError(f"--expires {expires} has passed already: choose a time in the future")
    _check_tiers(permits["tiers"], config)
    store = open_store(database, config, make=True)
    key_id, text = make_key()
    permits |= {"tiers": list(permits["tiers"]), "models": list(permits["models"])}
    key = {"id": key_id, "name": name, "hash": hash_key(text), "created": time.time(), "expires": until}
    store.add_key(permits | key)
    print(text)
    return 0


def _check_tiers(tiers: tuple[str, ...], config: str | None) -> None:
    from pathlib import Path

    from suffice.budget import Budgeter
    from suffice.serve.config import load_serve_settings

    file = load_serve_settings(config).budget_file
    known = Budgeter.load(Path(file) if file else None).tiers
    if unknown := [name for name in tiers if name not in known]:
        raise UsageError(
            f"unknown tier {', '.join(unknown)}; there are: {', '.join(known)}{did_you_mean(unknown[0], known)}"
        )


def _list(database: str | None, config: str | None) -> int:
    """Show all keys and what they permit."""
    rows = open_store(database, config).keys()
    if not rows:
        print("no keys; make one: suffice keys create NAME")
    for row in rows:
        print(f"{row['id']}  {row['name']}  {_state(row)}  {_permits(row)}")
    return 0


def _state(row: Mapping[str, Any]) -> str:
    if row["revoked"] is not None:
        return f"revoked {_day(row['revoked'])}"
    if row["expires"] is None:
        return f"valid since {_day(row['created'])}"
    return f"{'expired' if row['expires'] <= time.time() else 'valid until'} {_day(row['expires'])}"


def _permits(row: Mapping[str, Any]) -> str:
    said = [f"tiers: {', '.join(row['tiers']) or 'those that need no key'}"]
    if row["models"]:
        said.append(f"models: {', '.join(row['models'])}")
    for name in ("requests_per_minute", "tokens_per_minute", "tokens_per_day"):
        if row[name] is not None:
            said.append(f"{name.replace('_', ' ')}: {row[name]}")
    if row["on_runaway"]:
        said.append(f"loops: {row['on_runaway']}")
    return "; ".join(said)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _revoke(name: str, database: str | None, config: str | None) -> int:
    """Refuse the key NAME from now on. Running servers notice within two seconds."""
    open_store(database, config).change_key(name, revoked=time.time())
    return 0


def _rotate(name: str, database: str | None, config: str | None) -> int:
    """Replace the text of the key NAME. The old text is refused from now on; what the key permits stays."""
    from suffice.serve.auth.api_keys import hash_key, make_key

    store = open_store(database, config)
    key_id, text = make_key()
    store.change_key(name, id=key_id, hash=hash_key(text), revoked=None)
    print(text)
    return 0


def database_options() -> list[click.Parameter]:
    """The flags that `open_store` takes."""
    return [
        Option(["--database"], metavar="URL", help="Where keys and rows are kept. [default: the server's]"),
        Option(["--config"], metavar="FILE", help="The server's TOML file."),
    ]


def _command(name: str, callback: Callable[..., int], *options: click.Parameter, examples: str = "") -> Command:
    params = [*options, *database_options()]
    return Command(name, callback=callback, params=params, help=callback.__doc__, examples=examples)


_NAME, _PERMITS, _POSITIVE = click.Argument(["name"]), {"group": "What it permits"}, number_type(int, 1, None)
_CREATE_OPTIONS = [
    Option(["--tiers"], multiple=True, **_PERMITS, help="Tiers by name. [default: those that need no key]"),
    Option(["--models"], multiple=True, **_PERMITS, help="Models by name. [default: all]"),
    Option(["--rpm", "requests_per_minute"], type=_POSITIVE, **_PERMITS, help="Requests per minute."),
    Option(["--tpm", "tokens_per_minute"], type=TokenLimit(), **_PERMITS, help="Tokens per minute, prompts included."),
    Option(["--tokens-per-day"], type=TokenLimit(), **_PERMITS, help="Tokens per day, prompts included."),
    Option(
        ["--on-runaway"],
        type=OneOf(["stop", "warn", "off"]),
        **_PERMITS,
        help="When an answer repeats itself. [default: as the tier or the server says]",
    ),
    Option(["--expires"], metavar="WHEN", **_PERMITS, help="12h, 30d, 2w, or a date. [default: never]"),
]
command = CommandGroup("keys", help="Make, show, revoke and replace the keys of the server.")
command.add_command(_command("create", _create, _NAME, *_CREATE_OPTIONS, examples=_EXAMPLES))
command.add_command(_command("list", _list))
command.add_command(_command("revoke", _revoke, _NAME))
command.add_command(_command("rotate", _rotate, _NAME))

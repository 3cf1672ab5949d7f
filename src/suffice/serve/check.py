"""`suffice serve --check`: every setting and where it comes from, and whether what the settings name is there."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from suffice.engines.loading import check_device_and_dtype
from suffice.errors import SufficeError, UsageError
from suffice.serve.app import engines_of
from suffice.serve.config import ServeSettings, check_exposure, without_password
from suffice.serve.keys import KeyRing
from suffice.serve.server import listening_socket
from suffice.serve.shared import SharedCounts
from suffice.serve.spans import spans_endpoint
from suffice.serve.store import Store, StoreError, cannot_be_opened, sqlite_file
from suffice.serve.tiers import load_budgeter

__all__ = ["show_check"]


def show_check(settings: ServeSettings, origins: Mapping[str, str]) -> int:
    """Print the settings as TOML, and then a line for each thing that was tried, as a comment.

    Returns:
        0 when a server with these settings would start and answer, 1 when not.
    """
    for name, text in _lines(settings).items():
        print(f"{text:<60} # {origins.get(name, 'default')}")
    print()
    wrong = 0
    for name, try_it in _trials(settings).items():
        try:
            found = try_it()
            said = asyncio.run(_awaited(found)) if isinstance(found, Awaitable) else found
        except SufficeError as error:
            wrong += 1
            print(f"# error   {name}: {without_password(str(error))}")
        else:
            print(f"# ok      {name}: {said}")
    return 1 if wrong else 0


def _lines(settings: ServeSettings) -> dict[str, str]:
    """Each setting as a line of TOML, passwords taken out; what is decided at start is a comment."""
    found = {}
    for each in fields(ServeSettings):
        value = getattr(settings, each.name)
        if isinstance(value, tuple):
            value = [without_password(url) for url in value]
        elif isinstance(value, str):
            value = without_password(value)
        written = json.dumps(value, ensure_ascii=False)
        found[each.name] = f"# {each.name}: decided at start" if value is None else f"{each.name} = {written}"
    return found


def _trials(settings: ServeSettings) -> dict[str, Callable[[], Any]]:
    """By name, what is tried: a function that says what it found, or raises."""
    trials: dict[str, Callable[[], Any]] = {
        "address": lambda: _address(settings),
        "tiers": lambda: ", ".join(load_budgeter(settings).tiers),
        "database": lambda: _database(settings),
    }
    if settings.quota_storage != "memory":
        trials["limits"] = lambda: _counts(settings)
    if settings.upstreams:
        for url in settings.upstreams:
            trials[f"upstream {without_password(url)}"] = partial(_upstream, settings, url)
    else:
        trials["engine"] = lambda: _engine(settings)
    if settings.length_folder is not None:
        trials["lengths"] = partial(_folder, settings.length_folder)
    if (endpoint := spans_endpoint(settings)) is not None:
        trials["spans"] = lambda: f"to {without_password(endpoint)}; whether it is there is seen with the first"
    return trials


async def _awaited(found: Awaitable[str]) -> str:
    return await found


def _address(settings: ServeSettings) -> str:
    listening_socket(settings).close()
    return f"{settings.host}:{settings.port} is free"


def _database(settings: ServeSettings) -> str:
    url = settings.database_url
    if (file := sqlite_file(url)) is not None and not file.exists():
        _folder(file.parent)
        exposure = check_exposure(settings, has_keys=False)
        return f"{without_password(url)}, made at start; {exposure or 'keys guard the server'}"
    store = Store(url, migrate=False)
    try:
        pending = store.pending()
        keys = [] if pending and pending[0] == "create_keys_and_requests" else store.keys()
    except StoreError as error:
        raise cannot_be_opened(error) from None
    finally:
        store.close()
    exposure = check_exposure(settings, has_keys=KeyRing(keys).configured)
    changes = f"; changed at start: {', '.join(pending)}" if pending else ""
    count = "1 key" if len(keys) == 1 else f"{len(keys)} keys"
    return f"{without_password(url)}, {count}; {exposure or 'keys guard the server'}{changes}"


def _engine(settings: ServeSettings) -> str:
    check_device_and_dtype(settings.device, settings.dtype)
    return f"{engines_of(settings)[0].model_name}, loaded at start"


def _folder(path: Path) -> str:
    """What traffic teaches is kept there; the server makes the folder."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UsageError(f"{path} cannot be written: {there} is no folder that this user may write to")
    return f"kept in {path}"


async def _counts(settings: ServeSettings) -> str:
    counts = SharedCounts(settings.quota_storage, settings.database_url)
    try:
        await counts.check()
    finally:
        await counts.close()
    return without_password(settings.quota_storage)


async def _upstream(settings: ServeSettings, url: str) -> str:
    [engine] = engines_of(replace(settings, upstreams=(url,)))
    async with engine:
        health = await engine.health()
        if not health.ok:
            raise SufficeError(health.detail)
        context = engine.capacity().context_tokens
        return f"{engine.model_name}, context {context or 'not told'}"

"""`suffice serve --check`: every setting with its origin, and whether what the settings name exists and answers."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from suffice.checkpoints.hub import fetch_config, find_on_hub
from suffice.checkpoints.load_model import check_device_and_dtype
from suffice.checkpoints.model_source import resolve_model
from suffice.engines import MANAGED, Engine
from suffice.errors import EngineError, ModelError, StoreError, SufficeError, UsageError
from suffice.serve.app import engines_of, with_engine
from suffice.serve.auth.api_keys import KeyRing
from suffice.serve.auth.tiers import load_budgeter
from suffice.serve.config import ServeSettings, check_exposure, without_password
from suffice.serve.limits.shared_counts import SharedCounts
from suffice.serve.observe.spans import spans_endpoint
from suffice.serve.request_log.store import Store, cannot_be_opened, sqlite_file
from suffice.serve.server import listening_socket

__all__ = ["show_check"]


def show_check(settings: ServeSettings, origins: Mapping[str, str]) -> int:
    """Print the settings as TOML, and then, as a comment, a line for each thing that was tried. Returns 0 when a server
    with these settings would start and answer, and 1 when it would not.
    """
    for each in fields(ServeSettings):
        print(f"{_line(each.name, getattr(settings, each.name)):<60} # {origins.get(each.name, 'default')}")
    print()
    outcomes = [(trial, *_outcome(trial)) for trial in _trials(settings)]
    others_answer = any(trial.one_suffices and outcome == "ok" for trial, outcome, _ in outcomes)
    words = []
    for trial, outcome, said in outcomes:
        away = "warning" if trial.one_suffices and others_answer else "error"
        words.append(away if outcome == "away" else outcome)
        print(f"# {words[-1]:<7} {trial.name}: {said}")
    return 1 if "error" in words else 0


@dataclass(frozen=True, slots=True)
class _Trial:
    name: str
    attempt: Callable[[], str | Coroutine[Any, Any, str]]
    """Says what it found, or raises."""
    one_suffices: bool = False
    """A server starts while any of these answers."""


class _UntriedError(SufficeError):
    """Whether this works cannot be known before the start."""


def _outcome(trial: _Trial) -> tuple[str, str]:
    """`ok`, `untried`, `error`, or `away` for a server that does not answer; and what there is to say."""
    try:
        found = trial.attempt()
        return "ok", asyncio.run(found) if isinstance(found, Coroutine) else found
    except _UntriedError as error:
        return "untried", str(error)
    except EngineError as error:
        return "away", without_password(str(error))
    except SufficeError as error:
        return "error", without_password(str(error))


def _line(name: str, value: Any) -> str:
    """A setting as a line of TOML, without passwords; what is decided at start is a comment."""
    if value is None:
        return f"# {name}: decided at start"
    if isinstance(value, tuple):
        value = [without_password(url) for url in value]
    elif isinstance(value, str):
        value = without_password(value)
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"


def _trials(settings: ServeSettings) -> Iterator[_Trial]:
    yield _Trial("address", partial(_address, settings))
    yield _Trial("tiers", lambda: ", ".join(load_budgeter(settings).tiers))
    yield _Trial("database", partial(_database, settings))
    if settings.quota_storage != "memory":
        yield _Trial("limits", partial(_counts, settings))
    for url in settings.upstreams:
        yield _Trial(f"upstream {without_password(url)}", partial(_upstream, settings, url), one_suffices=True)
    if not settings.upstreams:
        yield _Trial("engine", partial(_engine, settings))
    if settings.length_folder is not None:
        yield _Trial("lengths", partial(_folder, settings.length_folder))
    if (endpoint := spans_endpoint(settings)) is not None:
        yield _Trial("spans", partial(_spans, endpoint))


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
        if not pending and (missing := store.missing_columns()):
            lacks = f"{without_password(url)} lacks {', '.join(missing)}"
            raise UsageError(f"{lacks}: add what was dropped, or restore a backup")
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
    settings, why = with_engine(settings)
    [engine] = engines_of(settings)
    name = f"{why}; " * bool(why) + engine.model_name
    source = resolve_model(settings.model, adapters=settings.adapters, hub=settings.hub)
    if settings.engine in MANAGED:
        name += _launch(engine, fetches=settings.hub == "modelscope" and not source.local)
    else:
        check_device_and_dtype(settings.device, settings.dtype)
    if source.local:
        return f"{name}, loaded at start"
    if settings.hub == "modelscope":
        raise _UntriedError(f"{name}, fetched from ModelScope at start, which was not asked whether it has the model")
    try:
        found = find_on_hub(source)
        folder = fetch_config(found).parent
    except ModelError as error:
        raise ModelError(f"{name} is not a folder here, and {error}") from None
    if not found.offline:
        return f"{name}, loaded at start from the hub, or as it was fetched before"
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{name}: the hub cannot be reached, and its weights were not fetched before")
    return f"{name}, loaded at start as it was fetched before; the hub cannot be reached"


def _launch(engine: Engine, *, fetches: bool) -> str:
    """What a server would be started with; a hub that would fetch the whole model for that is not asked."""
    from suffice.engines.managed.engine import ManagedEngine

    assert isinstance(engine, ManagedEngine)
    return f" on {engine.server}" + ("" if fetches else f" with {engine.prepare().summary}")


def _folder(path: Path) -> str:
    """Where the learned lengths are kept; the server makes the folder."""
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UsageError(f"{path} cannot be written: {there} is not a folder that this user may write to")
    return f"kept in {path}"


def _spans(endpoint: str) -> str:
    raise _UntriedError(f"to {without_password(endpoint)}; whether it answers is seen with the first span")


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
            raise EngineError(health.detail)
        context = engine.capabilities().context_tokens
        return f"{engine.model_name}, context {context or 'not told'}"

"""Who generates: the protocol, and the engines: transformers in this process, any OpenAI-compatible server, and vLLM or
SGLang as a child process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from suffice.deprecated import renamed
from suffice.engines.base import (
    AnswerPrefix,
    Attempt,
    Capabilities,
    Chunk,
    Engine,
    Finish,
    GenerationRequest,
    Health,
    Message,
    Sampling,
    TokenCount,
    Usage,
)
from suffice.engines.choice import EngineChoice, choose_engine, settle_engine
from suffice.errors import UsageError
from suffice.nearest import did_you_mean

__all__ = [
    "ENGINES",
    "MANAGED",
    "AnswerPrefix",
    "Attempt",
    "Capabilities",
    "Chunk",
    "Engine",
    "EngineChoice",
    "Finish",
    "GenerationRequest",
    "Health",
    "Message",
    "Sampling",
    "TokenCount",
    "Usage",
    "choose_engine",
    "open_engine",
    "settle_engine",
]


ENGINES = {
    "transformers": "suffice.engines.local.engine:LocalEngine",
    "vllm": "suffice.engines.managed.engine:VllmEngine",
    "sglang": "suffice.engines.managed.engine:SglangEngine",
    "openai": "suffice.engines.openai.engine:RemoteEngine",
    "local": "suffice.engines.local.engine:LocalEngine",
}
"""Kinds of engines, and the class that each is; `local` is the first name of `transformers`. A package adds one as an
entry point of the group `suffice.engines`."""

MANAGED = frozenset({"vllm", "sglang"})
"""Those that are started as a child process."""

_EXTRAS = {"local": "suffice[local]", "transformers": "suffice[local]", "openai": "suffice"}
_DECIDE = {"adapters", "device", "engine_python"}
"""Settings that `choose_engine` looks at."""
_FLAG_DEFAULTS = {
    "adapters": (),
    "hub": "hf",
    "dtype": "auto",
    "device": "auto",
    "trust_remote_code": False,
    "read_timeout": 300.0,
    "api_key": "",
    "engine_args": "",
    "tensor_parallel_size": 1,
}
"""Values of flags that were not given: an engine that does not have these settings does not get them."""
_HINTS = {"cache_for_work", "concurrency", "notify"}
"""Settings that change no answer: an engine that does not have them need not know."""


def open_engine(
    model: str | None = None, *, upstream: str | None = None, engine: str | None = None, **settings: Any
) -> Engine:
    """The engine for a model or for a server's URL, not yet entered; nothing heavy is imported for a server.

    Args:
        model: what to load, or the model's name on the server; the bundled model, or the server's first, when None.
        upstream: URL of a server that generates; the engine gets it as `base_url`.
        engine: a kind out of `ENGINES`, or one that an installed package adds, or `auto`, as when None: `openai` with
            an `upstream`, else what `choose_engine` finds.
        settings: more keyword arguments of the engine's class.

    Raises:
        UsageError: there is no such kind, a setting that it does not have, or the packages that it needs are missing.
    """
    kind = "openai" if upstream and engine in (None, "auto") else engine
    if kind in (None, "auto"):
        choice = choose_engine(model, **{name: settings[name] for name in _DECIDE & settings.keys()})
        logging.getLogger(__name__).info(choice.reason)
        kind = choice.kind
    if kind not in MANAGED:
        settings.pop("engine_python", None)  # it may be set for the whole machine
    given = {"model": model, **settings} | ({"base_url": upstream} if upstream else {})
    try:
        make = _engine_class(kind)
        return make(**_settings_of(make, kind, given))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("suffice"):
            raise
        package = _EXTRAS.get(kind, error.name)
        raise UsageError(f"this engine needs the package {error.name}: pip install '{package}'") from None


def _engine_class(kind: str) -> Callable[..., Engine]:
    if kind in ENGINES:
        module, _, name = ENGINES[kind].partition(":")
        return cast("Callable[..., Engine]", getattr(import_module(module), name))
    from importlib.metadata import entry_points  # takes ten milliseconds

    added = entry_points(group="suffice.engines")
    if kind not in added.names:
        kinds = ", ".join(["auto", *(each for each in ENGINES if each != "local"), *sorted(added.names)])
        raise UsageError(f"no engine {kind!r}; there are: {kinds}{did_you_mean(kind, kinds.split(', '))}")
    return cast("Callable[..., Engine]", added[kind].load())


def _settings_of(make: Callable[..., Engine], kind: str, given: dict[str, Any]) -> dict[str, Any]:
    from inspect import signature

    parameters = signature(make).parameters
    given = {name: value for name, value in given.items() if name in parameters or name not in _HINTS}
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return given
    foreign = {name for name, value in given.items() if name not in parameters and value is not None}
    if unknown := sorted(name for name in foreign if given[name] != _FLAG_DEFAULTS.get(name, given)):
        raise UsageError(f"the engine {kind} does not have: {', '.join(unknown)}; leave that out")
    if missing := [name for name, each in parameters.items() if each.default is each.empty and name not in given]:
        needed = ", ".join("an upstream, its server's URL" if name == "base_url" else name for name in missing)
        raise UsageError(f"the engine {kind} needs {needed}")
    return {name: value for name, value in given.items() if name in parameters}


__getattr__ = renamed(__name__, {"Prefix": "AnswerPrefix", "Capacity": "Capabilities"})

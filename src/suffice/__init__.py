"""Suffice runs language models so that every answer gets the length it needs and no more.

Importing this package imports nothing heavy: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from suffice.deprecated import watch_for_old_modules

if TYPE_CHECKING:
    from suffice.api import LoadedEngine, generate, load_engine
    from suffice.budget import Budget, Budgeter
    from suffice.errors import SufficeError
    from suffice.session import Answer, Request, Session
    from suffice.version import __version__ as __version__

__all__ = [
    "Answer",
    "Budget",
    "Budgeter",
    "LoadedEngine",
    "Request",
    "Session",
    "SufficeError",
    "generate",
    "load_engine",
]

_HOMES = {
    "__version__": "suffice.version",
    "Answer": "suffice.session",
    "Budget": "suffice.budget",
    "Budgeter": "suffice.budget",
    "LoadedEngine": "suffice.api",
    "Request": "suffice.session",
    "Session": "suffice.session",
    "SufficeError": "suffice.errors",
    "generate": "suffice.api",
    "load_engine": "suffice.api",
}


watch_for_old_modules()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'suffice' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

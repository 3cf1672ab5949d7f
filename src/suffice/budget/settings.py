"""The settings file: keyword table, tiers and defaults, in TOML."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from suffice.budget.estimators import KeywordClass
from suffice.budget.expectation import LengthEstimator
from suffice.budget.types import Preset, Tier
from suffice.errors import UsageError
from suffice.settings import read_toml

__all__ = ["ENVIRONMENT_VARIABLE", "Settings", "load_settings", "packaged_settings"]

ENVIRONMENT_VARIABLE = "SUFFICE_BUDGET_FILE"
_T = TypeVar("_T")
_PACKAGED = Path(__file__).with_name("defaults.toml")
_TIER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a settings file says, checked."""

    default_max_new_tokens: int
    """The cap of *auto* where the model has no default of its own, in tokens."""
    tiers: Mapping[str, Tier]
    presets: Mapping[str, Preset]
    keywords: tuple[KeywordClass, ...]
    first_estimators: tuple[LengthEstimator, ...] = ()
    """Asked before the standard ones: what `estimators.first` names."""


def load_settings(path: Path | None = None) -> Settings:
    """Read `path`, else the file that SUFFICE_BUDGET_FILE names, on top of the packaged defaults.

    Raises:
        UsageError: the file cannot be read, is no TOML, has an unknown key, or a value of the wrong type.
    """
    if path is None and os.environ.get(ENVIRONMENT_VARIABLE):
        path = Path(os.environ[ENVIRONMENT_VARIABLE]).expanduser()
    if path is None:
        return packaged_settings()
    return _parse(_merge(read_toml(_PACKAGED, "budget file"), read_toml(path, "budget file")), str(path))


@cache
def packaged_settings() -> Settings:
    """What the packaged `defaults.toml` says."""
    return _parse(read_toml(_PACKAGED, "budget file"), str(_PACKAGED))


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, table by table; a list replaces a list."""
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both_tables else value
    return merged


def _parse(document: dict[str, Any], source: str) -> Settings:
    reader = _Reader(source)
    reader.only(document, "", "settings", "tiers", "presets", "keywords", "estimators")
    reader.gone(document)
    settings = reader.table(document, "settings", "default_max_new_tokens")
    tiers = {}
    for name, entry in reader.tables(document, "tiers", "max_new_tokens", "needs_key", "priority"):
        if name == "auto" or not _TIER_NAME.fullmatch(name):
            raise UsageError(
                f"{source}: {name!r} cannot name a tier, because paths and headers carry it: take letters, digits, "
                "'.', '_' and '-', and not auto"
            )
        needs_key = reader.typed(entry, f"tiers.{name}", "needs_key", bool, False)
        priority = reader.typed(entry, f"tiers.{name}", "priority", int, 0)
        tiers[name] = Tier(name, reader.tokens(entry, f"tiers.{name}", "max_new_tokens"), needs_key, priority)
    presets = {
        name: reader.preset(name, entry, tiers)
        for name, entry in reader.tables(document, "presets", "tier", "temperature", "top_p")
    }
    keywords = []
    for name, entry in reader.tables(document, "keywords", "expected_tokens", "max_new_tokens", "words"):
        where = f"keywords.{name}"
        words = reader.typed(entry, where, "words", list, [])
        if not all(isinstance(word, str) and word.strip() for word in words):
            raise UsageError(f"{source}: {where}.words must be a list of words, not {words!r}")
        expected, cap = (reader.tokens(entry, where, key) for key in ("expected_tokens", "max_new_tokens"))
        keywords.append(KeywordClass(name, expected, cap, tuple(words)))
    return Settings(
        default_max_new_tokens=reader.tokens(settings, "settings", "default_max_new_tokens"),
        tiers=tiers,
        presets=presets,
        keywords=tuple(keywords),
        first_estimators=reader.estimators(document),
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks tables and values, and names the file and the key in every complaint."""

    source: str

    def only(self, table: Mapping[str, Any], where: str, *known: str) -> None:
        unknown = sorted(set(table) - set(known))
        if unknown:
            named = ", ".join(f"{where}.{key}" if where else key for key in unknown)
            raise UsageError(f"{self.source}: unknown key {named}; known here: {', '.join(known)}")

    def gone(self, document: Mapping[str, Any]) -> None:
        """Files of earlier releases have it: say what became of it."""
        settings = document.get("settings")
        if isinstance(settings, dict) and "reasoning_tokens" in settings:
            raise UsageError(
                f"{self.source}: settings.reasoning_tokens is gone, because wishes and keywords no longer end "
                "answers: delete it; default_max_new_tokens is the cap of thinking and answer together"
            )

    def table(self, document: Mapping[str, Any], where: str, *known: str) -> Mapping[str, Any]:
        table = document.get(where.rpartition(".")[2], {})
        if not isinstance(table, dict):
            raise UsageError(f"{self.source}: {where} must be a table, not {table!r}")
        self.only(table, where, *known)
        return table

    def tables(self, document: Mapping[str, Any], where: str, *known: str) -> list[tuple[str, Mapping[str, Any]]]:
        parent = document.get(where, {})
        if not isinstance(parent, dict):
            raise UsageError(f"{self.source}: {where} must be a table, not {parent!r}")
        return [(name, self.table(parent, f"{where}.{name}", *known)) for name in parent]

    def typed(self, table: Mapping[str, Any], where: str, key: str, kind: type[_T], default: _T) -> _T:
        value = table.get(key, default)
        if not isinstance(value, kind):
            raise UsageError(f"{self.source}: {where}.{key} must be a {kind.__name__}, not {value!r}")
        return value

    def estimators(self, document: Mapping[str, Any]) -> tuple[LengthEstimator, ...]:
        """An object of each class that `estimators.first` names."""
        table = self.table(document, "estimators", "first")
        return tuple(map(self._estimator, self.typed(table, "estimators", "first", list, [])))

    def _estimator(self, name: object) -> LengthEstimator:
        module, _, attribute = str(name).partition(":")
        try:
            made: LengthEstimator = getattr(import_module(module), attribute)()
            if not callable(made.estimate):
                raise TypeError("its estimate is not a method")
        except Exception as error:  # whatever another's module raises
            reason = f"{type(error).__name__}: {error}"
            raise UsageError(
                f"{self.source}: estimators.first has {name!r}, which cannot be used ({reason}): name a class with a "
                "method estimate as MODULE:CLASS"
            ) from None
        return made

    def preset(self, name: str, entry: Mapping[str, Any], tiers: Mapping[str, Tier]) -> Preset:
        where = f"presets.{name}"
        tier = entry.get("tier")
        if not isinstance(tier, str) or tier not in tiers:
            raise UsageError(f"{self.source}: {where}.tier is {tier!r}; there are: {', '.join(tiers)}")
        temperature = self.number(entry, where, "temperature", lambda value: value >= 0, "0 or more")
        top_p = self.number(entry, where, "top_p", lambda value: 0 < value <= 1, "above 0 and at most 1")
        return Preset(name, tier, temperature, top_p)

    def number(
        self, table: Mapping[str, Any], where: str, key: str, allowed: Callable[[float], bool], words: str
    ) -> float:
        value = table.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not allowed(value):
            raise UsageError(f"{self.source}: {where}.{key} must be {words}, not {value!r}")
        return float(value)

    def tokens(self, table: Mapping[str, Any], where: str, key: str) -> int:
        value = table.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{self.source}: {where}.{key} must be a number of tokens >= 1, not {value!r}")
        return value

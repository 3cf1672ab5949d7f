"""The budget file, in TOML: defaults, tiers, presets, the keyword table, and estimators of one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from suffice.budget.estimators import KeywordClass
from suffice.budget.expectation import LengthEstimator
from suffice.budget.types import Preset, Tier
from suffice.errors import UsageError, first_line
from suffice.nearest import did_you_mean
from suffice.settings import read_toml, tokens_of, typed

__all__ = ["ENVIRONMENT_VARIABLE", "Settings", "load_settings", "packaged_settings"]

ENVIRONMENT_VARIABLE = "SUFFICE_BUDGET_FILE"
_PACKAGED = Path(__file__).with_name("defaults.toml")
_Check = Callable[[float], bool]
_TIER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Settings:
    default_max_new_tokens: int
    """The cap of *auto* where the model has no default of its own, in tokens."""
    tiers: Mapping[str, Tier]
    presets: Mapping[str, Preset]
    keywords: tuple[KeywordClass, ...]
    first_estimators: tuple[LengthEstimator, ...] = ()
    """Asked before the standard ones."""


def load_settings(path: Path | None = None) -> Settings:
    """Read `path`, else the file that SUFFICE_BUDGET_FILE names, on top of the packaged defaults.

    Raises:
        UsageError: the file cannot be read, is not TOML, has an unknown key, or a value of the wrong type.
    """
    if path is None and os.environ.get(ENVIRONMENT_VARIABLE):
        path = Path(os.environ[ENVIRONMENT_VARIABLE]).expanduser()
    if path is None:
        return packaged_settings()
    over = read_toml(path, "budget file")
    return _parse(_merge(_packaged_below(over), over), str(path))


@cache
def packaged_settings() -> Settings:
    return _parse(read_toml(_PACKAGED, "budget file"), str(_PACKAGED))


def _packaged_below(over: Mapping[str, Any]) -> dict[str, Any]:
    """The packaged file, without the caps of presets to which `over` gives a tier: that is a cap of its own."""
    packaged = read_toml(_PACKAGED, "budget file")
    presets = over.get("presets")
    for name, entry in presets.items() if isinstance(presets, dict) else ():
        if isinstance(entry, dict) and "tier" in entry:
            packaged["presets"].get(name, {}).pop("max_new_tokens", None)
    return packaged


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
    tiers = reader.tables(document, "tiers", "max_new_tokens", "needs_key", "priority", "on_runaway")
    known = {name: reader.tier(name, entry) for name, entry in tiers}
    presets = reader.tables(document, "presets", "tier", "temperature", "top_p", "max_new_tokens", "max_length")
    keywords = reader.tables(document, "keywords", "expected_tokens", "max_new_tokens", "words")
    return Settings(
        default_max_new_tokens=reader.tokens(settings, "settings", "default_max_new_tokens"),
        tiers=known,
        presets={name: reader.preset(name, entry, known) for name, entry in presets},
        keywords=tuple(reader.keywords(name, entry) for name, entry in keywords),
        first_estimators=reader.estimators(reader.table(document, "estimators", "first")),
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
                f"{self.source}: settings.reasoning_tokens is gone, because what a prompt asks for no longer ends "
                "answers: delete it; default_max_new_tokens is the cap of thinking and answer together"
            )

    def table(self, document: Mapping[str, Any], where: str, *known: str) -> Mapping[str, Any]:
        table = document.get(where.rpartition(".")[2], {})
        if not isinstance(table, dict):
            raise UsageError(f"{self.source}: {where} must be a table, not {table!r}")
        if known:
            self.only(table, where, *known)
        return table

    def tables(self, document: Mapping[str, Any], where: str, *known: str) -> list[tuple[str, Mapping[str, Any]]]:
        parent = self.table(document, where)
        return [(name, self.table(parent, f"{where}.{name}", *known)) for name in parent]

    def tier(self, name: str, entry: Mapping[str, Any]) -> Tier:
        where = f"tiers.{name}"
        if name == "auto" or not _TIER_NAME.fullmatch(name):
            raise UsageError(
                f"{self.source}: {name!r} cannot name a tier, because paths and headers carry it: take letters, "
                "digits, '.', '_' and '-', and not auto"
            )
        needs_key = typed(f"{self.source}: {where}.needs_key", bool, entry.get("needs_key", False))
        priority = typed(f"{self.source}: {where}.priority", int, entry.get("priority", 0))
        on_runaway = entry.get("on_runaway")
        if on_runaway not in (None, "stop", "warn", "off"):
            raise UsageError(f"{self.source}: {where}.on_runaway must be stop, warn or off, not {on_runaway!r}")
        return Tier(name, self.tokens(entry, where, "max_new_tokens"), needs_key, priority, on_runaway)

    def keywords(self, name: str, entry: Mapping[str, Any]) -> KeywordClass:
        where = f"keywords.{name}"
        words = typed(f"{self.source}: {where}.words", tuple, entry.get("words", []))
        if not all(word.strip() for word in words):
            raise UsageError(f"{self.source}: {where}.words must be a list of words, not {list(words)!r}")
        expected, room = (self.tokens(entry, where, key) for key in ("expected_tokens", "max_new_tokens"))
        return KeywordClass(name, expected, room, words)

    def estimators(self, entry: Mapping[str, Any]) -> tuple[LengthEstimator, ...]:
        where = f"{self.source}: estimators.first"
        return tuple(_estimator(name, where) for name in typed(where, tuple, entry.get("first", [])))

    def preset(self, name: str, entry: Mapping[str, Any], tiers: Mapping[str, Tier]) -> Preset:
        where = f"presets.{name}"
        tier = entry.get("tier")
        if tier is not None and tier not in tiers:
            known = ", ".join(tiers) + did_you_mean(str(tier), tiers)
            raise UsageError(f"{self.source}: {where}.tier is {tier!r}; there are: {known}")
        limits = (key for key in ("max_new_tokens", "max_length") if key in entry)
        return Preset(
            name,
            tier,
            self.number(entry, where, "temperature", lambda value: value >= 0, "0 or more"),
            self.number(entry, where, "top_p", lambda value: 0 < value <= 1, "above 0 and at most 1"),
            **{key: self.tokens(entry, where, key) for key in limits},
        )

    def number(self, table: Mapping[str, Any], where: str, key: str, allowed: _Check, words: str) -> float | None:
        """None where it is left out."""
        value = table.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not allowed(value):
            raise UsageError(f"{self.source}: {where}.{key} must be {words}, not {value!r}")
        return float(value)

    def tokens(self, table: Mapping[str, Any], where: str, key: str) -> int:
        value = table.get(key)
        if isinstance(value, str):
            value = tokens_of(value, f"{self.source}: {where}.{key}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{self.source}: {where}.{key} must be a number of tokens >= 1, not {value!r}")
        return value


def _estimator(name: str, where: str) -> LengthEstimator:
    """The estimator at `module:attribute`; a class is called without arguments.

    This runs code that the budget file names, so a budget file is never taken from a request or a download.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"{where} names {name!r}: write module:attribute, such as my_company.lengths:InvoiceLengths")
    try:
        found = getattr(import_module(module), attribute)
        estimator: LengthEstimator = found() if isinstance(found, type) else found
    except Exception as error:  # it is the user's own module, and may fail in any way
        raise UsageError(
            f"{where}: {name!r} cannot be loaded ({type(error).__name__}: {first_line(error)}): is it installed, or on "
            "PYTHONPATH?"
        ) from None
    if not callable(getattr(estimator, "estimate", None)):
        raise UsageError(f"{where}: {name!r} has no method estimate(query), which an estimator needs")
    return estimator

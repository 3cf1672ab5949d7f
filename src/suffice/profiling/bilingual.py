"""What a report says, in English and in Chinese (the words are in report.toml), and figures as people write them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

__all__ = ["Bilingual", "heading", "human_size", "percent", "say"]


class Bilingual(NamedTuple):
    en: str
    zh: str


@cache
def _wording() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("suffice.profiling").joinpath("report.toml").read_text("utf-8"))


def say(about: str, **values: Any) -> Bilingual:
    """A sentence of report.toml with its values, which may be in both languages themselves."""

    def in_language(language: str) -> str:
        own = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
        own |= {name: getattr(value, language) for name, value in values.items() if isinstance(value, Bilingual)}
        return _wording()[about][language].format(**own)

    return Bilingual(in_language("en"), in_language("zh"))


def heading(english: str) -> Bilingual:
    """A heading; one that is not in report.toml, such as `p99`, is the same in Chinese."""
    return Bilingual(english, _wording()["headings"].get(english, english))


def percent(share: float) -> str:
    """A share for a person: `12 %`, `1.3 %`, `0.04 %`, and never 0 or 100 for what is neither."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    if value < 0.095:
        return f"{max(value, 0.01):.2f} %" if value >= 0.005 else "< 0.01 %"
    return f"{value:.1f} %" if value < 9.95 or value >= 99.5 else f"{value:.0f} %"


def human_size(size: float) -> str:
    if abs(size) < 1000:
        return f"{size:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if abs(size) < 1000:
            return f"{size:.3g} {unit}"
    return f"{size / 1024:.3g} TiB"

"""Words in English and in Chinese, and figures as people write them."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Text", "human_size", "percent"]


class Text(NamedTuple):
    """The same in both languages."""

    en: str
    zh: str


def percent(share: float) -> str:
    """A share for a person: `12 %`, `1.3 %`, `0.04 %`, and never 0 or 100 for what is neither."""
    value = 100 * share
    if value in (0.0, 100.0):
        return f"{value:.0f} %"
    if value < 0.095:
        return f"{max(value, 0.01):.2f} %" if value >= 0.005 else "< 0.01 %"
    return f"{value:.1f} %" if value < 9.95 or value >= 99.5 else f"{value:.0f} %"


def human_size(size: float) -> str:
    """Bytes in powers of 1,024."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(size) < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size:.0f} bytes"
        size /= 1024
    return f"{size:.3g} TiB"

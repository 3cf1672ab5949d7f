"""`{{NAME}}` and `{{AUTHOR}}` in training data, filled in the language of their row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Names", "language_of"]

_PLACEHOLDER = re.compile(r"\{\{\s*(?:model_)?(name|author)\s*\}\}", re.IGNORECASE)
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_LANGUAGE_COLUMNS = ("language", "lang", "tag")


@dataclass(frozen=True, slots=True)
class Names:
    """What the model is to be called, and who made it: one value for both languages, or (Chinese, English)."""

    name: tuple[str, ...] = ()
    author: tuple[str, ...] = ()

    def fill(self, text: str, language: str) -> str:
        """The text with every placeholder filled that has a value; the others stay.

        Args:
            text: any text; `{{NAME}}`, `{{name}}`, `{{ model_author }}` and the like are placeholders.
            language: `zh` or `en`.
        """

        def value(match: re.Match[str]) -> str:
            values = self.name if match[1].lower() == "name" else self.author
            if not values:
                return match[0]
            return values[0] if language == "zh" else values[-1]

        return _PLACEHOLDER.sub(value, text)

    @staticmethod
    def left(text: str) -> str | None:
        """The first placeholder in a text, as it is written there."""
        match = _PLACEHOLDER.search(text)
        return match[0] if match else None


def language_of(row: Mapping[str, Any], text: str) -> str:
    """`zh` or `en`: what a column `language`, `lang` or `tag` says, else whether the text has Chinese characters."""
    for column in _LANGUAGE_COLUMNS:
        said = row.get(column)
        if isinstance(said, str) and said.lower()[:2] in ("zh", "en"):
            return said.lower()[:2]
    return "zh" if _CHINESE.search(text) else "en"

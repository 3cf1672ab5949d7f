"""Fills `{{NAME}}` and `{{AUTHOR}}` in training data, in the language of each row."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Names", "language_of"]

_PLACEHOLDER = re.compile(r"\{\{\s*(?:model_)?(name|author)\s*\}\}", re.IGNORECASE)
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_LANGUAGE_COLUMNS = ("language", "lang", "tag")

_Json = TypeVar("_Json")


@dataclass(frozen=True, slots=True)
class Names:
    """What the model is to be called, and who made it: one value for both languages, or (Chinese, English)."""

    name: tuple[str, ...] = ()
    author: tuple[str, ...] = ()

    def fill(self, value: _Json, language: str) -> _Json:
        """The text (or lists and mappings of texts) with every placeholder filled that has a value; the others stay.

        `{{NAME}}`, `{{name}}`, `{{ model_author }}` and the like are placeholders; `language` is `zh` or `en`.
        """

        def said(match: re.Match[str]) -> str:
            values = self.name if match[1].lower() == "name" else self.author
            if not values:
                return match[0]
            return values[0] if language == "zh" else values[-1]

        filled: _Json = _each_text(value, lambda text: _PLACEHOLDER.sub(said, text))
        return filled

    @staticmethod
    def left(value: Any) -> str | None:
        """The first placeholder in a text, or in lists and mappings of texts, as it is written there."""
        found: list[str] = []

        def look(text: str) -> str:
            found.extend(match[0] for match in _PLACEHOLDER.finditer(text))
            return text

        _each_text(value, look)
        return found[0] if found else None


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """The value with `change` applied to each text in it."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(each, change) for key, each in value.items()}
    return [_each_text(each, change) for each in value] if isinstance(value, list | tuple) else value


def language_of(row: Mapping[str, Any], text: str) -> str:
    """`zh` or `en`: what a column `language`, `lang` or `tag` says, else whether the text has Chinese characters."""
    for column in _LANGUAGE_COLUMNS:
        said = row.get(column)
        if isinstance(said, str) and said.lower()[:2] in ("zh", "en"):
            return said.lower()[:2]
    return "zh" if _CHINESE.search(text) else "en"

"""Kinds of values that flags take, and what each says of a value that it refuses."""

from __future__ import annotations

from typing import Any

import click

from suffice.cli.notes import tell
from suffice.errors import UsageError
from suffice.nearest import did_you_mean
from suffice.numerals import token_count
from suffice.settings import range_in_words

__all__ = ["Number", "OneOf", "TokenLimit", "number_type"]


class Number(click.ParamType):
    """An `int` or a `float` in a range."""

    name = "number"

    def __init__(self, kind: type, low: float | None, high: float | None, *, above: bool = False) -> None:
        """With `above`, `low` itself is not allowed."""
        self.kind, self.low, self.high, self.above = kind, low, high, above
        self.range = range_in_words(low, high, above=above)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "N" if self.kind is int else "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            number = self.kind(value)
        except (ValueError, OverflowError):
            kind = "whole number" if self.kind is int else "number"
            self.fail(f"{value!r} is not a {kind}" + (f": it must be {self.range}" if self.range else ""), param, ctx)
        low_enough = self.high is None or number <= self.high
        high_enough = self.low is None or (number > self.low if self.above else number >= self.low)
        if not (low_enough and high_enough):
            self.fail(f"{value} is not allowed: it must be {self.range}", param, ctx)
        return number


def number_type(kind: type, low: float | None, high: float | None, *, above: bool = False) -> Number:
    """The click type of a number in a range; with `above`, `low` is not in it."""
    return Number(kind, low, high, above=above)


class OneOf(click.Choice[Any]):
    """One of several words; a wrong one is told which was probably meant."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        words = [str(choice) for choice in self.choices]
        return f"{str(value)!r} is not one of {', '.join(words)}" + did_you_mean(str(value), words)


class TokenLimit(click.ParamType):
    """A number of tokens, as people write it (2048, 32k, 1M), or one of some words such as `auto`."""

    name = "tokens"

    def __init__(self, *words: str, minimum: int = 1, maximum: int | None = None) -> None:
        self.words, self.minimum, self.maximum = words, minimum, maximum
        self.range = range_in_words(minimum, maximum)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join([*self.words, "TOKENS"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if text.lower() in self.words:
            return text.lower()
        flag = param.opts[0] if param is not None else "the limit"
        tokens = token_count(text)
        if tokens is None or tokens < self.minimum or (self.maximum is not None and tokens > self.maximum):
            words = f", or {' or '.join(self.words)}" if self.words else ""
            numbers = f"give a number of tokens, {self.range}, such as 2048 or 32k (= 32,768){words}"
            raise UsageError(f"{flag} is {text!r}: {numbers}{did_you_mean(text, self.words)}")
        if text[-1:].isalpha() and ctx is not None and not ctx.resilient_parsing:
            tell(f"notice: {flag} {text} is {tokens:,} tokens")
        return tokens

"""Log-probabilities of tokens as OpenAI's two APIs write them: chat's objects, and the columns of completions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from suffice.engines.base import TokenLogprob

__all__ = ["chat_logprobs", "completion_logprobs", "token_logprobs"]

_NEVER = -9999.0  # what vLLM writes for minus infinity, which JSON does not have


def token_logprobs(found: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """What a server said, in either shape.

    Raises:
        AttributeError, LookupError, TypeError: it has neither.
    """
    if "tokens" in found:
        tops = found.get("top_logprobs") or [None] * len(found["tokens"])
        return tuple(map(_read_column, found["tokens"], found["token_logprobs"], tops))
    return tuple(map(_read, found.get("content") or ()))


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a choice of chat completions."""
    return {"content": [{**_write(each), "top_logprobs": [*map(_write, each.others)]} for each in tokens]}


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """The `logprobs` of a choice of completions, before which there are `offset` characters."""
    offsets = [*accumulate((len(each.token) for each in tokens), initial=offset)]
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": [{other.token: other.logprob for other in each.others} or None for each in tokens],
        "text_offset": offsets[:-1],
    }


def _read(entry: Mapping[str, Any]) -> TokenLogprob:
    data = entry.get("bytes")
    others = tuple(map(_read, entry.get("top_logprobs") or ()))
    return TokenLogprob(entry["token"], _number(entry["logprob"]), None if data is None else tuple(data), others)


def _write(each: TokenLogprob) -> dict[str, Any]:
    data = None if each.data is None else list(each.data)
    return {"token": each.token, "logprob": each.logprob, "bytes": data}


def _read_column(token: str, value: float | None, top: Mapping[str, float | None] | None = None) -> TokenLogprob:
    return TokenLogprob(token, _number(value), others=tuple(_read_column(*each) for each in (top or {}).items()))


def _number(value: float | None) -> float:
    """One that JSON can hold; NaN, infinity and numbers too large for a float count as none at all."""
    try:
        return max(float(value), _NEVER) if value is not None and math.isfinite(value) else _NEVER
    except OverflowError:
        return _NEVER

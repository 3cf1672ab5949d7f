"""Log-probabilities of tokens as OpenAI's two APIs write them: chat's objects, and the columns of completions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from suffice.engines.base import TokenLogprob

__all__ = ["chat_logprobs", "completion_logprobs", "token_logprobs"]

_NEVER = -9999.0  # what vLLM writes for minus infinity, which JSON has not


def token_logprobs(found: Mapping[str, Any]) -> tuple[TokenLogprob, ...]:
    """What a server said, in either shape.

    Raises:
        AttributeError, LookupError, TypeError: it has neither.
    """
    if "tokens" in found:
        tops = found.get("top_logprobs") or [None] * len(found["tokens"])
        rows = zip(found["tokens"], found["token_logprobs"], tops, strict=False)
        return tuple(
            TokenLogprob(token, _number(value), None, tuple(TokenLogprob(*each) for each in _numbers(top)))
            for token, value, top in rows
        )
    return tuple(map(_read, found.get("content") or ()))


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a choice of chat completions."""
    return {"content": [{**_write(each), "top_logprobs": [*map(_write, each.others)]} for each in tokens]}


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int = 0) -> dict[str, Any]:
    """The `logprobs` of a choice of completions.

    Args:
        tokens: of this piece.
        offset: characters before it.
    """
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.token)
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [each.logprob for each in tokens],
        "top_logprobs": [{other.token: other.logprob for other in each.others} or None for each in tokens],
        "text_offset": offsets,
    }


def _read(entry: Mapping[str, Any]) -> TokenLogprob:
    data = entry.get("bytes")
    others = tuple(map(_read, entry.get("top_logprobs") or ()))
    return TokenLogprob(entry["token"], _number(entry["logprob"]), None if data is None else tuple(data), others)


def _write(each: TokenLogprob) -> dict[str, Any]:
    data = None if each.data is None else list(each.data)
    return {"token": each.token, "logprob": each.logprob, "bytes": data}


def _numbers(top: Mapping[str, float | None] | None) -> Iterator[tuple[str, float]]:
    return ((token, _number(value)) for token, value in (top or {}).items())


def _number(value: float | None) -> float:
    """One that JSON can hold: what is none (NaN, infinity, beyond all floats) says as little as none at all."""
    try:
        return max(float(value), _NEVER) if value is not None and math.isfinite(value) else _NEVER
    except OverflowError:
        return _NEVER

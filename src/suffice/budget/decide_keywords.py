"""The keywords of `Budgeter.decide`: three that are its short form, and those of earlier releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypedDict, TypeVar

from suffice.budget.types import EngineInfo, Limits, RequestInfo
from suffice.deprecated import warn_deprecated
from suffice.prompt import Prompt
from suffice.token_ratios import TextRatios

__all__ = ["DecideKeywords", "with_keywords"]

_Record = TypeVar("_Record", Limits, RequestInfo, EngineInfo)


class DecideKeywords(TypedDict, total=False):
    """The fields of `Limits`; what follows them is deprecated."""

    max_new_tokens: int | Literal["auto"]
    max_length: int | None
    tier: str | None
    context: int | None
    prompt_tokens: int | None
    model_default: int | None
    ratios: TextRatios | None
    model: str | None
    client: str | None
    route: str | None
    more: Mapping[str, Any] | None


_LIMITS = {name: name for name in ("max_new_tokens", "max_length", "tier")}
_INFO = {name: name for name in ("client", "route")}
_ENGINE = {name: name for name in ("prompt_tokens", "ratios", "model")}
_ENGINE |= {"context": "context_tokens", "model_default": "default_max_new_tokens"}


def with_keywords(
    prompt: Prompt, limits: Limits, info: RequestInfo, engine: EngineInfo, given: DecideKeywords
) -> tuple[Prompt, Limits, RequestInfo, EngineInfo]:
    """What `decide` was given, with its keywords written into it.

    Raises:
        TypeError: there is no such keyword.
    """
    for name in given.keys() - _LIMITS.keys():
        if name not in DecideKeywords.__annotations__:
            raise TypeError(f"Budgeter.decide() has no keyword {name!r}")
        record = f"EngineInfo({_ENGINE[name]}=...)" if name in _ENGINE else f"RequestInfo({name}=...)"
        if name == "more":
            record = "Prompt(tools=...) and RequestInfo(response_format=..., temperature=...)"
        warn_deprecated(f"Budgeter.decide({name}=...)", record, frames=2)
    if more := given.get("more"):
        prompt = replace(prompt, tools=tuple(more.get("tools") or ()))
        temperature = (more.get("sampling") or {}).get("temperature")
        info = replace(info, response_format=more.get("response_format"), temperature=temperature)
    return prompt, _changed(limits, _LIMITS, given), _changed(info, _INFO, given), _changed(engine, _ENGINE, given)


def _changed(record: _Record, fields: Mapping[str, str], given: Mapping[str, Any]) -> _Record:
    changes = {ours: given[name] for name, ours in fields.items() if name in given}
    return replace(record, **changes) if changes else record

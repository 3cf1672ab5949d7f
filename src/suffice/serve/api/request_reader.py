"""From the JSON that clients send to requests of the session: OpenAI's two APIs and `/infer`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from suffice.engines.base import Sampling
from suffice.prompt import Prompt
from suffice.serve.api.messages import read_messages
from suffice.serve.api.request_fields import CHAT, COMPLETION, HARMLESS, INFER
from suffice.serve.api.tools import usable_tools
from suffice.serve.http.errors import Problem
from suffice.serve.request.api_request import ApiRequest, RequestOrigin
from suffice.session import Request

__all__ = ["read_chat", "read_completion", "read_infer"]

_Values = Mapping[str, Any]
_SAMPLING = tuple(each.name for each in Sampling.fields())


def read_chat(body: _Values, origin: RequestOrigin, *, forwards: bool) -> ApiRequest:
    """OpenAI's chat completions; with `forwards`, fields that are not known here go on to a server.

    Raises:
        Problem: 400, with the field's name.
    """
    values, others = CHAT.read(body, forwards=forwards)
    messages = read_messages(values.get("messages"), forwards)
    top = values.get("top_logprobs", 0)
    if top and not values.get("logprobs"):
        raise Problem(400, "top_logprobs needs logprobs: true", param="top_logprobs", code="invalid_value")
    prompt = Prompt(messages, tools=usable_tools(values))
    return _api_request([prompt], values, others, origin, forwards, top if values.get("logprobs") else None)


def read_completion(body: _Values, origin: RequestOrigin, *, forwards: bool) -> ApiRequest:
    """OpenAI's completions: raw text to continue."""
    values, others = COMPLETION.read(body, forwards=forwards)
    if "prompt" not in values:
        message = "prompt must be a text that is not empty, a list of token ids, or a list of one of these"
        raise Problem(400, message, param="prompt", code="invalid_value")
    return _api_request(values["prompt"], values, others, origin, forwards, values.get("logprobs"))


def read_infer(body: _Values, origin: RequestOrigin, *, forwards: bool) -> ApiRequest:
    """`/infer/TIER`: `prompt` is what the user says; or `messages` as in chat."""
    values, others = INFER.read(body, forwards=forwards)
    prompt, given = values.get("prompt"), values.get("messages")
    if (prompt is None) == (given is None):
        raise Problem(400, "give either prompt (a text) or messages (a conversation)", param="prompt")
    messages = read_messages(given if prompt is None else [{"role": "user", "content": prompt}], forwards)
    if "system" in values:
        messages = ({"role": "system", "content": values["system"]}, *messages)
    return _api_request([Prompt(messages)], values, others, origin, forwards)


def _api_request(
    prompts: list[Prompt],
    values: _Values,
    others: dict[str, Any],
    origin: RequestOrigin,
    forwards: bool,
    logprobs: int | None = None,
) -> ApiRequest:
    n = values.get("n") or 1
    if (best_of := values.get("best_of")) not in (None, n):
        message = f"best_of is {best_of}, which is not supported here: leave it out, or make n {best_of} and choose"
        raise Problem(400, message, param="best_of", code="unsupported_parameter")
    request = Request(
        prompts[0],
        max_new_tokens=_cap(values),
        max_length=values.get("max_length"),
        sampling=Sampling(**{name: values[name] for name in _SAMPLING if name in values}),
        stop_words=values.get("stop", ()),
        keep_stop_words=values.get("keep_stop_words", False),
        logprobs=logprobs,
        extra=others if forwards else {},
        **origin,
    )
    return ApiRequest(
        prompts=(request, *[replace(request, prompt=each) for each in prompts[1:]]),
        n=n,
        model=values.get("model"),
        tier=values.get("tier"),
        stream=values.get("stream", False),
        include_usage=values.get("stream_options", False),
        strict=values.get("strict", False),
        on_runaway=values.get("on_runaway"),
        ignored=() if forwards else tuple([name for name in others if name not in HARMLESS]),
    )


def _cap(values: _Values) -> int | Literal["auto"]:
    """Several names for one number: where more than one is given, the ceiling has to hold for the largest."""
    given = [values.get(name) for name in ("max_tokens", "max_completion_tokens", "max_new_tokens")]
    return max([value for value in given if isinstance(value, int)], default="auto")

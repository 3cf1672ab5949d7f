"""What is done about answers that repeat themselves: what key, tier and server allow, and what the request asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from suffice.budget.types import Tier
from suffice.engines.base import OnRunaway
from suffice.serve.auth.permissions import Caller
from suffice.serve.http.errors import Problem
from suffice.serve.request.api_request import ApiRequest
from suffice.session import RunawayPolicy

__all__ = ["ON_RUNAWAY", "choose_on_runaway"]

ON_RUNAWAY = ("stop", "warn", "off")
"""From the strictest on."""


def choose_on_runaway(api: ApiRequest, tier: Tier, caller: Caller, server: str | None) -> ApiRequest:
    """The request with what is done about its loops, and with what the client is told of that.

    The first of key, tier and server that says something allows that and what is stricter. Without one the request is
    free; without a wish it gets what is allowed, or `stop`.

    Raises:
        Problem: 400, where the client wants more than is allowed, and nothing clamped.
    """
    says = ((caller.on_runaway, "key"), (tier.on_runaway, "tier"), (server, "server"))
    allowed, whose = next(((mode, name) for mode, name in says if mode), (None, ""))
    asked = api.on_runaway
    if asked is None and allowed is None and not api.request.extra:
        return api
    mode, by = (asked, "request") if asked else (allowed or "stop", whose)
    if allowed and ON_RUNAWAY.index(mode) > ON_RUNAWAY.index(allowed):
        if api.strict:
            message = f"strict: on_runaway is {mode}, and the {whose} allows {allowed}"
            raise Problem(400, message, param="on_runaway", code="clamped")
        mode, by = allowed, whose
    prompts = api.prompts
    if mode != api.request.on_runaway:
        prompts = tuple([replace(each, on_runaway=cast("OnRunaway", mode)) for each in prompts])
    policy = RunawayPolicy.of(prompts[0])
    told = (("on_runaway", policy.mode), ("on_runaway_by", policy.by or by)) if asked or policy.by or by else ()
    return replace(api, prompts=prompts, runaway_said=told)

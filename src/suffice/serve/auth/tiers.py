"""The tier of a request, and its budget under that tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from suffice.budget import Budget, Budgeter
from suffice.budget.types import Tier
from suffice.serve.auth.permissions import Caller, check_tier, permitted_tiers
from suffice.serve.config import ServeSettings
from suffice.serve.http.errors import Problem
from suffice.session import Request, Session

__all__ = ["AUTO", "decide", "decide_all", "find_tier", "load_budgeter"]

AUTO = "auto"


def load_budgeter(settings: ServeSettings) -> Budgeter:
    """Tiers and estimators as the settings say, with the length profiles of adapters that have one."""
    return Budgeter.load(Path(settings.budget_file) if settings.budget_file else None).with_profiles(settings.adapters)


def find_tier(name: str | None, tiers: Mapping[str, Tier], caller: Caller) -> Tier | None:
    """The tier of that name, if the caller may use it; None for *auto*.

    Raises:
        Problem: 400 for an unknown name, 401 or 403 for one that the caller may not use.
    """
    if name is None or name == AUTO:
        return None
    if name not in tiers:
        known = ", ".join([*tiers, AUTO])
        raise Problem(400, f"unknown tier {name!r}; there are: {known}", param="tier", code="invalid_value")
    check_tier(caller, tiers[name])
    return tiers[name]


async def decide(session: Session, request: Request, tier: Tier | None, caller: Caller) -> tuple[Tier, Budget]:
    """The budget, and the tier where none was named.

    The request queues in the class of the smallest tier that holds the caller's number, or the length of most such
    answers. Its cap is that of the largest tier that the caller may use, because a prediction must not end an answer.

    Raises:
        Problem: 403 when the key permits no tier at all.
        PromptTooLongError, UsageError, EngineError: as `Session.decide`.
    """
    if tier is not None:
        return tier, await session.decide(request, tier=tier.name)
    permitted = permitted_tiers(caller, session.budgeter.tiers)
    if not permitted:
        raise Problem(403, "this key permits none of the tiers that this server has", code="tier_not_permitted")
    budget = await session.decide(request, tier=permitted[-1].name)
    needed = budget.reservation if request.max_new_tokens == "auto" else budget.max_new_tokens
    return next(each for each in permitted if each.max_new_tokens >= needed), budget


async def decide_all(
    session: Session, requests: Sequence[Request], tier: Tier | None, caller: Caller
) -> tuple[Tier, tuple[Budget, ...]]:
    """`decide` for several prompts of one request, which share the largest of their tiers."""
    decided = [await decide(session, each, tier, caller) for each in requests]
    largest = max((found for found, _ in decided), key=lambda found: found.max_new_tokens)
    return largest, tuple(budget for _, budget in decided)

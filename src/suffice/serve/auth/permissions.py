"""Who asks, and what they may: 401 for a caller without a valid key, 403 for one whose key does not permit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from suffice.budget.types import Tier
from suffice.engines.base import OnRunaway
from suffice.serve.http.errors import Problem

__all__ = ["ANONYMOUS", "Caller", "KeyLimits", "check_known", "check_tier", "permitted_tiers"]

_CHALLENGE = {"www-authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """How much a key may take. `None` sets no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """A client, with a key or without."""

    key_id: str = ""
    """'' without a key, or with one that is not valid."""
    name: str = ""
    tiers: frozenset[str] = frozenset()
    """The tiers that the key permits; empty: those that need no key."""
    models: frozenset[str] = frozenset()
    """The models that the key permits; empty: all."""
    limits: KeyLimits = KeyLimits()
    on_runaway: OnRunaway | None = None
    """What is done about answers that repeat themselves; None leaves that to tier, server and request."""
    refused: str = ""
    """Why the key that was shown does not count."""
    unchecked: bool = False
    """A key was shown to a server that has none to compare it with."""


ANONYMOUS = Caller()


def check_known(caller: Caller, *, required: bool) -> None:
    """Refuse (401) a key that is not valid, and a caller without one where it is required."""
    if caller.refused:
        raise Problem(401, caller.refused, code="invalid_api_key", headers=_CHALLENGE)
    if required and not caller.key_id:
        message = "no key was sent: send Authorization: Bearer KEY (the operator makes keys with `suffice keys create`)"
        raise Problem(401, message, code="missing_api_key", headers=_CHALLENGE)


def _permits(caller: Caller, tier: Tier) -> bool:
    return tier.name in caller.tiers if caller.tiers else not tier.needs_key


def permitted_tiers(caller: Caller, tiers: Mapping[str, Tier]) -> list[Tier]:
    """What the caller may use, the smallest cap first."""
    return sorted((tier for tier in tiers.values() if _permits(caller, tier)), key=lambda tier: tier.max_new_tokens)


def check_tier(caller: Caller, tier: Tier) -> None:
    """Refuse a tier that the caller may not use: 401 without a key, 403 with one that does not permit it."""
    if _permits(caller, tier):
        return
    if caller.refused:
        message = f"{caller.refused}, and the tier {tier.name} needs one that permits it"
        raise Problem(403, message, param="tier", code="invalid_api_key")
    if caller.key_id or caller.unchecked:
        raise Problem(403, f"this key does not permit the tier {tier.name}", param="tier", code="tier_not_permitted")
    raise Problem(401, f"the tier {tier.name} needs a key that permits it", code="missing_api_key", headers=_CHALLENGE)

"""The history of who asks: decayed histograms of the lengths that each client, route, system prompt and model got.

Bounded: the groups that were seen least recently make room, and a group that is gone speaks through its parents.
Not safe for several threads by itself: `LengthModel` holds the lock.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from suffice.budget.expectation import LengthQuery
from suffice.budget.length_model.calibration import LEVELS, adjusted
from suffice.budget.length_model.distribution import BINS
from suffice.immutable import immutable

__all__ = ["EVERYONE", "LEVEL_NAMES", "MEMORY", "Group", "Groups", "History", "groups_of"]

_Floats = NDArray[np.float64]

LEVEL_NAMES = ("model", "route", "system", "client")
"""From coarse to fine: the later a level, the more it says about one caller (clients explain 45-78 % of the variance of
log length in production traces, ServeGen)."""
EVERYONE = b"everyone"
MEMORY = 500.0
"""Answers that a histogram remembers: each weighs 1 - 1/500 of the next."""
_KEEP = np.float32(1 - 1 / MEMORY)
_SHORT_MEMORY = 50.0  # the same for which source to trust, and for the prompt model's bias
_DOUBT, _EVIDENCE = 1.0, 20.0  # history must have been better before it outweighs a prompt; answers that count as proof
_PRIOR = 12.0  # answers that a group needs to weigh as much as its parents


@dataclass(slots=True)
class Group:
    counts: NDArray[np.float32]
    """Decayed answers per bin of the grid."""
    shift: NDArray[np.float64]
    """How far its levels are moved to keep what they promise, in logits; one per `calibration.LEVELS`."""
    mass: float = 0.0
    """Decayed number of answers."""
    answers: int = 0
    compared: float = 0.0
    """Decayed number of answers for which the prompt was known too."""
    advantage: float = 0.0
    """Decayed mean of log(probability by history / probability by prompt)."""
    bias: float = 0.0
    """Decayed mean of log(length / the prompt model's location), both on its scale: answers here are so much longer."""
    square: float = 1.0
    """Decayed mean of the squares of the standardised residuals that remain."""

    def add(self, bin_: int | slice, weights: float | _Floats) -> None:
        """One more answer; `weights` say how much of it is where on the grid, and sum to 1."""
        self.counts *= _KEEP
        self.counts[bin_] += weights
        self.mass = self.mass * float(_KEEP) + 1
        self.answers += 1

    def compare(self, advantage: float, ratio: float, z: float) -> None:
        self.compared = min(_SHORT_MEMORY, self.compared + 1)
        step = 1 / self.compared
        self.advantage += step * (min(3.0, max(-3.0, advantage)) - self.advantage)
        self.bias += step * (min(1.0, max(-1.0, ratio)) - self.bias)
        self.square += step * (min(16.0, z * z) - self.square)


def groups_of(query: LengthQuery) -> tuple[bytes, ...]:
    """Keys of the groups that a request belongs to, from everyone to the finest: hashes, so that no name is kept."""
    info = query.info
    values = (query.engine.model, info.route, info.system or query.prompt.system, info.client)
    return (EVERYONE, *(_key(name, value) for name, value in zip(LEVEL_NAMES, values, strict=True) if value))


def _key(name: str, value: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{value}".encode("utf-8", "replace"), digest_size=8).digest()


class Groups:
    """The groups, at most `capacity` of them, `EVERYONE` included; each takes about 2 KB."""

    def __init__(self, capacity: int, shifts: int) -> None:
        self.capacity, self._shifts = capacity, shifts
        self._groups: OrderedDict[bytes, Group] = OrderedDict()

    def __len__(self) -> int:
        return len(self._groups)

    def known(self, keys: Sequence[bytes]) -> list[Group]:
        """The groups of these keys that are remembered, in the order of the keys."""
        return [group for key in keys if (group := self._groups.get(key)) is not None]

    def touch(self, keys: Sequence[bytes]) -> list[Group]:
        """The groups of these keys, made where they are new; the oldest others make room."""
        found = []
        for key in reversed(keys):  # EVERYONE last, so that it is always the most recent and never goes
            if (group := self._groups.get(key)) is None:
                group = self._groups[key] = Group(np.zeros(BINS, np.float32), np.zeros(self._shifts))
            self._groups.move_to_end(key)
            found.append(group)
        while len(self._groups) > self.capacity:
            self._groups.popitem(last=False)
        return found[::-1]

    def items(self) -> Sequence[tuple[bytes, Group]]:
        """The least recently seen first."""
        return list(self._groups.items())

    def put(self, key: bytes, group: Group) -> None:
        """Add a group as the most recent one (for loading)."""
        self._groups[key] = group


@immutable
class History:
    """What the groups of one request say together, as long as none of them learns."""

    groups: tuple[Group, ...]
    """From everyone to the finest."""
    probabilities: _Floats | None
    """On the grid: each group speaks as loud as it has answers, its parents fill up the rest. None without answers."""
    levels: _Floats
    """What is asked for, so that `calibration.LEVELS` are kept."""
    trust: float
    """Weight of history against the prompt (0-1), by which of both gave recent answers the higher probability.

    Bayesian model averaging with forgetting (Raftery et al. 2010); the finest group with comparisons counts most."""
    factor: float
    """What the prompt model's location and scale are multiplied with for these groups: answers of another model or task
    are longer or shorter by a factor, more than by a number of tokens."""
    wider: float
    """What its scale is multiplied with on top."""

    @classmethod
    def of(cls, groups: Sequence[Group]) -> History:
        advantage, bias, square = 0.0, 0.0, 1.0
        for group in groups:  # each is drawn to its parents, the less it has been compared
            own = group.compared / (group.compared + _PRIOR)
            advantage += own * (group.advantage - advantage)
            bias += own * (group.bias - bias)
            square += own * (group.square - square)
        compared = groups[-1].compared if groups else 0.0
        return cls(
            groups=tuple(groups),
            probabilities=_blended([group for group in groups if group.mass > 0]),
            levels=adjusted(groups[0].shift) if groups else LEVELS,
            trust=compared / (compared + _PRIOR) / (1 + math.exp(_DOUBT - _EVIDENCE * advantage)),
            factor=math.exp(bias),
            wider=math.sqrt(max(0.05, square)),
        )


def _blended(groups: Sequence[Group]) -> _Floats | None:
    if not groups:
        return None
    shares: list[float] = []
    for group in groups:
        parents = _PRIOR if shares else 0.0
        whole = group.mass + parents
        shares = [share * parents / whole for share in shares]
        shares.append(1 / whole)
    blended: _Floats = np.array(shares) @ np.array([group.counts for group in groups])
    return blended

"""What a first reservation from a prediction saves on engines that charge for it, and how often it is too small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evidence_parts.data import MEDIAN, Q90, Q95, Floats, HeldOut, percent, table
from evidence_parts.traffic import Replay

_LEAST_CAP, _MOST_CUT = 2048, 0.01


def usual_cap(tokens: Floats) -> int:
    """The smallest power of two from 2,048 on that cuts at most 1 % of the answers."""
    cap = _LEAST_CAP
    while (tokens > cap).mean() > _MOST_CUT:
        cap *= 2
    return cap


def growth(tokens: Floats, first: Floats, cap: int) -> tuple[NDArray[np.int64], Floats, Floats]:
    """How answers went that start with a reservation and double it whenever it is used up.

    Args:
        tokens: lengths of the answers, cut at `cap`; shape (answers,).
        first: the first reservations, at least one token.
        cap: what no reservation exceeds.

    Returns:
        How often each was continued, what was reserved for it at the end, and the sum over its tokens of what was
        reserved when each was written (memory times time).
    """
    tokens, reserved = np.minimum(tokens, cap), np.clip(first, 1, cap).astype(np.float64)
    times, area, written = np.zeros(len(tokens), np.int64), np.zeros(len(tokens)), np.zeros(len(tokens))
    while True:
        area += reserved * (np.minimum(tokens, reserved) - written)
        written = np.minimum(tokens, reserved)
        more = tokens > reserved
        if not more.any():
            return times, reserved, area
        times += more
        reserved = np.where(more, np.minimum(cap, 2 * reserved), reserved)


def tables(held: HeldOut, replayed: Mapping[str, Replay]) -> dict[str, str]:
    """The table `reservations`."""
    head = ["traffic", "first reservation", "first, mean", "continued", "continuations per answer"]
    head += ["reserved at the end, mean", "/ used", "memory x time / the cap's", "/ least"]
    rows = _rows("real answers, ten sources", held.truth, held.said["both"], held.said["constant"])
    for name, replay in replayed.items():
        rows += _rows(name, replay.truth, replay.said["ours"], replay.said["everyone"])
    return {"reservations": table(head, rows)}


def _rows(name: str, truth: Floats, said: Floats, constant: Floats) -> list[Sequence[object]]:
    cap = usual_cap(truth)
    policies: dict[str, Floats] = {
        f"the cap, {cap:,}": np.full(len(truth), cap, np.float64),
        "16": np.full(len(truth), 16.0),
        "256": np.full(len(truth), 256.0),
        "q0.9 of all answers": constant[:, Q90],
        "predicted q0.5": said[:, MEDIAN],
        "predicted q0.9 (auto)": said[:, Q90],
        "predicted q0.95": said[:, Q95],
    }
    used = np.minimum(truth, cap)
    whole, least = cap * used.sum(), (used * (used + 1) / 2).sum()
    rows: list[Sequence[object]] = []
    for policy, first in policies.items():
        times, reserved, area = growth(truth, first, cap)
        first = np.clip(first, 1, cap)
        again, at_end = percent(float((times > 0).mean())), float(reserved.mean())
        kept = (round(at_end), at_end / used.mean(), percent(float(area.sum() / whole)), area.sum() / least)
        rows.append([name, policy, round(float(first.mean())), again, f"{times.mean():.3f}", *kept])
    return rows

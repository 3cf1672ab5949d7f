"""What knowing the caller is worth: production traces, requests in order, prompts unseen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evidence_parts.data import MEDIAN, Q95, TRACES, Floats, Say, explained, percent, table, trace
from suffice.budget import LengthModel
from suffice.budget.length_model.evaluate import EVALUATED, Figures

_MOST, _WARM_UP = 20_000, 2000
_RECENT, _OWN, _FEW = 5000, 500, 30
_METHODS = ("everyone", "per client", "ours")


class Replay:
    """A trace in order: one running quantile for everyone, one for each client, and the length model."""

    def __init__(self, columns: dict[str, NDArray[Any]]) -> None:
        chosen = slice(0, None, max(1, len(columns["tokens"]) // _MOST))
        order = np.argsort(columns["arrival"][chosen][:_MOST], kind="stable")
        self.tokens = columns["tokens"][chosen][:_MOST][order].astype(np.float64)
        self.clients = columns["client"][chosen][:_MOST][order]
        self.said = self._run()
        self.truth = self.tokens[_WARM_UP:]

    def _run(self) -> dict[str, Floats]:
        model, own = LengthModel(), defaultdict[str, list[float]](list)
        said: dict[str, list[Sequence[float]]] = {name: [] for name in _METHODS}
        for at, (client, tokens) in enumerate(zip(self.clients.tolist(), self.tokens.tolist(), strict=True)):
            who = {"client": client}
            if at >= _WARM_UP:
                everyone = np.quantile(self.tokens[max(0, at - _RECENT) : at], EVALUATED)
                mine = own[client][-_OWN:]
                prediction = model.predict(who)
                said["everyone"].append(everyone.tolist())
                said["per client"].append(
                    np.quantile(mine, EVALUATED).tolist() if len(mine) >= _FEW else everyone.tolist()
                )
                said["ours"].append([prediction.quantile(p) for p in EVALUATED])
            model.observe({**who, "output_tokens": int(tokens)})
            own[client].append(tokens)
        return {name: np.array(quantiles, np.float64) for name, quantiles in said.items()}

    def figures(self, name: str, of: NDArray[np.bool_] | None = None) -> Figures:
        """Of one method, beside everyone's running quantiles."""
        rows = slice(None) if of is None else of
        return Figures.of(self.truth[rows], self.said[name][rows], self.said["everyone"][rows])

    @property
    def single(self) -> NDArray[np.bool_]:
        """Which of the scored requests are from clients of which nine in ten answers have the same length."""
        lengths: dict[str, list[float]] = defaultdict(list)
        for client, tokens in zip(self.clients.tolist(), self.tokens.tolist(), strict=True):
            lengths[client].append(tokens)
        same = {who: max(np.unique(mine, return_counts=True)[1]) >= 0.9 * len(mine) for who, mine in lengths.items()}
        return np.array([same[who] for who in self.clients.tolist()])[_WARM_UP:]


def replays(data: Path, say: Say) -> dict[str, Replay]:
    """The traces that say who asked."""
    found: dict[str, Replay] = {}
    for file, name in TRACES.items():
        if "client" in (columns := trace(data, file)):
            say(f"history: {name}")
            found[name] = Replay(columns)
    return found


def tables(found: dict[str, Replay]) -> dict[str, str]:
    """The tables `traffic` and `traffic-single`."""
    return {"traffic": _traffic(found), "traffic-single": _single(found)}


def _traffic(found: dict[str, Replay]) -> str:
    rows: list[Sequence[object]] = []
    for name, replay in found.items():
        for method in _METHODS:
            f = replay.figures(method)
            over = (percent(1 - f.coverage[EVALUATED.index(p)], 2) for p in (0.5, 0.9, 0.95, 0.99))
            upper = _upper(replay.truth, replay.said[method])
            r2 = explained(replay.truth, replay.said[method][:, MEDIAN])
            rows.append([name, method, f"{f.pinball:.2f}", f"{f.ratio:.3f}", f"{upper:.2f}", r2, f.waste, *over])
    head = ["trace", "predictor", "pinball", "/ everyone", "of q0.5 to q0.99", "R²", "waste at q0.95"]
    return table([*head, *(f"over q{p}" for p in (0.5, 0.9, 0.95, 0.99))], rows)


def _upper(truth: Floats, said: Floats) -> float:
    """Pinball loss of the levels that reservations are made of: 0.5, 0.9, 0.95 and 0.99."""
    levels = (0.5, 0.9, 0.95, 0.99)
    distances = {p: truth - said[:, EVALUATED.index(p)] for p in levels}
    return float(np.mean([np.maximum(p * away, (p - 1) * away).mean() for p, away in distances.items()]))


def _single(found: dict[str, Replay]) -> str:
    rows: list[Sequence[object]] = []
    for name, replay in found.items():
        for title, part in (("one length", replay.single), ("others", ~replay.single)):
            if not part.any():
                continue
            ours, client = replay.figures("ours", part), replay.figures("per client", part)
            over = (percent(1 - ours.coverage[at], 2) for at in (EVALUATED.index(0.25), MEDIAN, Q95))
            rows.append(
                [name, title, percent(float(part.mean())), f"{ours.pinball:.2f}", f"{client.pinball:.2f}", *over]
            )
    head = ["trace", "clients of", "requests", "pinball, ours", "per client", "over q0.25", "over q0.5", "over q0.95"]
    return table(head, rows)

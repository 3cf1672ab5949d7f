"""The length model: what the prompt says and what who asks got before, as one calibrated distribution."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suffice.budget.model.calibration import LEVELS, adjusted, covered_if_cut, moved
from suffice.budget.model.distribution import BINS, EDGES, LengthPrediction, bin_of, grid_quantiles
from suffice.budget.model.history import Group, Groups, blended, correction, groups_of, trust_in_history
from suffice.budget.model.prompt_model import LEVELS as SHAPE_LEVELS
from suffice.budget.model.prompt_model import Outlook, PromptModel, to_scale, to_tokens
from suffice.budget.model.state import read_state, write_state
from suffice.budget.model.text import Prompt, features, model_key
from suffice.errors import DataError

__all__ = ["MIN_ROWS", "LengthModel"]

_Floats = NDArray[np.float64]

MIN_ROWS = 80
"""Training prompts below which nothing is learned from prompts, only from who asks."""
_NOBODY_KNOWS = (math.log(250), 1.2)
"""Median and spread of log length before anything is known: Qwen2.5-7B on IFEval, its spread half as much again."""
_EDGES_SCALED = to_scale(np.maximum(EDGES[1:], 0.0))
_REMEMBERED = 4096
"""Prompts whose outlook is remembered, some 200 bytes each."""
_SMALL = 0.1  # so that a length of 0 has a logarithm
_FLOOR = 1e-4  # probability that nothing is denied, so that one surprise does not decide between two sources


class LengthModel:
    """Predicts how long an answer will be, and learns from every answer. Safe for several threads.

    A record is a mapping with any of `messages` or `prompt`, `model`, `client`, `route`, `system`, `tools`,
    `response_format`, `sampling`, `prompt_tokens`, and for learning `output_tokens` and perhaps `finish` ("length": a
    limit ended the answer, so that its own length is at least this).
    """

    def __init__(self, *, capacity: int = 20_000) -> None:
        """
        Args:
            capacity: clients, routes, system prompts and models remembered at once, some 2 KB each.
        """
        self._prompt: PromptModel | None = None
        self._groups = Groups(capacity, len(LEVELS))
        self._lock = threading.Lock()
        self._outlooks: dict[bytes, Outlook] = {}  # of the newest prompts, by their digests
        self.card: dict[str, Any] = {}
        """What the model was trained on and how well it did, as JSON; saved with it."""

    @classmethod
    def fit(
        cls,
        records: Sequence[Mapping[str, Any]],
        *,
        capacity: int = 20_000,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> Self:
        """Learn from records with `output_tokens`, in order of time.

        Answers that a limit ended say nothing to the prompt's part; history takes them as "longer than this". Records
        with a prompt and nobody who asked leave no history: what a model was trained on is not its traffic.

        Args:
            records: at least one; below `MIN_ROWS` of them with a text, only history is learned.
            capacity: as in the constructor.
            on_step: called with steps done and steps in all.

        Raises:
            DataError: there are no records, or one has no valid `output_tokens`.
        """
        if not records:
            raise DataError("there is nothing to learn from: no record with an answer's length")
        lengths = [_length(record) for record in records]
        found = [None if record.get("finish") == "length" else features(record) for record in records]
        rows = [at for at, row in enumerate(found) if row is not None and len(row.cells)]
        model, outlooks = cls(capacity=capacity), dict[int, Outlook]()
        if len(rows) >= MIN_ROWS and len({found[at].cells.tobytes() for at in rows}) >= MIN_ROWS // 4:  # type: ignore[union-attr]
            keys = [model_key(records[at].get("model")) for at in rows]
            tokens = np.array([lengths[at] for at in rows], np.float64)
            texts = [row for row in found if row is not None and len(row.cells)]
            model._prompt, said = PromptModel.fit(texts, keys, tokens, on_step=on_step)
            outlooks = dict(zip(rows, said, strict=True))
        for at, record in enumerate(records):
            asker = any(record.get(name) for name in ("client", "route", "system"))
            if asker or model._prompt is None or not (record.get("messages") or record.get("prompt")):
                model._learn(record, lengths[at], outlooks.get(at))
        return model

    def predict(self, record: Mapping[str, Any]) -> LengthPrediction:
        """The distribution of the answer's length.

        Raises:
            UsageError: a message is not one.
        """
        outlook = self._outlook(record)
        with self._lock:
            groups = self._groups.known(groups_of(record))
            return LengthPrediction(_LEVELS, self._quantiles(groups, outlook).tolist(), self._source(groups, outlook))

    def observe(self, record: Mapping[str, Any]) -> None:
        """Learn from one answer: its record with `output_tokens`. Costs as much as a prediction.

        Raises:
            DataError: `output_tokens` is no number of tokens.
            UsageError: a message is not one.
        """
        tokens = _length(record)
        self._learn(record, tokens, self._outlook(record))

    def untaught(self) -> LengthModel:
        """A model with the same training and no traffic of its own yet. What was trained is shared, not copied."""
        fresh = LengthModel(capacity=self._groups.capacity)
        fresh._prompt, fresh.card = self._prompt, self.card
        return fresh

    def save(self, path: str | Path) -> Path:
        """Write everything that was learned to one file: `path` itself, or `length_model.npz` in the folder `path`.

        The file is replaced as a whole. It has weights and hashes, no text of any prompt and no client's name.

        Raises:
            DataError: it cannot be written.
        """
        with self._lock:
            return write_state(Path(path), self._prompt, self._groups, self.card)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, in this release or an older one.

        Raises:
            DataError: there is no such file, it is damaged, or a newer release wrote it.
        """
        state = read_state(Path(path))
        model = cls(capacity=state.groups.capacity)
        model._prompt, model._groups, model.card = state.prompt, state.groups, state.card
        return model

    def _outlook(self, record: Mapping[str, Any]) -> Outlook | None:
        """What the record's prompt says, or None if it has no text; worked out once for a prompt that comes again, or
        whose answer is learned from."""
        prompt = Prompt.of(record) if self._prompt is not None else None
        if self._prompt is None or prompt is None:
            return None
        digest = prompt.digest
        with self._lock:
            known = self._outlooks.get(digest)
        if known is not None:
            return known
        outlook = self._prompt.outlook(prompt)
        with self._lock:
            self._outlooks[digest] = outlook
            if len(self._outlooks) > _REMEMBERED:
                del self._outlooks[next(iter(self._outlooks))]
        return outlook

    def _learn(self, record: Mapping[str, Any], tokens: int, outlook: Outlook | None) -> None:
        bin_, keys = bin_of(tokens), groups_of(record)
        with self._lock:
            known = self._groups.known(keys)
            history = blended(known)
            cut = record.get("finish") == "length"
            quantiles = self._quantiles(known, outlook)
            groups = self._groups.touch(keys)
            covered = covered_if_cut(tokens, quantiles) if cut else (tokens <= quantiles).astype(np.float64)
            groups[0].shift = moved(groups[0].shift, covered)
            if not cut:
                _compare(groups, history, self._prompt_cumulative(known, outlook), correction(known), tokens, outlook)
            weights = _spread(bin_, history if cut else None)
            for group in groups:
                group.add(weights)

    def _quantiles(self, groups: Sequence[Group], outlook: Outlook | None) -> _Floats:
        """Calibrated tokens at `calibration.LEVELS`."""
        levels = adjusted(groups[0].shift if groups else np.zeros(len(LEVELS)))
        history = blended(groups)
        if history is None and outlook is not None and self._prompt is not None:
            shape = np.interp(levels, SHAPE_LEVELS, self._prompt.shape)
            # An answer has a whole number of tokens: it is within x tokens exactly if it is within floor(x).
            return np.floor(to_tokens(outlook.location + outlook.scale * shape))
        if history is None:
            median, spread = _NOBODY_KNOWS
            return np.ceil(np.exp(median + spread * _normal_quantiles(levels)))
        cumulative = history.cumsum()
        said = self._prompt_cumulative(groups, outlook)
        if said is not None:
            trust = trust_in_history(groups)
            cumulative = trust * cumulative + (1 - trust) * said
        return grid_quantiles(cumulative, levels)

    def _prompt_cumulative(self, groups: Sequence[Group], outlook: Outlook | None) -> _Floats | None:
        """The prompt's word on the grid, corrected by how it did for these groups lately."""
        if outlook is None or self._prompt is None:
            return None
        factor, wider = correction(groups)
        z = (_EDGES_SCALED - factor * outlook.location) / (factor * wider * outlook.scale)
        cumulative: _Floats = np.interp(z, self._prompt.shape, SHAPE_LEVELS, left=0.0, right=1.0)
        return cumulative

    def _source(self, groups: Sequence[Group], outlook: Outlook | None) -> str:
        said = []
        if outlook is not None and self._prompt is not None:
            unlike = (
                f", which this one is unlike ({100 * outlook.novelty:.0f} %): widened"
                if outlook.novelty > _NOVEL
                else ""
            )
            said.append(f"{self._prompt.rows} training prompts{unlike}")
        if groups:
            weight = f" (weight {trust_in_history(groups):.2f})" if said else ""
            whom = "this caller" if len(groups) > 1 else "everyone"
            said.append(f"{groups[-1].answers} earlier answers to {whom}{weight}")
        return " and ".join(said) or "nothing known yet"


_NOVEL = 0.05  # novelty from which on the reasons speak of it
_LEVELS: list[float] = LEVELS.tolist()


def _length(record: Mapping[str, Any]) -> int:
    tokens = record.get("output_tokens")
    if not isinstance(tokens, int | float | np.integer) or isinstance(tokens, bool) or not 0 <= tokens < math.inf:
        raise DataError(f"output_tokens is {tokens!r}: a record to learn from needs its answer's length in tokens")
    return int(tokens)


def _spread(bin_: int, history: _Floats | None) -> _Floats:
    """Where on the grid an answer counts; one that was cut, in the bins above its own, as history has them.

    Redistribution to the right (Efron 1967), which is what Kaplan and Meier's estimate does.
    """
    weights = np.zeros(BINS)
    above = history[bin_ + 1 :].sum() if history is not None else 0.0
    if history is not None and above > _FLOOR:
        weights[bin_ + 1 :] = history[bin_ + 1 :] / above
    else:
        weights[bin_] = 1.0
    return weights


def _compare(
    groups: Sequence[Group],
    history: _Floats | None,
    said: _Floats | None,
    correction: tuple[float, float],
    tokens: int,
    outlook: Outlook | None,
) -> None:
    """Tell every group how probable history and prompt had made this length, and how far the prompt model was off."""
    if history is None or said is None or outlook is None:
        return
    bin_, length, factor = bin_of(tokens), float(to_scale(tokens)), correction[0]
    by_prompt = said[bin_] - (said[bin_ - 1] if bin_ else 0.0)
    advantage = math.log((history[bin_] + _FLOOR) / (by_prompt + _FLOOR))
    ratio = math.log((length + _SMALL) / (max(outlook.location, 0.0) + _SMALL))
    z = (length - factor * outlook.location) / (factor * outlook.scale)
    for group in groups:
        group.compare(advantage, ratio, z)


def _normal_quantiles(levels: _Floats) -> _Floats:
    from statistics import NormalDist

    return np.array([NormalDist().inv_cdf(float(level)) for level in levels])

"""The length model: what the prompt says and what who asks got before, as one calibrated distribution."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suffice.budget.length_model.calibration import LEVELS, covered_if_cut, moved
from suffice.budget.length_model.distribution import EDGES, LengthPrediction, bin_of, grid_quantiles
from suffice.budget.length_model.features import Prompt, features, model_key
from suffice.budget.length_model.history import Group, Groups, History, groups_of
from suffice.budget.length_model.prompt_model import LEVELS as SHAPE_LEVELS
from suffice.budget.length_model.prompt_model import Outlook, PromptModel, to_scale, to_tokens
from suffice.budget.length_model.state import packed, read_state, write_state
from suffice.errors import DataError
from suffice.immutable import immutable

__all__ = ["MIN_ROWS", "LengthKey", "LengthModel"]

_Floats = NDArray[np.float64]

MIN_ROWS = 80
"""Training prompts below which nothing is learned from prompts, only from who asks."""
_NOBODY_KNOWS = (math.log(250), 1.2)
"""Median and spread of log length before anything is known: Qwen2.5-7B on IFEval, its spread half as much again."""
_EDGES_SCALED = to_scale(np.maximum(EDGES[1:], 0.0))
_REMEMBERED = 4096
"""Prompts whose outlook is remembered, some 200 bytes each; and, between two answers, what was foreseen."""
_HISTORIES = 256  # some 4 KB each
_SMALL = 0.1  # so that a length of 0 has a logarithm
_FLOOR = 1e-4  # probability that nothing is denied, so that one surprise does not decide between two sources


@immutable
class LengthKey:
    """What a request was, as far as learning from its answer needs it: hashes and numbers, no text and no names."""

    groups: tuple[bytes, ...]
    """Keys of the groups that it belongs to."""
    outlook: Outlook | None
    """What its prompt said."""
    predicted: bool
    """Whether its answer was predicted. What was not counts in history, and moves no calibration."""

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it, for another process that learns from the answer."""
        outlook = self.outlook and [round(self.outlook.location, 6), round(self.outlook.scale, 6)]
        return {"groups": [key.hex() for key in self.groups], "outlook": outlook, "predicted": self.predicted}

    @classmethod
    def from_json(cls, said: Any) -> Self:
        """The inverse of `to_json`.

        Raises:
            DataError: it is none.
        """
        try:
            location, scale = (float(number) for number in said["outlook"] or (0.0, 1.0))
            outlook = Outlook(location, scale, novelty=0.0) if said["outlook"] else None
            if not (math.isfinite(location) and scale > 0):
                raise ValueError(f"an outlook of {location}, {scale}")
            return cls(tuple(map(bytes.fromhex, said["groups"])), outlook, bool(said["predicted"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"no request to learn from: {type(error).__name__}: {error}") from None


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
        self._histories: dict[tuple[bytes, ...], History] = {}  # since the last answer was learned
        self._foreseen: dict[LengthKey, LengthPrediction] = {}  # likewise
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
                asked = LengthKey(tuple(groups_of(record)), outlooks.get(at), predicted=True)
                model.learn(asked, lengths[at], cut=record.get("finish") == "length")
        return model

    def predict(self, record: Mapping[str, Any]) -> LengthPrediction:
        """The distribution of the answer's length.

        Raises:
            UsageError: a message is not one.
        """
        return self.foresee(self.look(record))

    def look(self, record: Mapping[str, Any], *, predicted: bool = True) -> LengthKey:
        """What `foresee` and `learn` need of a record, so that its text need not be kept until the answer is there.

        Args:
            record: what is asked.
            predicted: False for what nobody predicts; its prompt is not read.

        Raises:
            UsageError: a message is not one.
        """
        outlook = self._outlook(record) if predicted else None
        return LengthKey(tuple(groups_of(record)), outlook, predicted)

    def foresee(self, asked: LengthKey) -> LengthPrediction:
        """The distribution of the answer's length."""
        if (known := self._foreseen.get(asked)) is not None:
            return known
        with self._lock:
            history, outlook = self._history(asked.groups), asked.outlook
            quantiles = self._quantiles(history, self._prompt_cumulative(history, outlook), outlook)
            found = LengthPrediction(_LEVELS, quantiles.tolist(), self._source(history, outlook))
            if len(self._foreseen) >= _REMEMBERED:
                self._foreseen.clear()
            self._foreseen[asked] = found
        return found

    def observe(self, record: Mapping[str, Any]) -> None:
        """Learn from one answer: its record with `output_tokens`. Costs as much as a prediction.

        Raises:
            DataError: `output_tokens` is no number of tokens.
            UsageError: a message is not one.
        """
        self.learn(self.look(record), _length(record), cut=record.get("finish") == "length")

    def learn(self, asked: LengthKey, tokens: int, *, cut: bool = False) -> None:
        """Learn from one answer. The prompt is not read again.

        Args:
            asked: what `look` said of its request.
            tokens: its length.
            cut: whether something ended it, so that its own length is at least this.
        """
        with self._lock:
            history = self._history(asked.groups)
            said = self._prompt_cumulative(history, asked.outlook) if asked.predicted else None
            groups = self._groups.touch(asked.groups)
            if asked.predicted:
                quantiles = self._quantiles(history, said, asked.outlook)
                covered = covered_if_cut(tokens, quantiles) if cut else (tokens <= quantiles).astype(np.float64)
                groups[0].shift = moved(groups[0].shift, covered)
                if not cut:
                    _compare(groups, history, said, tokens, asked.outlook)
            where = _spread(bin_of(tokens), history.probabilities if cut else None)
            for group in groups:
                group.add(*where)
            self._forget()

    def untaught(self) -> LengthModel:
        """A model with the same training and no traffic of its own yet. What was trained is shared, not copied."""
        fresh = LengthModel(capacity=self._groups.capacity)
        fresh._prompt, fresh.card = self._prompt, self.card
        return fresh

    def save(self, path: str | Path) -> Path:
        """Write everything that was learned to one file: `path` itself, or `length_model.npz` in the folder `path`.

        Others may predict and learn meanwhile; what they learn then is not in it.

        The file is replaced as a whole. It has weights and hashes, no text of any prompt and no client's name.

        Raises:
            DataError: it cannot be written.
        """
        with self._lock:
            arrays = packed(self._groups)
        return write_state(Path(path), self._prompt, arrays, self._groups.capacity, self.card)

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
        known = self._outlooks.get(digest)
        if known is not None:
            return known
        outlook = self._prompt.outlook(prompt)
        with self._lock:
            self._outlooks[digest] = outlook
            if len(self._outlooks) > _REMEMBERED:
                del self._outlooks[next(iter(self._outlooks))]
        return outlook

    def go_on_from(self, other: LengthModel) -> None:
        """Take over, for good, what `other` has learned from traffic; what this model was trained on stays."""
        with self._lock:
            self._groups = other._groups
            self._forget()

    def _history(self, keys: tuple[bytes, ...]) -> History:
        """What these groups say: many requests that come between two answers ask the same ones."""
        found = self._histories.get(keys)
        if found is None:
            if len(self._histories) >= _HISTORIES:
                self._histories.clear()
            found = self._histories[keys] = History.of(self._groups.known(keys))
        return found

    def _forget(self) -> None:
        """What was worked out is no longer true."""
        self._histories.clear()
        self._foreseen.clear()

    def _quantiles(self, history: History, said: _Floats | None, outlook: Outlook | None) -> _Floats:
        """Calibrated tokens at `calibration.LEVELS`; `said` is the prompt's word on the grid."""
        if history.probabilities is None and outlook is not None and self._prompt is not None:
            shape = np.interp(history.levels, SHAPE_LEVELS, self._prompt.shape)
            # An answer has a whole number of tokens: it is within x tokens exactly if it is within floor(x).
            return np.floor(to_tokens(outlook.location + outlook.scale * shape))
        if history.probabilities is None:
            median, spread = _NOBODY_KNOWS
            return np.ceil(np.exp(median + spread * _normal_quantiles(history.levels)))
        cumulative = history.probabilities.cumsum()
        if said is not None:
            cumulative = history.trust * cumulative + (1 - history.trust) * said
        return grid_quantiles(cumulative, history.levels)

    def _prompt_cumulative(self, history: History, outlook: Outlook | None) -> _Floats | None:
        """The prompt's word on the grid, corrected by how it did for these groups lately."""
        if outlook is None or self._prompt is None or history.probabilities is None:
            return None
        factor = history.factor
        z = (_EDGES_SCALED - factor * outlook.location) / (factor * history.wider * outlook.scale)
        cumulative: _Floats = np.interp(z, self._prompt.shape, SHAPE_LEVELS, left=0.0, right=1.0)
        return cumulative

    def _source(self, history: History, outlook: Outlook | None) -> str:
        said = []
        if outlook is not None and self._prompt is not None:
            unlike = (
                f", which this one is unlike ({100 * outlook.novelty:.0f} %): widened"
                if outlook.novelty > _NOVEL
                else ""
            )
            said.append(f"{self._prompt.rows} training prompts{unlike}")
        if groups := history.groups:
            details = []
            if said:
                times = history.factor**4  # of the location, which is a fourth root
                if abs(times - 1) >= _CORRECTED:
                    details.append(f"answers are {times:.2f} times as long as the prompts say")
                details.append(f"weight {history.trust:.2f}")
            whom = "such requests" if len(groups) > 1 else "everyone"
            answers = groups[-1].answers
            told = f" ({', '.join(details)})" if details else ""
            said.append(f"{answers} earlier answer{'' if answers == 1 else 's'} to {whom}{told}")
        return " and ".join(said) or "nothing known yet"


_NOVEL = 0.05  # novelty from which on the reasons speak of it
_CORRECTED = 0.1  # the same of what history corrects the prompt's word by
_LEVELS: list[float] = LEVELS.tolist()


def _length(record: Mapping[str, Any]) -> int:
    tokens = record.get("output_tokens")
    if not isinstance(tokens, int | float | np.integer) or isinstance(tokens, bool) or not 0 <= tokens < math.inf:
        raise DataError(f"output_tokens is {tokens!r}: a record to learn from needs its answer's length in tokens")
    return int(tokens)


def _spread(bin_: int, history: _Floats | None) -> tuple[int | slice, float | _Floats]:
    """Where on the grid an answer counts, and how much of it; one that was cut, in the bins above its own, as history
    has them.

    Redistribution to the right (Efron 1967), which is what Kaplan and Meier's estimate does.
    """
    above = history[bin_ + 1 :].sum() if history is not None else 0.0
    if history is None or above <= _FLOOR:
        return bin_, 1.0
    return slice(bin_ + 1, None), history[bin_ + 1 :] / above


def _compare(
    groups: Sequence[Group], history: History, said: _Floats | None, tokens: int, outlook: Outlook | None
) -> None:
    """Tell every group how probable history and prompt had made this length, and how far the prompt model was off."""
    if history.probabilities is None or said is None or outlook is None:
        return
    bin_, length = bin_of(tokens), math.sqrt(math.sqrt(tokens))
    by_prompt = float(said[bin_]) - (float(said[bin_ - 1]) if bin_ else 0.0)
    advantage = math.log((float(history.probabilities[bin_]) + _FLOOR) / (by_prompt + _FLOOR))
    ratio = math.log((length + _SMALL) / (max(outlook.location, 0.0) + _SMALL))
    z = (length - history.factor * outlook.location) / (history.factor * outlook.scale)
    for group in groups:
        group.compare(advantage, ratio, z)


def _normal_quantiles(levels: _Floats) -> _Floats:
    from statistics import NormalDist

    return np.array([NormalDist().inv_cdf(float(level)) for level in levels])

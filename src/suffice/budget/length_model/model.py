"""The length model: combines the prompt with the caller's history into one calibrated length distribution."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from suffice.budget.expectation import Expectation, LengthQuery
from suffice.budget.length_key import LengthKey, LocationScale
from suffice.budget.length_model.calibration import LEVELS, covered_if_cut, moved
from suffice.budget.length_model.distribution import EDGES, LengthPrediction, bin_of, budget_quantiles, grid_quantiles
from suffice.budget.length_model.features import conversation_features, features, model_key, prompt_text
from suffice.budget.length_model.history import Group, Groups, History, groups_of
from suffice.budget.length_model.prompt_model import LEVELS as SHAPE_LEVELS
from suffice.budget.length_model.prompt_model import OnStep, PromptModel, ignored_steps, to_scale, to_tokens
from suffice.budget.length_model.sample import LengthSample, Record
from suffice.budget.length_model.state import packed, read_state, write_state
from suffice.errors import DataError

__all__ = ["MIN_ROWS", "LengthModel"]

_Floats = NDArray[np.float64]

MIN_ROWS = 80
"""Training prompts below which nothing is learned from prompts, only from who asks."""
_UNKNOWN = (math.log(250), 1.2)
"""Median and spread of log length before anything is known: Qwen2.5-7B on IFEval, its spread half as much again."""
_LEVELS: list[float] = LEVELS.tolist()
_EDGES_SCALED = to_scale(np.maximum(EDGES[1:], 0.0))
_REMEMBERED = 4096
"""Prompts of which it is remembered what they say, some 200 bytes each; and, between two answers, expectations."""
_HISTORIES = 256  # some 4 KB each
_SMALL = 0.1  # so that a length of 0 has a logarithm
_FLOOR = 1e-4  # probability that nothing is denied, so that one surprise does not decide between two sources
_NOVEL = 0.05  # novelty from which on the reasons speak of it
_CORRECTED = 0.1  # the same of what history corrects the prompt's word by


class LengthModel:
    """Predicts how long an answer will be, and learns from every answer. Safe for several threads.

    Two ways in: a `LengthQuery`, as budgets ask; and records, which `sample.Record` describes.
    """

    def __init__(self, *, capacity: int = 20_000) -> None:
        """
        Args:
            capacity: clients, routes, system prompts and models remembered at once, some 2 KB each.
        """
        self._prompt: PromptModel | None = None
        self._groups = Groups(capacity, len(LEVELS))
        self._lock = threading.Lock()
        self._by_digest: dict[bytes, LocationScale] = {}  # what the newest prompts say
        self._histories: dict[tuple[bytes, ...], History] = {}  # since the last answer was learned
        self._expected: dict[LengthKey, Expectation] = {}  # likewise
        self.card: dict[str, Any] = {}
        """What the model was trained on and how well it did, as JSON; saved with it."""

    @classmethod
    def fit(cls, records: Sequence[Record], *, capacity: int = 20_000, on_step: OnStep = ignored_steps) -> Self:
        """Learn from records with `output_tokens`, in order of time.

        Answers that a limit ended say nothing to the prompt's part; history takes them as "longer than this". Records
        with a prompt, and without a word on who asked, leave no history: training data is not traffic.

        Args:
            records: at least one; below `MIN_ROWS` of them with a text, only history is learned.
            capacity: as in the constructor.
            on_step: called with steps done and steps in all.

        Raises:
            DataError: there are no records, or one has no valid `output_tokens`.
        """
        return cls.fit_samples([LengthSample.of(record) for record in records], capacity=capacity, on_step=on_step)

    @classmethod
    def fit_samples(
        cls, samples: Sequence[LengthSample], *, capacity: int = 20_000, on_step: OnStep = ignored_steps
    ) -> Self:
        """`fit`, from records that have been read."""
        if not samples:
            raise DataError("there is nothing to learn from: no record with an answer's length")
        lengths = [sample.tokens for sample in samples]
        model = cls(capacity=capacity)
        said = model._fit_prompts(samples, lengths, on_step)
        for at, (sample, tokens) in enumerate(zip(samples, lengths, strict=True)):
            if sample.has_asker or model._prompt is None or not sample.has_prompt:
                key = LengthKey(groups_of(sample.query), said.get(at), predicted=True)
                model.learn(key, tokens, cut=sample.cut)
        return model

    def _fit_prompts(
        self, samples: Sequence[LengthSample], lengths: Sequence[int], on_step: OnStep
    ) -> dict[int, LocationScale]:
        """Train the prompt's part, where there are enough prompts; what it says of each without having seen it."""
        texts = {
            at: features(sample.query, conversation_features(sample.query))
            for at, sample in enumerate(samples)
            if not sample.cut and prompt_text(sample.query.prompt).strip()
        }
        if len(texts) < MIN_ROWS or len({text.cells.tobytes() for text in texts.values()}) < MIN_ROWS // 4:
            return {}
        models = [model_key(samples[at].query.engine.model) for at in texts]
        tokens = np.array([lengths[at] for at in texts], np.float64)
        self._prompt, said = PromptModel.fit(list(texts.values()), models, tokens, on_step=on_step)
        return dict(zip(texts, said, strict=True))

    def predict(self, record: Record) -> LengthPrediction:
        """The distribution of the answer's length.

        Raises:
            UsageError: a message is malformed.
        """
        return self.predict_by(self.key(LengthSample.of(record).query))

    def predict_by(self, key: LengthKey) -> LengthPrediction:
        """`predict`, for a request that has been read."""
        with self._lock:
            tokens, source = self._predicted(key)
        return LengthPrediction(_LEVELS, tokens, source)

    def expect(self, query: LengthQuery) -> Expectation:
        """The quantiles of the answer's length that a budget has, and the key for learning from the answer."""
        key = self.key(query)
        if (known := self._expected.get(key)) is not None:
            return known
        with self._lock:
            tokens, source = self._predicted(key)
            found = Expectation(budget_quantiles(_LEVELS, tokens), f"expected length: from {source}", length_key=key)
            if len(self._expected) >= _REMEMBERED:
                self._expected.clear()
            self._expected[key] = found
        return found

    def key(self, query: LengthQuery, *, predicted: bool = True) -> LengthKey:
        """What learning from the answer needs, so that its prompt need not be kept until the answer is there.

        Args:
            query: what is asked.
            predicted: False where the model does not predict the answer; then the prompt is not read.
        """
        return LengthKey(groups_of(query), self._by_prompt(query) if predicted else None, predicted)

    def observe(self, record: Record) -> None:
        """Learn from one answer: its record with `output_tokens`. Costs as much as a prediction.

        Raises:
            DataError: `output_tokens` is not a number of tokens.
            UsageError: a message is malformed.
        """
        sample = LengthSample.of(record)
        self.learn(self.key(sample.query), sample.tokens, cut=sample.cut)

    def learn(self, key: LengthKey, tokens: int, *, cut: bool = False) -> None:
        """Learn from one answer. The prompt is not read again.

        Args:
            key: of its request (`Budget.length_key`).
            tokens: its length.
            cut: whether something ended it, so that its own length is at least this.
        """
        with self._lock:
            history = self._history(key.groups)
            said = self._prompt_cumulative(history, key.by_prompt) if key.predicted else None
            groups = self._groups.touch(key.groups)
            if key.predicted:
                quantiles = self._quantiles(history, said, key.by_prompt)
                covered = covered_if_cut(tokens, quantiles) if cut else (tokens <= quantiles).astype(np.float64)
                groups[0].shift = moved(groups[0].shift, covered)
                if not cut:
                    _compare(groups, history, said, tokens, key.by_prompt)
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

    def continue_from(self, other: LengthModel) -> None:
        """Take over, for good, what `other` has learned from traffic; what this model was trained on stays."""
        with self._lock:
            self._groups = other._groups
            self._forget()

    def _by_prompt(self, query: LengthQuery) -> LocationScale | None:
        """What the prompt says, or None if it has no text; worked out once for a prompt that comes again, or whose
        answer is learned from."""
        if self._prompt is None or not (text := prompt_text(query.prompt)).strip():
            return None
        model, conversation = model_key(query.engine.model), conversation_features(query)
        whole = f"{model}\0{conversation}\0{text}"
        digest = blake2b(whole.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if (known := self._by_digest.get(digest)) is not None:
            return known
        said = self._prompt.expect(features(query, conversation), model)
        with self._lock:
            self._by_digest[digest] = said
            if len(self._by_digest) > _REMEMBERED:
                del self._by_digest[next(iter(self._by_digest))]
        return said

    def _predicted(self, key: LengthKey) -> tuple[list[float], str]:
        """Tokens at `calibration.LEVELS`, and where they come from. The lock must be held."""
        history, by_prompt = self._history(key.groups), key.by_prompt
        quantiles = self._quantiles(history, self._prompt_cumulative(history, by_prompt), by_prompt)
        return quantiles.tolist(), self._source(history, by_prompt)

    def _history(self, keys: tuple[bytes, ...]) -> History:
        """Remembered, because many requests that come between two answers have the same groups."""
        found = self._histories.get(keys)
        if found is None:
            if len(self._histories) >= _HISTORIES:
                self._histories.clear()
            found = self._histories[keys] = History.of(self._groups.known(keys))
        return found

    def _forget(self) -> None:
        self._histories.clear()
        self._expected.clear()

    def _quantiles(self, history: History, said: _Floats | None, by_prompt: LocationScale | None) -> _Floats:
        """Calibrated tokens at `calibration.LEVELS`; `said` is the prompt's word on the grid."""
        if history.probabilities is None and by_prompt is not None and self._prompt is not None:
            shape = np.interp(history.levels, SHAPE_LEVELS, self._prompt.shape)
            # An answer has a whole number of tokens: it is within x tokens exactly if it is within floor(x).
            return np.floor(to_tokens(by_prompt.location + by_prompt.scale * shape))
        if history.probabilities is None:
            median, spread = _UNKNOWN
            normal = [NormalDist().inv_cdf(level) for level in history.levels.tolist()]
            return np.ceil(np.exp(median + spread * np.array(normal)))
        cumulative = history.probabilities.cumsum()
        if said is not None:
            cumulative = history.trust * cumulative + (1 - history.trust) * said
        return grid_quantiles(cumulative, history.levels)

    def _prompt_cumulative(self, history: History, by_prompt: LocationScale | None) -> _Floats | None:
        """The prompt's word on the grid, corrected by how it did for these groups lately."""
        if by_prompt is None or self._prompt is None or history.probabilities is None:
            return None
        factor = history.factor
        z = (_EDGES_SCALED - factor * by_prompt.location) / (factor * history.wider * by_prompt.scale)
        cumulative: _Floats = np.interp(z, self._prompt.shape, SHAPE_LEVELS, left=0.0, right=1.0)
        return cumulative

    def _source(self, history: History, by_prompt: LocationScale | None) -> str:
        said = []
        if by_prompt is not None and self._prompt is not None:
            unlike = f", which this one is unlike ({100 * by_prompt.novelty:.0f} %): widened"
            said.append(f"{self._prompt.rows} training prompts{unlike if by_prompt.novelty > _NOVEL else ''}")
        if history.groups:
            said.append(_history_source(history, beside_prompt=bool(said)))
        return " and ".join(said) or "nothing known yet"


def _history_source(history: History, *, beside_prompt: bool) -> str:
    details = []
    if beside_prompt:
        times = history.factor**4  # of the location, which is a fourth root
        if abs(times - 1) >= _CORRECTED:
            details.append(f"answers are {times:.2f} times as long as the prompts say")
        details.append(f"weight {history.trust:.2f}")
    whom = "such requests" if len(history.groups) > 1 else "everyone"
    answers = history.groups[-1].answers
    detail = f" ({', '.join(details)})" if details else ""
    return f"{answers} earlier answer{'' if answers == 1 else 's'} to {whom}{detail}"


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
    groups: Sequence[Group], history: History, said: _Floats | None, tokens: int, by_prompt: LocationScale | None
) -> None:
    """Tell every group how probable history and prompt had made this length, and how far the prompt model was off."""
    if history.probabilities is None or said is None or by_prompt is None:
        return
    bin_, length = bin_of(tokens), math.sqrt(math.sqrt(tokens))
    probability = float(said[bin_]) - (float(said[bin_ - 1]) if bin_ else 0.0)
    advantage = math.log((float(history.probabilities[bin_]) + _FLOOR) / (probability + _FLOOR))
    ratio = math.log((length + _SMALL) / (max(by_prompt.location, 0.0) + _SMALL))
    z = (length - history.factor * by_prompt.location) / (history.factor * by_prompt.scale)
    for group in groups:
        group.compare(advantage, ratio, z)

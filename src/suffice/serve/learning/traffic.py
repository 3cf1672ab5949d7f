"""Teaches the length model the answers of all replicas, and keeps what it learned for the next start. Used by the
thread of the request log.

Each answer is learned once: this replica's own when its row is in the store, those of other replicas when their rows
are read there. A saved state says up to which row it has learned; the next start reads on from there.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from suffice.budget import LengthModel
from suffice.budget.length_model.history import MEMORY
from suffice.budget.length_model.sample import LengthSample
from suffice.budget.length_model.state import FILE_NAME
from suffice.errors import DataError
from suffice.outage import Outage
from suffice.serve.learning.observations import Observation, records_of
from suffice.serve.request_log.store import Store

__all__ = ["TrafficLearner"]

_LOG = logging.getLogger(__name__)
_LOOK = 1000  # rows read at once: some 80 ms
_CATCH_UP = 20_000  # the newest rows: what older ones taught has faded, so a replica that is further behind skips them
_GAP_SECONDS = 60.0  # a number that is missing so long was never written
_GAP = 1000  # numbers that may be missing at once; a larger gap comes from deleted rows
_SAVE_EVERY = 300.0  # seconds
_AT_ONCE = MEMORY  # answers of one kind that are learned in one go: what a histogram remembers
_PER_SECOND = 100.0  # and from then on: what it remembers are then some seconds, where all would be the last moment


class TrafficLearner:
    """Learns from this replica's answers and from the others' rows.

    Args:
        model: learns.
        store: where all replicas write their rows, this one under the name `replica`.
        path: where the model's state is kept; None keeps none.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        model: LengthModel,
        store: Store,
        replica: str,
        path: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._store, self._replica, self._path, self._clock = model, store, replica, path, clock
        self._identity, self._newest = store.identity(), store.last_row()
        self.row = 0
        """Number of the newest row that was read."""
        self._missing: dict[int, float] = {}
        self._changed = False
        self.behind = True
        """Whether there were more rows than one look reads."""
        self._saved = clock()
        self._saving = Outage(_LOG, "what traffic teaches is kept again")
        self._learned, self._room = clock(), _AT_ONCE
        self.left_out = 0
        """Answers of this replica that taught nothing, because so many of their kind came at once."""
        self._continue_after(model.card)
        if path is not None:
            self._restore(path)

    @property
    def missing(self) -> int:
        """Row numbers that were skipped and are waited for."""
        return len(self._missing)

    def learn(self, observations: Sequence[Observation]) -> None:
        """Learn answers of this replica whose rows have just been written. Of a kind (of one client, route, system
        prompt and model) that comes by the hundred each second, an even share is learned; `left_out` counts the others.
        """
        now = self._clock()
        self._room = min(_AT_ONCE, self._room + _PER_SECOND * (now - self._learned))
        self._learned = now
        kinds = Counter(each.key.groups for each in observations)
        most = max(1, int(self._room))
        taught = _thinned(observations, kinds, most)
        self._room -= min(most, max(kinds.values(), default=0))
        self.left_out += len(observations) - len(taught)
        self._learn_all(taught)

    def _learn_all(self, observations: Iterable[Observation]) -> None:
        for each in observations:
            self._model.learn(each.key, each.tokens, cut=each.cut)
            self._changed = True

    def look(self) -> None:
        """Learn from the rows that others have written since the last look, or from a bounded part of them."""
        now = self._clock()
        self._missing = {row: since for row, since in self._missing.items() if now - since < _GAP_SECONDS}
        if self.behind:
            self.row = max(self.row, self._store.last_row() - _CATCH_UP)
        numbers, others = self._store.rows_after(self.row, _LOOK, tuple(self._missing), self._replica)
        for number in numbers:
            if number > self.row:  # PostgreSQL numbers rows before they are there: those between may come later
                if number - self.row <= _GAP:
                    self._missing |= dict.fromkeys(range(self.row + 1, number), now)
                self.row = number
            self._missing.pop(number, None)
        for row in others:
            self._learn_all(self._observations(row))
        self._missing = dict(list(self._missing.items())[-_GAP:])
        self.behind = len(numbers) >= _LOOK

    def _observations(self, row: Mapping[str, Any]) -> list[Observation]:
        """What a row teaches. Of a replica without a length model, or an earlier release, it only has who asked."""
        try:
            if row["lessons"] is not None:
                return [Observation.from_json(each) for each in row["lessons"]]
            samples = [LengthSample.of(record) for record in records_of(row)]
            return [
                Observation(key=self._model.key(each.query, predicted=False), tokens=each.tokens, cut=each.cut)
                for each in samples
            ]
        except (DataError, KeyError, TypeError):  # of a later release, perhaps
            return []

    def save_now_and_then(self) -> None:
        """Save what is new, every five minutes."""
        if self._clock() - self._saved >= _SAVE_EVERY:
            self.save()

    def close(self) -> None:
        """Read what there is to read, and save."""
        for _ in range(_CATCH_UP // _LOOK):
            self.look()
            if not self.behind:
                break
        self.save()

    def save(self) -> None:
        """Save what is new, once all rows that there are have been read: then it is known up to which one.

        A file that cannot be written is a warning; the service continues.
        """
        if self._path is None or not self._changed or self.behind:
            return
        self._saved = self._clock()
        learned = {"database": self._identity, "row": self.row, "missing": sorted(self._missing)}
        self._model.card = {**self._model.card, "traffic": learned}
        try:
            self._model.save(self._path)
        except DataError as error:
            self._saving.failed(f"{error}; what traffic teaches is not kept")
        else:
            self._changed = False
            self._saving.worked()

    def _restore(self, path: Path) -> None:
        """Continue from the file, where there is one. A damaged one is reported and replaced later."""
        if not (path / FILE_NAME if path.is_dir() else path).exists():
            return
        try:
            kept = LengthModel.load(path)
        except DataError as error:
            _LOG.warning("%s; the length model starts without it", error)
            return
        self._model.continue_from(kept)
        self.row = 0
        self._continue_after(kept.card)

    def _continue_after(self, card: Mapping[str, Any]) -> None:
        """Begin behind the rows that a model has learned already, from this database."""
        learned = _position(said := card.get("traffic"))
        if said is not None and learned is None:
            _LOG.warning(
                "the length state learned up to %.100s, which is not a place in any database: the newest %d requests "
                "are learned as if they were new",
                repr(said),
                _CATCH_UP,
            )
        if learned is not None and learned[0] == self._identity:
            self.row = min(learned[1], self._newest)  # fewer rows: some were deleted
            self._missing = dict.fromkeys((row for row in learned[2] if row > self.row - _GAP), self._clock())


def _thinned(
    observations: Iterable[Observation], kinds: Mapping[tuple[bytes, ...], int], most: int
) -> list[Observation]:
    """At most so many of each kind, spread evenly over those that there are; `kinds` counts them."""
    seen: Counter[tuple[bytes, ...]] = Counter()
    kept = []
    for each in observations:
        kind = each.key.groups
        at, there = seen[kind], kinds[kind]
        seen[kind] += 1
        if there <= most or at * most // there < (at + 1) * most // there:
            kept.append(each)
    return kept


def _position(said: Any) -> tuple[float, int, list[int]] | None:
    """Database, row, and missing rows that a state has learned up to; None where it does not say."""
    try:
        return float(said["database"]), int(said["row"]), [int(row) for row in said["missing"]]
    except (KeyError, TypeError, ValueError, OverflowError):  # int(inf) is the last
        return None

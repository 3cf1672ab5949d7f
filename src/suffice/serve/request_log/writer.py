"""What passes between the server and its store: a row for each request, changes of keys, what other replicas learned.
In a thread, so that no request waits for the database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suffice.errors import StoreAwayError, StoreError
from suffice.outage import Outage
from suffice.serve.auth.api_keys import KeyRing
from suffice.serve.request_log.batch_writer import BatchWriter
from suffice.serve.request_log.store import Store

if TYPE_CHECKING:
    from suffice.serve.learning.observations import Observation
    from suffice.serve.learning.traffic import TrafficLearner

__all__ = ["RequestLogWriter"]

_LOG = logging.getLogger(__name__)
_READ_EVERY = 2.0  # seconds until a revoked key is refused

_Noted = tuple[Mapping[str, Any], "tuple[Observation, ...]"]
"""A row, and what the length models of other replicas learn from it."""


class RequestLogWriter:
    """Writes rows without letting requests wait, and reads what others have written.

    Args:
        store: where rows go and keys come from.
        ring: gets the keys.
        traffic: learns from rows once they are written; None where there is no length model.
        replica: the name under which this process writes.
        patience: seconds that `close` waits for a database that is away.

    Raises:
        StoreError: the keys cannot be read.
    """

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        traffic: TrafficLearner | None = None,
        replica: str | None = None,
        patience: float = 10.0,
    ) -> None:
        self._store, self._ring, self._traffic, self._replica = store, ring, traffic, replica
        self._reads = Outage(_LOG, "the database can be read again")
        self._read_at = time.monotonic()
        ring.replace(store.keys())
        self._writer: BatchWriter[_Noted] = BatchWriter(
            "rows of usage",
            self._write,
            batch=2000,
            backlog=200_000,
            patience=patience,
            written=self._learn,
            between=self._read,
            ending=lambda: self._teach(lambda traffic: traffic.close()),
        )
        self.close = self._writer.close

    @property
    def left_out(self) -> int:
        """See `TrafficLearner.left_out`."""
        return self._traffic.left_out if self._traffic is not None else 0

    def add(self, row: Mapping[str, Any], observations: tuple[Observation, ...] = ()) -> None:
        """Note one row, to be written within half a second, and what it teaches then."""
        self._writer.add(((row, observations),))

    def _write(self, noted: Sequence[_Noted], again: bool) -> None:
        rows = [
            {**row, "replica": self._replica, "lessons": [each.to_json() for each in observations] or None}
            for row, observations in noted
        ]
        self._store.add_requests(rows, again=again)

    def _learn(self, noted: Sequence[_Noted]) -> None:
        learned = [each for _, observations in noted for each in observations]
        self._teach(lambda traffic: traffic.learn(learned))

    def _read(self) -> None:
        """Every two seconds the keys, and what other replicas wrote; more of that at once where there is much."""
        if time.monotonic() - self._read_at < _READ_EVERY:
            if self._traffic is not None and self._traffic.behind:
                self._teach(lambda traffic: traffic.look())
            return
        self._read_at = time.monotonic()
        failure = "the keys cannot be read, and stay as they were"
        keys = self._try(failure, lambda: self._ring.replace(self._store.keys()))
        looked = self._teach(lambda traffic: traffic.look())
        if keys and looked:  # only all of it together ends an outage: where one thing fails, it does not come and go
            self._reads.worked()
        self._teach(lambda traffic: traffic.save_now_and_then())

    def _teach(self, work: Callable[[TrafficLearner], None]) -> bool:
        """Whether it worked. Learning endangers no row: an unexpected error ends the learning, and nothing else."""
        if (traffic := self._traffic) is None:
            return True
        try:
            return self._try("the length model does not learn from other replicas", lambda: work(traffic))
        except Exception:
            _LOG.exception("the length model stops learning from traffic")
            self._traffic = None
            return True

    def _try(self, failure: str, work: Callable[[], None]) -> bool:
        try:
            work()
        except StoreAwayError as error:
            self._reads.failed(f"the database cannot be read ({error.reason}); keys stay as they are until it can")
        except StoreError as error:
            self._reads.failed(f"{failure}: {error}", cause=failure)
        else:
            return True
        return False

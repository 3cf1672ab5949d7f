"""The thread between the server and its store: writes rows in batches, brings changes of keys, lets traffic teach."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from suffice.serve.auth.api_keys import KeyRing
from suffice.serve.log.store import REJECTED_ROW, Store, StoreError

if TYPE_CHECKING:
    from suffice.serve.learning.observations import Observation
    from suffice.serve.learning.traffic import TrafficLearner

__all__ = ["RequestLogWriter"]

_LOG = logging.getLogger("suffice.serve")

_WRITE_EVERY = 0.5  # seconds: what a SIGKILL may lose
_BATCH = 2000
_READ_EVERY = 2.0  # seconds until a revoked key is refused
_BACKLOG = 200_000  # rows kept while the database is away; how many more there were is said
_JOIN_SECONDS = 5.0  # beyond the patience, for a database that hangs


_Noted = tuple[Mapping[str, Any], "tuple[Observation, ...]"]
"""A row, and what it teaches."""


class RequestLogWriter:
    """Takes rows without waiting; a database that is away is tried again until it is back.

    Args:
        store: where rows go and keys come from.
        ring: the keys in memory.
        traffic: who learns from rows once they are written; None where there is no length model.
        replica: the name under which this process writes.
        patience: seconds that `close` waits for a database that is away.
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
        self._patience = patience
        self._rows: deque[_Noted] = deque()
        self._batch: list[_Noted] = []
        self._tried = False
        """The batch may have been written already: what failed is that we were told."""
        self._singly = 0
        """So many of the next rows are written one by one."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="suffice-ledger", daemon=True)
        self._away = False
        self.dropped = 0
        """Rows that were lost because the database was away for too long, or would not take them."""
        ring.replace(store.keys())
        self._thread.start()

    @property
    def left_out(self) -> int:
        """Answers that taught the length model nothing, because so many of their kind came at once."""
        return self._traffic.left_out if self._traffic is not None else 0

    def add(self, row: Mapping[str, Any], lessons: tuple[Observation, ...] = ()) -> None:
        """Note one row, to be written within half a second, and what it teaches then."""
        if len(self._rows) >= _BACKLOG:
            self.dropped += 1
            return
        self._rows.append((row, lessons))

    def close(self) -> None:
        """Write what is left, and end. Blocks; not for ever."""
        self._stop.set()
        self._thread.join(self._patience + _JOIN_SECONDS)
        if lost := len(self._batch) + len(self._rows) + self.dropped:
            print(f"warning: {lost} rows of usage were lost: the database was away, or refused them", file=sys.stderr)

    def _work(self) -> None:
        read = time.monotonic()
        while not self._stop.wait(_WRITE_EVERY):
            self._guarded(self._write)
            if time.monotonic() - read >= _READ_EVERY:
                read = time.monotonic()
                self._guarded(lambda: self._ring.replace(self._store.keys()))
                self._taught(lambda traffic: traffic.look())
                self._taught(lambda traffic: traffic.save_now_and_then())
            elif self._traffic is not None and self._traffic.behind:
                self._taught(lambda traffic: traffic.look())
        ends = time.monotonic() + self._patience
        self._guarded(self._write)
        while self._away and time.monotonic() < ends:
            time.sleep(_WRITE_EVERY)
            self._guarded(self._write)
        self._taught(lambda traffic: traffic.close())

    def _whole(self, row: Mapping[str, Any], lessons: tuple[Observation, ...]) -> Mapping[str, Any]:
        """With what other replicas need to learn from it."""
        return {**row, "replica": self._replica, "lessons": [each.to_json() for each in lessons] or None}

    def _learn(self, lessons: list[Observation]) -> None:
        self._taught(lambda traffic: traffic.learn(lessons))

    def _taught(self, work: Callable[[TrafficLearner], None]) -> None:
        """Learning is worth no row: what goes wrong with it ends it, and nothing else."""
        if (traffic := self._traffic) is None:
            return
        try:
            self._guarded(lambda: work(traffic))
        except Exception:
            _LOG.exception("the length model stops learning from traffic")
            self._traffic = None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except StoreError as error:
            if not self._away:
                print(
                    f"warning: the database is away ({_first_line(error)}); rows are kept until it is back",
                    file=sys.stderr,
                )
            self._away = True
        else:
            if self._away:
                print("notice: the database is back", file=sys.stderr)
            self._away = False

    def _write(self) -> None:
        while self._batch or self._rows:
            if not self._batch:
                self._batch = self._next()
            again, self._tried = self._tried, True
            try:
                self._store.add_requests([self._whole(*each) for each in self._batch], again=again)
            except (*REJECTED_ROW, OverflowError, ValueError) as error:  # SQLite: too large a number, half a character
                self._refused(error)
            else:
                self._learn([lesson for _, lessons in self._batch for lesson in lessons])
            self._batch, self._tried = [], False  # only now: what was not written stays

    def _next(self) -> list[_Noted]:
        size = min(len(self._rows), 1 if self._singly else _BATCH)
        self._singly = max(self._singly - size, 0)
        return [self._rows.popleft() for _ in range(size)]

    def _refused(self, error: Exception) -> None:
        """A row that the database will not take must not keep the others from it: they go one by one."""
        if len(self._batch) > 1:
            self._rows.extendleft(reversed(self._batch))
            self._singly = len(self._batch)
            return
        self.dropped += 1
        print(f"warning: the database refused a row of usage ({_first_line(error)})", file=sys.stderr)


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]

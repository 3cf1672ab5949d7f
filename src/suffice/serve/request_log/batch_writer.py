"""Writes rows to a database in batches, from a thread of its own. Knows no table, and nothing about what a row means.

What happens to a row that was not written depends on the error:

- the database is away: the batch stays, and is tried again twice a second until it is back;
- the database refuses (a column is missing): the same, because the rows fit once an operator has mended it;
- the database rejects rows: they are written one by one, and one that is rejected alone is set aside. It is dropped
  when the database takes another row, which shows that the row was at fault. While twenty in a row are rejected the
  table is, and all of them are kept.

More than a backlog is not kept; how many rows were lost is said at the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from suffice.errors import StoreAwayError, StoreBrokenError, StoreError, first_line
from suffice.outage import Outage

__all__ = ["BatchWriter"]

_LOG = logging.getLogger(__name__)
_EVERY = 0.5  # seconds: what a SIGKILL may lose
_JOIN_SECONDS = 5.0  # beyond the patience, for a database that hangs
_SET_ASIDE = 20  # rejected rows in a row from which on the table is at fault
_MEND = "its tables must be those of this release (`suffice serve --check` compares them), and writable by its user"

_Row = TypeVar("_Row")


class BatchWriter(Generic[_Row]):
    """Takes rows without waiting.

    Args:
        what: what the rows are, for messages: `rows of usage`.
        write: writes rows, all or none. Its second argument says that the same call has failed before, which may have
            been after the database wrote them all. Raises `StoreError`.
        batch: rows that are written at once.
        backlog: rows that are kept while they cannot be written.
        patience: seconds that `close` waits for a database that is away.
        written: called with rows that are in the database.
        between: called twice a second, after what there was has been written.
        ending: called at the end, after the last write.
    """

    def __init__(
        self,
        what: str,
        write: Callable[[Sequence[_Row], bool], None],
        *,
        batch: int,
        backlog: int,
        patience: float = 0.0,
        written: Callable[[Sequence[_Row]], None] = lambda _: None,
        between: Callable[[], object] = lambda: None,
        ending: Callable[[], object] = lambda: None,
    ) -> None:
        self._what, self._write, self._written = what, write, written
        self._between, self._ending = between, ending
        self._size, self._backlog, self._patience = batch, backlog, patience
        self._rows: deque[_Row] = deque()
        self._batch: list[_Row] = []
        self._tried = False
        """The batch may have been written already, if only the confirmation was lost."""
        self._singly = 0
        """So many of the next rows are written one by one."""
        self._aside: list[tuple[_Row, str]] = []
        self._away = Outage(_LOG, f"the database is back: {what} are written")
        self._refused = Outage(_LOG, f"the database takes {what} again")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"suffice {what}", daemon=True)
        self.dropped = 0
        """Rows that were lost: the database rejected them, or was away for too long."""
        self._thread.start()

    def add(self, rows: Iterable[_Row]) -> None:
        """Note rows, to be written within half a second."""
        for row in rows:
            if len(self._rows) < self._backlog:
                self._rows.append(row)
            else:
                self.dropped += 1

    def close(self) -> None:
        """Write what is left, and end. Blocks, for five seconds longer than `patience` at most."""
        self._stop.set()
        self._thread.join(self._patience + _JOIN_SECONDS)
        if lost := len(self._batch) + len(self._rows) + len(self._aside) + self.dropped:
            said = "%d %s were lost: the database was away, or refused them"
            _LOG.warning(said, lost, self._what, extra={"lost": lost})

    def _work(self) -> None:
        while not self._stop.wait(_EVERY):
            self._write_all()
            self._between()
        ends = time.monotonic() + self._patience
        while self._write_all() and time.monotonic() < ends:
            time.sleep(_EVERY)
        self._ending()

    def _write_all(self) -> bool:
        """Write what there is; whether it is worth trying again, because the database is away."""
        while self._batch or self._rows:
            self._batch = self._batch or self._next()
            again, self._tried = self._tried, True
            try:
                self._write(self._batch, again)
            except (StoreAwayError, StoreBrokenError) as error:
                return self._failed(error.reason, away=isinstance(error, StoreAwayError))  # and the batch stays
            except Exception as error:  # a mistake of ours in one row ends no thread
                self._put_back(error.reason if isinstance(error, StoreError) else first_line(error))
            else:
                self._away.worked()
                self._refused.worked()
                self._drop_rejected()
                self._written(self._batch)
            self._batch, self._tried = [], False
            if len(self._aside) >= _SET_ASIDE:
                self._rows.extend(row for row, _ in self._aside)  # behind the others, one of which may fit
                _, why = self._aside[-1]
                self._aside.clear()
                return self._failed(why, away=False)
        return False

    def _next(self) -> list[_Row]:
        size = min(len(self._rows), 1 if self._singly else self._size)
        self._singly = max(self._singly - size, 0)
        return [self._rows.popleft() for _ in range(size)]

    def _put_back(self, why: str) -> None:
        """A row that the database rejects must not keep the others from it."""
        if len(self._batch) == 1:
            self._aside.append((self._batch[0], why))
        else:
            self._rows.extendleft(reversed(self._batch))
            self._singly = len(self._batch)

    def _drop_rejected(self) -> None:
        for _, why in self._aside:
            _LOG.warning("the database refused one of the %s (%s)", self._what, why)
        self.dropped += len(self._aside)
        self._aside.clear()

    def _failed(self, why: str, *, away: bool) -> bool:
        """Report it; whether it is worth trying again soon."""
        if away:
            self._away.failed(f"the database is away ({why}); {self._what} are kept until it is back")
        else:
            said = f"the database does not take {self._what} ({why}); they are kept until it is mended: {_MEND}"
            self._refused.failed(said)
        return away

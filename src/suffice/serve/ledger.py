"""The thread between the server and its store: writes rows in batches, and brings changes of keys."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from suffice.serve.keys import KeyRing
from suffice.serve.store import RowError, Store, StoreError

__all__ = ["Ledger"]

_WRITE_EVERY = 0.5  # seconds: what a SIGKILL may lose
_BATCH = 500
_READ_EVERY = 2.0  # seconds until a revoked key is refused
_BACKLOG = 200_000  # rows kept while the database is away; how many more there were is said
_JOIN_SECONDS = 5.0  # beyond the patience, for a database that hangs


class Ledger:
    """Takes rows without waiting; a database that is away is tried again until it is back.

    Args:
        store: where rows go and keys come from.
        ring: the keys in memory.
        patience: seconds that `close` waits for a database that is away.
    """

    def __init__(self, store: Store, ring: KeyRing, patience: float = 10.0) -> None:
        self._store, self._ring, self._patience = store, ring, patience
        self._rows: deque[Mapping[str, Any]] = deque()
        self._batch: list[Mapping[str, Any]] = []
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

    def add(self, row: Mapping[str, Any]) -> None:
        """Note one row, to be written within half a second."""
        if len(self._rows) >= _BACKLOG:
            self.dropped += 1
            return
        self._rows.append(row)

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
        ends = time.monotonic() + self._patience
        self._guarded(self._write)
        while self._away and time.monotonic() < ends:
            time.sleep(_WRITE_EVERY)
            self._guarded(self._write)

    def _guarded(self, work: Any) -> None:
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
                self._store.add_requests(self._batch, again=again)
            except RowError as error:
                self._refused(error)
            self._batch, self._tried = [], False  # only now: what was not written stays

    def _next(self) -> list[Mapping[str, Any]]:
        size = min(len(self._rows), 1 if self._singly else _BATCH)
        self._singly = max(self._singly - size, 0)
        return [self._rows.popleft() for _ in range(size)]

    def _refused(self, error: StoreError) -> None:
        """A row that the database will not take must not keep the others from it: they go one by one."""
        if len(self._batch) > 1:
            self._rows.extendleft(reversed(self._batch))
            self._singly = len(self._batch)
            return
        self.dropped += 1
        print(f"warning: the database refused a row of usage ({_first_line(error)})", file=sys.stderr)


def _first_line(error: StoreError) -> str:
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]

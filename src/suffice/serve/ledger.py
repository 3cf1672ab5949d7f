"""The thread between the server and its store: writes rows in batches, and brings changes of keys."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from suffice.serve.keys import KeyRing
from suffice.serve.store import Store, StoreError

__all__ = ["Ledger"]

_WRITE_EVERY = 0.5  # seconds: what a SIGKILL may lose
_BATCH = 500
_READ_EVERY = 2.0  # seconds until a revoked key is refused
_BACKLOG = 200_000  # rows kept while the database is away; how many more there were is said


class Ledger:
    """Takes rows without waiting; a database that is away is tried again until it is back.

    Args:
        store: where rows go and keys come from.
        ring: the keys in memory.
    """

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store, self._ring = store, ring
        self._rows: deque[Mapping[str, Any]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="suffice-ledger", daemon=True)
        self._away = False
        self.dropped = 0
        """Rows that were lost because the database was away for too long."""
        ring.replace(store.keys())
        self._thread.start()

    def add(self, row: Mapping[str, Any]) -> None:
        """Note one row, to be written within half a second."""
        if len(self._rows) >= _BACKLOG:
            self.dropped += 1
            return
        self._rows.append(row)

    def close(self) -> None:
        """Write what is left, and end. Blocks."""
        self._stop.set()
        self._thread.join()
        if self._rows or self.dropped:
            lost = len(self._rows) + self.dropped
            print(f"warning: {lost} rows of usage were lost, because the database was away", file=sys.stderr)

    def _work(self) -> None:
        read = time.monotonic()
        while not self._stop.wait(_WRITE_EVERY):
            self._guarded(self._write)
            if time.monotonic() - read >= _READ_EVERY:
                read = time.monotonic()
                self._guarded(lambda: self._ring.replace(self._store.keys()))
        self._guarded(self._write)

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except StoreError as error:
            if not self._away:
                first = str(getattr(error, "orig", error)).strip().partition("\n")[0]
                print(f"warning: the database is away ({first}); rows are kept until it is back", file=sys.stderr)
            self._away = True
        else:
            if self._away:
                print("notice: the database is back", file=sys.stderr)
            self._away = False

    def _write(self) -> None:
        while batch := [self._rows[i] for i in range(min(len(self._rows), _BATCH))]:
            self._store.add_requests(batch)
            for _ in batch:  # only now: what was not written stays
                self._rows.popleft()

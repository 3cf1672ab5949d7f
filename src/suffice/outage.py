"""Reports that something outside this process (a database, a collector, shared limits) fails, and that it works again.

Knows neither what failed nor how it is asked: the caller reports each failure and each success, and the log gets a line
when an outage begins, a reminder while it lasts, and a line when it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

__all__ = ["Outage"]


class Outage:
    """One operation on one outside service, such as writing to the database. Can be used from several threads.

    Args:
        log: where it is reported: failures as warnings, the end as info.
        recovered: what to log when the operation works again.
        remind_seconds: how often an outage that lasts is reported.
        quiet_seconds: how long a failure that follows a recovery stays unreported, counted from the last report: what
            fails every second time fills no log.
        clock: seconds, never going back.
    """

    def __init__(
        self,
        log: logging.Logger,
        recovered: str,
        *,
        remind_seconds: float = 600.0,
        quiet_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._recovered, self._clock = log, recovered, clock
        self._remind_seconds, self._quiet_seconds = remind_seconds, quiet_seconds
        self._lock = threading.Lock()
        self._since: float | None = None
        self._reported: dict[str, float] = {}
        """When each cause was last reported."""
        self._open: set[str] = set()
        """The causes that were reported in this outage."""

    @property
    def lasts(self) -> bool:
        """Whether it failed when it was last tried."""
        return self._since is not None

    def failed(self, message: str, *, cause: str = "away") -> None:
        """Report a failure.

        Args:
            message: a line for an operator: what fails, why, and what happens meanwhile.
            cause: failures of one cause are one line per outage; another cause gets its own.
        """
        with self._lock:
            now = self._clock()
            if self._since is None:
                self._since = now
            lasted = now - self._since
            again = cause in self._open
            pause = self._remind_seconds if again else self._quiet_seconds
            if cause in self._reported and now - self._reported[cause] < pause:
                return
            self._reported[cause] = now
            self._open.add(cause)
        after = f" (for {lasted:.0f} s now)" if again else ""
        self._log.warning("%s%s", message, after, extra={"cause": cause, "outage_seconds": round(lasted, 1)})

    def worked(self) -> None:
        """Report a success; the first after a reported failure is logged."""
        if self._since is None:  # costs nothing where all is well
            return
        with self._lock:
            since, self._since = self._since, None
            reported, self._open = self._open, set()
            lasted = 0.0 if since is None else self._clock() - since
        if reported:
            self._log.info(self._recovered, extra={"outage_seconds": round(lasted, 1)})

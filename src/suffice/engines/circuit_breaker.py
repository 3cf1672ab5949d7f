"""A circuit breaker (Nygard, "Release It!", 2007). It knows nothing about engines and no time of its own."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CircuitBreaker"]


@dataclass(slots=True, eq=False, kw_only=True)
class CircuitBreaker:
    """Opens after some failures in a row: for some seconds nothing is sent, then one request tries."""

    failures: int = 0
    """In a row."""
    open_until: float = 0.0
    trying: bool = False
    """The circuit is half open, and one request is finding out."""

    def allows(self, limit: int, now: float) -> bool:
        """Whether a request may be sent; `limit` is the number of failures that opens the circuit."""
        return self.failures < limit or (now >= self.open_until and not self.trying)

    def begin(self, limit: int) -> None:
        self.trying = self.failures >= limit

    def answer(self, limit: int) -> None:
        """A first piece closes an open circuit, so that the trial's whole answer need not be waited for; one more
        failure opens it again."""
        if self.failures >= limit:
            self.failures, self.trying = limit - 1, False

    def fail(self, limit: int, open_until: float) -> None:
        self.failures += 1
        if self.failures >= limit:
            self.open_until = open_until

    def end(self, *, well: bool) -> None:
        self.trying = False
        if well:
            self.failures = 0

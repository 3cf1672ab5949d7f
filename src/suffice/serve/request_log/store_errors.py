"""Turns errors of SQLAlchemy and its drivers into ours, by what helps: waiting, mending, or leaving out a row."""

from __future__ import annotations

from sqlalchemy import exc

from suffice.errors import RejectedRowError, StoreAwayError, StoreBrokenError, StoreError, first_line

__all__ = ["store_error"]

_SQLITE_LATER = {5, 6, 7, 9, 10, 13, 14, 15}
"""Primary result codes that pass: busy, locked, no memory, interrupted, I/O error, full, cannot be opened, protocol."""


def store_error(error: Exception) -> StoreError:
    driver = getattr(error, "orig", None) or error
    kind: type[StoreError] = StoreBrokenError
    if not isinstance(error, exc.DBAPIError) and isinstance(driver, ValueError | OverflowError | TypeError):
        kind = RejectedRowError  # a number or a text that cannot be handed over
    elif isinstance(error, exc.DataError | exc.IntegrityError):
        kind = RejectedRowError
    elif getattr(error, "connection_invalidated", False):
        kind = StoreAwayError
    elif isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
        code = getattr(driver, "sqlite_errorcode", None)  # SQLite says "no such column" in the same class
        kind = StoreAwayError if code is None or code & 0xFF in _SQLITE_LATER else StoreBrokenError
    return kind(first_line(driver))

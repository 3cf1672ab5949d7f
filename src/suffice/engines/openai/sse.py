"""Server-sent events, read from bytes that may be cut anywhere. Knows nothing about HTTP, JSON or language models.

The format is that of the HTML standard, section 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

__all__ = ["MAX_EVENT_BYTES", "EventParser"]

MAX_EVENT_BYTES = 4 << 20
"""Longest event accepted, in bytes: far above any piece of an answer, far below what would hurt."""

_BOM = b"\xef\xbb\xbf"


class EventParser:
    """Turns blocks of bytes into the data of whole events. Comments and fields other than `data` are skipped.

    Lines are decoded only when they are whole, so a UTF-8 character may be cut between two blocks.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._first = True  # of all blocks: it may begin with a byte order mark

    def feed(self, block: bytes) -> list[str]:
        """The data of each event that `block` completes.

        Raises:
            ValueError: an event is longer than the bound.
        """
        between = not (self._line or self._data or self._after_cr or (self._first and block.startswith(_BOM[:1])))
        if between and block.endswith(b"\n\n") and b"\r" not in block:
            return self._whole_events(block)
        return self._lines(block)

    def _whole_events(self, block: bytes) -> list[str]:
        """The common case, several times faster: whole events, most of them of one line of data."""
        self._first = False
        events = []
        for part in block[:-2].split(b"\n\n"):
            if part.startswith(b"data: ") and b"\n" not in part and len(part) < self._max_bytes:
                events.append(part[6:].decode("utf-8", "replace"))
            else:
                events += self._lines(part + b"\n\n")
        return events

    def _lines(self, block: bytes) -> list[str]:
        skip_lf = self._after_cr and block.startswith(b"\n")  # second half of a CRLF that was cut in two
        self._after_cr = block.endswith(b"\r")
        events = []
        for line in block[skip_lf:].splitlines(keepends=True):
            self._line += line
            if self._data_bytes + len(self._line) > self._max_bytes:
                raise ValueError(f"an event is longer than {self._max_bytes} bytes")
            if line.endswith((b"\n", b"\r")) and (event := self._end_line()) is not None:
                events.append(event)
        return events

    def close(self) -> str | None:
        """The data of an event that the stream's end left without its blank line, if there is one."""
        if self._line:
            self._end_line()
        return self._end_event()

    def _end_line(self) -> str | None:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._first:
            line, self._first = line.removeprefix(_BOM), False
        if not line:
            return self._end_event()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(self._data[-1]) + 1
        return None

    def _end_event(self) -> str | None:
        if not self._data:
            return None
        data = b"\n".join(self._data).decode("utf-8", "replace")
        self._data.clear()
        self._data_bytes = 0
        return data

"""Prompts and answers, kept where the operator has switched `log_prompts` on, for so many days and no longer."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from suffice.serve.log.store import REJECTED_ROW, Store, StoreError
from suffice.serve.request_state import RequestState

__all__ = ["PromptLog", "prompt_rows_of"]

_WRITE_EVERY = 0.5  # seconds: what a SIGKILL may lose
_FORGET_EVERY = 600.0
_BACKLOG = 2000  # texts kept while the database is away; how many more there were is said
_BATCH = 100


def prompt_rows_of(ticket: RequestState) -> list[dict[str, Any]]:
    """The texts of a request for which an engine was asked, a row for each answer, whole or as far as it came."""
    reply = ticket.reply
    if reply is None or not ticket.generated:
        return []
    same = {
        "time": ticket.time,
        "request_id": ticket.exchange.request_id,
        "key_id": ticket.caller.key_id or None,
        "model": reply.model,
    }
    return [
        {
            **same,
            "messages": [dict(message) for message in request.prompt.messages] or None,
            "prompt": "" if request.prompt.ids else request.prompt.raw and _storable(request.prompt.raw),
            "prompt_ids": list(request.prompt.ids) or None,
            "answer": _storable(answer.text),
            "thinking": _storable("".join(answer.thoughts)) or None,
            "tool_calls": answer.calls.to_list() if answer.calls is not None else None,
        }
        for request, answer in zip(ticket.wanted.requests, reply.answers, strict=True)
    ]


def _storable(text: str) -> str:
    """PostgreSQL has no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class PromptLog:
    """Writes texts in batches from a thread of its own, and forgets those that are old.

    Args:
        store: where they go.
        days: how long they are kept.
    """

    def __init__(self, store: Store, days: float) -> None:
        self._store, self._days = store, days
        self._rows: deque[Mapping[str, Any]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="suffice-prompts", daemon=True)
        self._lost = 0
        self._forgot = -_FORGET_EVERY
        self._thread.start()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Note the texts of one request."""
        room = max(0, _BACKLOG - len(self._rows))
        self._rows.extend(rows[:room])
        self._lost += len(rows[room:])

    def close(self) -> None:
        """Write what is left, and end. Blocks."""
        self._stop.set()
        self._thread.join()
        if lost := self._lost + len(self._rows):
            print(
                f"warning: the texts of {lost} answers were lost: the database was away, or refused them",
                file=sys.stderr,
            )

    def _work(self) -> None:
        while not self._stop.wait(_WRITE_EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        size = _BATCH
        try:
            if time.monotonic() - self._forgot >= _FORGET_EVERY:
                self._store.forget_prompts(before=time.time() - self._days * 86400)
                self._forgot = time.monotonic()
            while batch := [self._rows[i] for i in range(min(len(self._rows), size))]:
                try:
                    self._store.add_prompts(batch)
                except (*REJECTED_ROW, ValueError):  # one that it will never take: which, is seen one by one
                    if size > 1:
                        size = 1
                        continue
                    self._lost += 1
                for _ in batch:  # only now: what was not written stays
                    self._rows.popleft()
        except StoreError:
            return  # it is tried again; that the database is away is the ledger's to say

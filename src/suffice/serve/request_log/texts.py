"""Prompts and answers in the database, where the operator has switched `log_prompts` on, for some days."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from suffice.errors import StoreError
from suffice.outage import Outage
from suffice.prompt import Prompt
from suffice.serve.request.state import RequestState
from suffice.serve.request_log.batch_writer import BatchWriter
from suffice.serve.request_log.store import Store

__all__ = ["TextLog", "text_rows_of"]

_LOG = logging.getLogger(__name__)
_FORGET_EVERY = 600.0  # seconds


def text_rows_of(state: RequestState) -> list[dict[str, Any]]:
    """The texts of a request that reached an engine: a row for each answer, complete or not."""
    choices = state.choices
    if choices is None or not state.generated:
        return []
    return [
        {
            "time": state.time,
            "request_id": state.exchange.request_id,
            "key_id": state.caller.key_id or None,
            "model": choices.model,
            "messages": [dict(message) for message in answer.request.prompt.messages] or None,
            "prompt": _raw_text(answer.request.prompt),
            "prompt_ids": list(answer.request.prompt.ids) or None,
            "answer": _storable(answer.text),
            "thinking": _storable(answer.thinking) or None,
            "tool_calls": answer.calls.to_list() if answer.calls is not None else None,
        }
        for answer in choices.answers
    ]


def _raw_text(prompt: Prompt) -> str | None:
    return "" if prompt.ids else prompt.raw and _storable(prompt.raw)


def _storable(text: str) -> str:
    """PostgreSQL cannot store NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class TextLog:
    """Writes texts in batches from a thread of its own, and deletes those that are older than `days`."""

    def __init__(self, store: Store, days: float) -> None:
        self._store, self._days = store, days
        self._forgot = -_FORGET_EVERY
        self._outage = Outage(_LOG, "old texts can be deleted again")
        self._writer: BatchWriter[Mapping[str, Any]] = BatchWriter(
            "texts of answers",
            lambda rows, _: store.add_texts(rows),
            batch=100,
            backlog=2000,
            between=self._forget,
        )
        self.add, self.close = self._writer.add, self._writer.close

    def _forget(self) -> None:
        if time.monotonic() - self._forgot < _FORGET_EVERY:
            return
        try:
            self._store.forget_texts(before=time.time() - self._days * 86400)
        except StoreError as error:
            self._outage.failed(f"texts older than {self._days:g} days cannot be deleted: {error}")
        else:
            self._outage.worked()
            self._forgot = time.monotonic()

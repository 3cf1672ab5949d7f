"""One request on its way through the server, and all that it holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suffice.engines.base import Attempt
from suffice.errors import EngineError
from suffice.serve.api.requests import ApiRequest
from suffice.serve.api.responses import Reply
from suffice.serve.auth.permissions import Caller
from suffice.serve.http.errors import Problem
from suffice.serve.http.middleware import HttpExchange
from suffice.serve.http.stream_writer import StreamWriter
from suffice.serve.limits.admission import Slot
from suffice.serve.limits.quotas import Charge

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["RequestState"]


@dataclass(slots=True)
class RequestState:
    """One request and all that it holds, until `Service.release`."""

    wanted: ApiRequest
    caller: Caller
    exchange: HttpExchange
    route: str = ""
    slot: Slot = field(default_factory=lambda: Slot(0))
    reply: Reply | None = None
    problem: Problem | None = None
    reservation: Charge = field(init=False)
    """What it has taken of its caller's limits."""
    room: int = 0
    """Tokens of all answers that are reserved in these limits."""
    outbox: StreamWriter | None = None
    """The stream, once it has begun."""
    span: Span | None = None
    time: float = field(default_factory=time.time)
    """When it came, in seconds since 1970."""

    def __post_init__(self) -> None:
        self.reservation = Charge(self.caller)

    @property
    def request_ids(self) -> list[str]:
        """Under which engines know its answers."""
        return [each.id for each in self.wanted.requests]

    @property
    def attempts(self) -> list[Attempt]:
        """Which engines were asked, for all answers."""
        return [each for each in self.wanted.request.attempts if each.upstream]

    @property
    def generated(self) -> bool:
        """Whether an engine was asked."""
        return bool(self.attempts)

    @property
    def engine_error(self) -> EngineError | None:
        """Why the answer that failed did so, with the status that a server gave; an error that was mended by asking
        elsewhere is none."""
        last = {each.request_id: each.error for each in self.wanted.request.attempts}
        answers = self.reply.answers if self.reply else ()
        failed = (
            last.get(request_id) for request_id, each in zip(self.request_ids, answers, strict=False) if each.failed
        )
        return next((error for error in failed if error), None)

    @property
    def upstream(self) -> str:
        """Who answered; the first few where several answers went to several."""
        answered = {each.request_id: each.upstream for each in self.attempts}
        names = list(dict.fromkeys(answered.values()))
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""A request that was accepted: what was asked, and all that is held for it until it ends."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from suffice.engines.base import Attempt
from suffice.errors import EngineError
from suffice.serve.auth.permissions import Caller
from suffice.serve.http.errors import Problem
from suffice.serve.http.middleware import HttpExchange
from suffice.serve.http.stream_writer import StreamWriter
from suffice.serve.limits.quotas import Charge
from suffice.serve.request.api_request import ApiRequest
from suffice.serve.request.choices import Choices

if TYPE_CHECKING:
    from opentelemetry.trace import Span

__all__ = ["RequestState"]


@dataclass(slots=True, kw_only=True)
class RequestState:
    """Lives from `Service.accept` to `Service.release`."""

    api: ApiRequest
    caller: Caller
    exchange: HttpExchange
    charge: Charge
    """What it has taken of its caller's limits."""
    writer: StreamWriter | None
    """Writes the response, where that is a stream."""
    choices: Choices | None = None
    """The answers; None until their length is decided."""
    problem: Problem | None = None
    """What ended it, where it was not its answers."""
    span: Span | None = None
    time: float = field(default_factory=time.time)
    """When it came, in seconds since 1970."""

    @property
    def id(self) -> str:
        return self.api.request.id

    @property
    def route(self) -> str:
        return self.api.request.route or ""

    @property
    def attempts(self) -> list[Attempt]:
        """Those of all answers that reached an engine."""
        return [each for each in self.api.request.attempts if each.upstream]

    @property
    def generated(self) -> bool:
        """Whether an engine was asked."""
        return bool(self.attempts)

    @property
    def engine_error(self) -> EngineError | None:
        """Why the answer that failed did so, with the status that a server gave; an error that was mended by asking
        another engine is not one."""
        answers = self.choices.answers if self.choices else ()
        last = {each.request_id: each.error for each in self.api.request.attempts}
        failed = (last.get(answer.request.id) for answer in answers if answer.failed)
        return next((error for error in failed if error), None)

    @property
    def upstream(self) -> str:
        """Who answered; the first few where several answers went to several."""
        answered = {each.request_id: each.upstream for each in self.attempts}
        names = list(dict.fromkeys(answered.values()))
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

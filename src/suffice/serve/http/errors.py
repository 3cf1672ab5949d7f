"""Refusals with an HTTP status, in OpenAI's shape. Knows nothing about requests or servers."""

from __future__ import annotations

from collections.abc import Mapping

from suffice.errors import EngineError, PromptTooLongError, QueueFullError, RateLimitError, SufficeError, UsageError
from suffice.json_codec import dump

__all__ = ["Problem", "problem_of", "shutting_down"]

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 504: "timeout_error"}


class Problem(SufficeError):  # noqa: N818  # RFC 9457's word
    """A request that is answered with an error.

    `param` is the field that it is about, `code` a word for programs; `where`, the machine that failed, is for the
    operator and never sent.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        where: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers, self.where = dict(headers or {}), where

    @property
    def body(self) -> bytes:
        """The error object that OpenAI's clients read."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return dump({"error": error})


def shutting_down() -> Problem:
    return Problem(503, "the server is shutting down", code="shutting_down", headers={"retry-after": "5"})


def problem_of(error: SufficeError) -> Problem:
    """The HTTP answer for anything that Suffice raises."""
    match error:
        case Problem():
            return error
        case PromptTooLongError():
            return Problem(400, str(error), param="messages", code="context_length_exceeded")
        case QueueFullError(retry_after=seconds):
            return Problem(429, str(error), code="queue_full", headers={"retry-after": str(seconds)})
        case RateLimitError(code=code, headers=headers):
            return Problem(429, str(error), code=code, headers=headers)
        case UsageError():
            return Problem(400, str(error))
        case EngineError():
            return _engine_problem(error)
    return Problem(502, str(error), code="engine_error")


def _engine_problem(error: EngineError) -> Problem:
    """Clients see a refusal of their request; that an upstream refused our key or failed is the server's trouble, and
    on which machine, only the operator's to know."""
    status, message = error.status, error.message
    if status is None:
        return Problem(502, message, code="engine_error", where=error.where)
    where = f"{error.where}: HTTP {status}" if error.where else ""
    if status in (400, 404, 413, 422):
        return Problem(400, message, code="upstream_refused", where=where)
    if status in (429, 503):
        return Problem(503, message, code="upstream_busy", headers={"retry-after": "5"}, where=where)
    return Problem(502, message, code="upstream_error", where=where)

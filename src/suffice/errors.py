"""Every exception that Suffice raises on purpose.

SufficeError
├── UsageError            a flag, a setting or a file is wrong, and the caller can put it right
│   ├── DataError         a dataset, or one row of it, cannot be read
│   └── ModelError        a model, an adapter or a tokenizer cannot be found or loaded
├── PromptTooLongError    this prompt leaves no room for an answer
├── QueueFullError        too many requests are waiting, or one has waited too long
├── RateLimitError        a key has used up one of its limits
├── StorageAwayError      the storage of limits that replicas share did not answer
├── StoreError            the database did not do what it was asked
│   ├── StoreAwayError    it cannot be reached, or is too busy
│   ├── StoreBrokenError  it refuses until an operator has mended it
│   └── RejectedRowError  it does not take this row
├── Problem               a request that the server refuses, with its HTTP status (serve/http/errors.py)
├── CannotContinueError   this engine cannot continue an answer whose reservation was used up
└── EngineError           generation failed on the way; nothing the caller wrote is wrong

The message of each is one line for a person: what is wrong, with what value, and what to do. `first_line` makes such a
line of an exception of another library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = [
    "CannotContinueError",
    "DataError",
    "EngineError",
    "ModelError",
    "PromptTooLongError",
    "QueueFullError",
    "RateLimitError",
    "RejectedRowError",
    "StorageAwayError",
    "StoreAwayError",
    "StoreBrokenError",
    "StoreError",
    "SufficeError",
    "UsageError",
    "first_line",
    "packages_of",
]


class SufficeError(Exception):
    """Anything that Suffice reports instead of a traceback."""


class UsageError(SufficeError):
    """A flag, a setting or a file is wrong, and the caller can put it right."""


class DataError(UsageError):
    """A dataset, or one row of it, cannot be read."""


class ModelError(UsageError):
    """A model, an adapter or a tokenizer cannot be found or loaded."""


class PromptTooLongError(SufficeError):
    """The prompt fills the context, so that no token is left for an answer."""

    def __init__(self, prompt_tokens: int, limit: int, limit_name: str) -> None:
        """Both numbers are tokens, the chat template's included; the limit's name is one that callers know."""
        super().__init__(
            f"the prompt has {prompt_tokens} tokens and {limit_name} is {limit}, which leaves no room for an answer: "
            "shorten the prompt or raise the limit"
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class QueueFullError(SufficeError):
    """There is no room to wait, or the wait was too long."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Whole seconds after which it is worth trying again."""


class RateLimitError(SufficeError):
    """A key has used up one of its limits."""

    def __init__(self, message: str, code: str, headers: Mapping[str, str]) -> None:
        """`code` is a word for programs; `headers` tell an HTTP client about its limits."""
        super().__init__(message)
        self.code, self.headers = code, headers


class StorageAwayError(SufficeError):
    """The storage of limits that replicas share did not answer in time."""


class StoreError(SufficeError):
    """The database did not do what it was asked; `reason` is the first line of what it says."""

    what = "the database failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{self.what} ({reason})")
        self.reason = reason


class StoreAwayError(StoreError):
    """The database cannot be reached, or is too busy: the same call may succeed later."""

    what = "the database is away"


class StoreBrokenError(StoreError):
    """The database refuses (a column or a table is missing, a permission) until an operator has mended it."""

    what = "the database refuses, until it is mended"


class RejectedRowError(StoreError):
    """The database does not take this row: a value is too long for its column, for instance."""

    what = "the database rejects a row"


class CannotContinueError(SufficeError):
    """An engine cannot continue an answer whose reservation was used up; the message says why."""


class EngineError(SufficeError):
    """Generation failed on the engine's side: a server error, a time-out, a dropped connection, a device error."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        where: str = "",
        retry_after: float | None = None,
        permanent: bool = False,
    ) -> None:
        """
        Args:
            message: one line for a person who may be a stranger, so it names no machine.
            status: the HTTP status, where a server answered with one.
            where: the machine, for the operator; it stands before the message.
            retry_after: seconds after which the server wants to be asked again, where it says so.
            permanent: the server says that waiting does not help (an account has no credit).
        """
        super().__init__(f"{where}: {message}" if where else message)
        self.message, self.status, self.where = message, status, where
        self.retry_after, self.permanent = retry_after, permanent
        self.may_retry = False
        """Whether the same request can be submitted again at once: another upstream may answer it."""
        self.recovers = False
        """Whether the same engine is coming back, so that the request may be submitted to it again, and waits."""

    def in_words(self, message: str) -> EngineError:
        """The same error with another message."""
        return EngineError(
            message, status=self.status, where=self.where, retry_after=self.retry_after, permanent=self.permanent
        )


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its class, where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def packages_of(extra: str, needing: str) -> Iterator[None]:
    """Around imports of an extra's packages: where one is missing, `needing` (`training needs`) begins the message."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("suffice"):
            raise
        raise UsageError(f"{needing} the package {error.name}: pip install 'suffice[{extra}]'") from None

"""What a caller wants: a prompt, its limits, and how it is to be answered."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeVar

from suffice.budget import Limits
from suffice.deprecated import warn_deprecated
from suffice.engines.base import Attempt, OnRunaway, Sampling
from suffice.errors import UsageError
from suffice.prompt import Prompt

__all__ = ["OnRunaway", "Request"]

_OLD_FIELDS = frozenset({"messages", "prompt_ids", "tools", "on_length", "first_reservation"})

_T = TypeVar("_T")


def _accept_old_fields(cls: type[_T]) -> type[_T]:
    """Let a request be made of text or messages, and with the fields of earlier versions."""
    init: Any = cls.__init__

    def __init__(self: Any, prompt: Any = None, **fields: Any) -> None:  # noqa: N807
        if old := sorted(_OLD_FIELDS & fields.keys()):
            warn_deprecated(f"Request({'=, '.join(old)}=)", "prompt=Prompt(...) and reservation=")
            prompt = _prompt_of(prompt, fields)
            fields |= _reservation_of(fields)
        init(self, Prompt.of(() if prompt is None else prompt), **fields)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def _prompt_of(given: Any, fields: dict[str, Any]) -> Prompt:
    messages, ids = tuple(fields.pop("messages", ())), tuple(fields.pop("prompt_ids", ()))
    tools = tuple(fields.pop("tools", ()))
    if messages and given is not None:
        raise UsageError("give either messages or a prompt, and not both")
    if isinstance(given, Prompt):
        return given
    return Prompt(messages, raw=None if ids else given, ids=ids, tools=tools)


def _reservation_of(fields: dict[str, Any]) -> dict[str, Any]:
    on_length, first = fields.pop("on_length", "continue"), fields.pop("first_reservation", "auto")
    if on_length != "stop":
        return {"reservation": first} if first != "auto" else {}
    if first != "auto":
        raise UsageError(
            f'first_reservation is {first} and on_length is "stop": a prediction never cuts an answer, so give '
            "max_new_tokens to end it there, or leave out on_length"
        )
    return {"reservation": "full"}


@_accept_old_fields
@dataclass(frozen=True, slots=True)
class Request(Limits):
    """What a caller wants: its limits, and all else. All fields but `prompt` are given by name."""

    prompt: Prompt
    """A conversation, raw text or tokens. A conversation that ends with the assistant's message is continued."""
    _: KW_ONLY
    model: str = ""
    """Which of the engine's models is asked (`Capabilities.models`), where it has several; '' for the usual one."""
    sampling: Sampling = field(default_factory=Sampling)
    stop_words: tuple[str, ...] = ()
    keep_stop_words: bool = False
    """Leave the stop word that ended the answer in the text."""
    reservation: int | Literal["auto", "full"] = "auto"
    """Tokens to set aside at first; an answer that needs more is continued, unnoticed, up to the budget's cap. `auto`
    takes what is predicted (`Budget.reservation`) where that saves anything, `full` sets the whole cap aside."""
    on_runaway: OnRunaway = "stop"
    """When the answer becomes a loop: `stop` it, `warn` only (a `Repetition` comes, and it goes on), or `off`. It is
    off by itself under `ignore_eos`, and until there are `min_tokens` (`RunawayPolicy`)."""
    max_thinking_tokens: int | None = None
    """The most tokens of thinking, on top of the answer's budget; None lets thinking take three quarters of that. What
    is longer is closed, and the answer is written."""
    logprobs: int | None = None
    """Say how likely each token was, and this many others in its place; None says nothing."""
    progress: bool = False
    """Whether `Progress` events are wanted, one every 16 tokens."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields for an OpenAI-compatible server (`tool_choice`, `response_format` ...), passed on as they are."""
    client: str | None = None
    """Who asks: whatever tells one caller from another. The length model tells them apart; kept as a hash alone."""
    route: str | None = None
    """Where it was asked: a path, a command, an application."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    """`traceparent` and `tracestate` (W3C Trace Context), passed on to a server."""
    may_restart: Callable[[], bool] | None = field(default=None, compare=False)
    """Whether nothing of the answer has been used yet, so that it may begin again on another engine when the one that
    writes it fails; it is asked at that moment, and a `Restarted` event follows."""
    attempts: list[Attempt] = field(default_factory=list, compare=False)
    """Which engines were asked, the latest last: filled while the request is answered."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def check(self) -> None:
        """Refuse fields that make no sense, but for those that the budget looks at.

        Raises:
            UsageError: with the field, its value, and what it may be.
        """
        if self.max_thinking_tokens is not None and self.max_thinking_tokens < 0:
            raise UsageError(f"max_thinking_tokens is {self.max_thinking_tokens}: give a number of tokens from 0")
        if isinstance(self.reservation, int) and self.reservation < 1:
            raise UsageError(f'reservation is {self.reservation}: give a number of tokens from 1, "auto" or "full"')

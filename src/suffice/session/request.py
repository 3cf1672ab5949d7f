"""What a caller wants."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from suffice.engines.base import Message, Sampling
from suffice.errors import UsageError

__all__ = ["OnLength", "OnRunaway", "Request"]

OnLength = Literal["continue", "stop"]
OnRunaway = Literal["stop", "warn", "off"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants. Exactly one of `messages` and `prompt` is given."""

    messages: tuple[Message, ...] = ()
    """A conversation. If it ends with an assistant's message, that message is continued."""
    prompt: str | None = None
    """Raw text to go on with, without a chat template."""
    prompt_ids: tuple[int, ...] = ()
    """The same as tokens, with an empty `prompt`."""
    max_new_tokens: int | Literal["auto"] = "auto"
    """The most tokens that the answer may have; `auto` lets the budget decide."""
    max_length: int | None = None
    """The most tokens that prompt and answer may have together."""
    tier: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    stop_words: tuple[str, ...] = ()
    keep_stop_words: bool = False
    """Leave the stop word that ended the answer in the text."""
    on_length: OnLength = "continue"
    """When the first reservation is used up: `continue` goes on unnoticed, up to the budget's cap; with `stop` the
    whole cap is reserved at once, so that there is nothing to continue."""
    first_reservation: int | Literal["auto"] = "auto"
    """Tokens to set aside at first; `auto` takes what is predicted (`Budget.reservation`) where that saves anything."""
    on_runaway: OnRunaway = "stop"
    """When the answer becomes a loop: `stop` it and cut it back to the loop's first turn, `warn` only, or `off`."""
    max_thinking_tokens: int | None = None
    """The most tokens of thinking, on top of the answer's budget; None lets thinking take three quarters of that. What
    is longer is closed, and the answer is written."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions that the answer may call, in OpenAI's shape."""
    logprobs: int | None = None
    """Say how likely each token was, and this many others in its place; None says nothing."""
    progress: bool = False
    """Whether `Progress` events are wanted, one every 16 tokens."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields for an OpenAI-compatible server (`tool_choice`, `response_format` ...), handed on as they are."""
    client: str | None = None
    """Who asks: whatever tells one caller from another. The length model tells them apart; kept as a hash alone."""
    route: str | None = None
    """Where it was asked: a path, a command, an application."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    """`traceparent` and `tracestate` (W3C Trace Context), handed on to a server."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def check(self) -> None:
        """Refuse fields that make no sense, but for those that the budget looks at.

        Raises:
            UsageError: with the field, its value, and what it may be.
        """
        if self.max_thinking_tokens is not None and self.max_thinking_tokens < 0:
            raise UsageError(f"max_thinking_tokens is {self.max_thinking_tokens}: give a number of tokens from 0")
        if self.first_reservation != "auto" and self.first_reservation < 1:
            raise UsageError(
                f'first_reservation is {self.first_reservation}: give a number of tokens from 1, or "auto"'
            )
        if self.first_reservation != "auto" and self.on_length == "stop":
            raise UsageError(
                f'first_reservation is {self.first_reservation} and on_length is "stop": a prediction never cuts an '
                'answer, so give max_new_tokens to end it there, or on_length="continue"'
            )

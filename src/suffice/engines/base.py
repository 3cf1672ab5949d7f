"""What every engine is asked, and what it answers. It knows nothing about budgets, stop words in text, or callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypedDict

__all__ = [
    "Capacity",
    "Chunk",
    "Engine",
    "Finish",
    "GenerationRequest",
    "Health",
    "Message",
    "Sampling",
    "TokenCount",
    "Usage",
]


class Message(TypedDict):
    """One turn of a conversation, in OpenAI's shape."""

    role: str
    content: Any


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. `None` means: as the model's `generation_config.json` (or the server) says."""

    temperature: float | None = None
    """0 is greedy: always the likeliest token."""
    top_p: float | None = None
    """Keep the smallest set of tokens whose probability reaches this (0-1]."""
    top_k: int | None = None
    """Keep this many of the likeliest tokens; 0 keeps all."""
    repetition_penalty: float | None = None
    """Above 1 makes tokens that were already used less likely."""
    seed: int | None = None
    """Makes sampling repeatable where the engine can."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to generate. Exactly one of `messages` and `prompt` is given."""

    id: str
    max_new_tokens: int
    messages: tuple[Message, ...] = ()
    """A conversation, to which the model's chat template is applied."""
    prompt: str | None = None
    """Raw text to go on with, no template applied (OpenAI's completions)."""
    sampling: Sampling = field(default_factory=Sampling)
    stop_tokens: tuple[str, ...] = ()
    """Words that end the answer *if* they are one special token of the vocabulary (they never show up in text). Others
    are not the engine's business."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of an OpenAI-compatible server's own API, sent to it as they are. Other engines have no use for them."""


FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Finish:
    """Why an answer ended."""

    reason: FinishReason
    by: str = ""
    """What ended it: `end_token`, `stop_word`, a limit (`caller`, `tier`, `context`, `memory`, `auto`, `model`)."""
    what: str = ""
    """The end token, the stop word, the limit's value or the error, for a person to read."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that one answer took."""

    prompt_tokens: int
    answer_tokens: int
    exact: bool = True
    """False where the engine did not say and the numbers are counted from what arrived."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer, as the engine produces it. `text` never holds half a character."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    """Empty where the engine gives only text."""
    finish: Finish | None = None
    """Set on the last chunk, and only there. The engine knows `stop` (end token) and `length`."""
    usage: Usage | None = None
    """On the last chunk, where the engine knows it."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine can hold, in tokens. `None` where it does not say."""

    context_tokens: int | None
    """The longest prompt + answer."""
    kv_tokens: int | None
    """Tokens that fit into the KV cache, all running requests together."""
    default_max_new_tokens: int | None = None
    """The model's own default from `generation_config.json`."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Length of a prompt after the chat template, in tokens."""

    tokens: int
    exact: bool = True
    """False for an estimate, where the tokenizer is not known."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether an engine can take requests now."""

    ok: bool
    detail: str = ""


class Engine(Protocol):
    """Who generates. Used as `async with engine:`; many tasks of one event loop may call every method at once."""

    @property
    def model_name(self) -> str:
        """The model's name, as a person would say it."""
        ...

    def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one answer, chunk by chunk; the last chunk has `finish`.

        Closing the iterator early (`aclose`, a cancelled task) cancels the generation at once.

        Raises:
            EngineError: generation failed; what was yielded before stays valid.
        """
        ...

    async def cancel(self, request_id: str) -> None:
        """End a running request; its iterator finishes with `cancelled`. Unknown ids are ignored."""
        ...

    def capacity(self) -> Capacity:
        """What fits."""
        ...

    async def count_tokens(self, messages: Sequence[Message], prompt: str | None = None) -> TokenCount:
        """Tokens of the conversation with the chat template applied (or of the raw `prompt`)."""
        ...

    async def health(self) -> Health:
        """Whether requests can be taken now."""
        ...

    async def __aenter__(self) -> Engine: ...

    async def __aexit__(self, *error: object) -> None: ...

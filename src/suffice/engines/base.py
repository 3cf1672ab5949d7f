"""What every engine is asked, and what it answers. It knows nothing about budgets, stop words in text, or callers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, runtime_checkable

from suffice.deprecated import renamed, warn_deprecated
from suffice.errors import EngineError, UsageError
from suffice.immutable import immutable
from suffice.prompt import Message, Prompt
from suffice.watch import Notice, RunawayKind

__all__ = [
    "AnswerPrefix",
    "Attempt",
    "Capabilities",
    "Chunk",
    "Engine",
    "Finish",
    "GenerationRequest",
    "Health",
    "Message",
    "OnRunaway",
    "Repetition",
    "Sampling",
    "SamplingField",
    "TakesMemory",
    "TokenCount",
    "TokenLogprob",
    "Usage",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingField:
    """One parameter of sampling: flags, request bodies and checks are made of this."""

    name: str = ""
    type: type[int] | type[float]
    low: float | None = None
    """The least value; None for any."""
    high: float | None = None
    open_low: bool = False
    """Whether values are above `low`, which is not one of them itself."""
    api_range: tuple[float, float] = (0, 0)
    """The least and the most that a client of the server may ask for."""
    help: str

    @property
    def range(self) -> str:
        """In words; '' for any value."""
        if self.low is None:
            return ""
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        return low if self.high is None else f"{low} to {self.high:g}"

    def check(self, value: float) -> None:
        """Refuse a value out of range.

        Raises:
            UsageError: with the name, the value and the range.
        """
        below = self.low is not None and (value <= self.low if self.open_low else value < self.low)
        if below or value != value or (self.high is not None and value > self.high):
            raise UsageError(f"{self.name} is {value:g}: give a number {self.range or 'that is one'}")


def _parameter(kind: type[int] | type[float], help: str, **limits: Any) -> Any:  # noqa: A002
    return field(default=None, metadata={"sampling": SamplingField(type=kind, help=help, **limits)})


@immutable
class Sampling:
    """How the next token is drawn. `None` means: as the model's `generation_config.json` (or the server) says.

    A parameter is added here, and in `engines.local.sampling`, which acts on it. Servers get all of them.
    """

    temperature: float | None = _parameter(float, "0 always takes the likeliest token.", low=0, api_range=(0, 2))
    top_p: float | None = _parameter(
        float, "Keep the likeliest tokens up to this probability.", low=0, high=1, open_low=True, api_range=(0, 1)
    )
    top_k: int | None = _parameter(
        int, "Keep this many of the likeliest tokens; 0 keeps all.", low=0, api_range=(0, 2**31)
    )
    repetition_penalty: float | None = _parameter(
        float, "Above 1 makes used tokens less likely.", low=0, open_low=True, api_range=(0, 10)
    )
    seed: int | None = _parameter(
        int, "Makes sampling repeatable where the engine can.", api_range=(-(2**63), 2**63 - 1)
    )

    @staticmethod
    def fields() -> tuple[SamplingField, ...]:
        return _SAMPLING_FIELDS


_SAMPLING_FIELDS = tuple(replace(each.metadata["sampling"], name=each.name) for each in fields(Sampling))


@dataclass(frozen=True, slots=True)
class AnswerPrefix:
    """What there is of an answer already, for an engine to continue."""

    text: str
    token_ids: tuple[int, ...] = ()
    """The tokens of `text` where they are known: the engine then continues these tokens and tokenizes nothing again."""
    prompt_ids: tuple[int, ...] = ()
    """The tokens of the prompt, where a server has told them."""
    reasoned: bool = False
    """Whether a server has taken thinking out of `text`."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One engine that was asked for an answer: one entry for each try."""

    upstream: str
    """The engine's name; '' where there was no engine to ask."""
    request_id: str
    """Which answer was asked for: several answers to one request may share a list of attempts."""
    error: EngineError | None = None
    """Why it failed; None for an attempt that did not."""
    engine: object = field(default=None, repr=False)
    """The engine itself: several may have the same name."""


@immutable
class GenerationRequest:
    id: str
    prompt: Prompt
    """What the model is asked. A conversation that ends with the assistant's message is continued."""
    max_new_tokens: int
    """The most tokens to generate, those of `prefix` not counted."""
    model: str = ""
    """Which of `Capabilities.models`; '' for the engine's own choice."""
    logprobs: int | None = None
    """Say how likely each token was, and this many others in its place; None says nothing."""
    sampling: Sampling = field(default_factory=Sampling)
    stop_tokens: tuple[str, ...] = ()
    """Words that end the answer *if* they are one special token of the vocabulary (they never show up in text). Others
    are not the engine's business."""
    reservation: int | None = None
    """Tokens to set aside at first, for an engine that sets any aside; None for `max_new_tokens`. An engine that can
    grows it by itself, unnoticed; another ends with `length` by `reservation`, and is asked to continue (`prefix`)."""
    prefix: AnswerPrefix | None = None
    """Continue this instead of beginning an answer; it comes from `Engine.resume_point`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More fields for an OpenAI-compatible server (`tool_choice`, `response_format` ...), as they are."""
    on_runaway: OnRunaway | None = None
    """For a server that watches its answers itself; None leaves it to what the server does."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    """Headers for a server that takes part in the caller's trace."""
    attempts: list[Attempt] = field(default_factory=list, hash=False, compare=False)
    """Which engines were asked, the latest last; the code that picks an engine appends to it."""

    @property
    def first_cap(self) -> int:
        """Tokens that an engine which cannot grow a reservation may generate before it has to be asked to continue."""
        return min(self.max_new_tokens, self.reservation or self.max_new_tokens)


OnRunaway = Literal["stop", "warn", "off"]
"""What is done about an answer that repeats itself: stop it, only tell, or do not look."""


@dataclass(frozen=True, slots=True)
class Repetition:
    """The answer repeats itself, or goes far beyond what was asked for (`kind`). Nothing of it is taken back; `copies`
    says what is there twice."""

    onset: int
    """Where the loop begins, in `unit`; where it is no loop to the letter, the last item."""
    period: int
    """The length of its first turn, or of that item."""
    unit: Literal["tokens", "characters"]
    copies: tuple[int, int] | None = None
    """Where the copies of its first turn stand in the answer's text, as characters before their beginning and before
    their end; None where there are none, or not in the text."""
    stopped: bool = True
    """Whether the generation was stopped for it (`on_runaway="stop"`)."""
    thinking: bool = False
    """Whether it is the thinking that loops: its block is closed then, and the answer follows."""
    kind: RunawayKind = "verbatim"

    @property
    def dropped(self) -> int:
        """Always 0: a loop was once cut back to its first turn."""
        warn_deprecated("Repetition.dropped", "Repetition.copies")
        return 0

    @property
    def dropped_logprobs(self) -> int:
        """Always 0, as `dropped`."""
        warn_deprecated("Repetition.dropped_logprobs", "Repetition.copies")
        return 0


FinishReason = Literal["stop", "length", "cancelled", "error"]


@immutable
class Finish:
    """Why an answer ended."""

    reason: FinishReason
    by: str = ""
    """What ended it: `end_token`, `stop_word`; a limit (`caller`, `tier`, `context`, `memory`, `auto`, `model`;
    `reservation`, where an engine could not continue after its first one); or a loop, which is `length` by
    `repetition`."""
    what: str = ""
    """The end token, the stop word, the limit's value or the error, for a person to read."""
    told: tuple[Repetition | Notice, ...] = ()
    """What a server that watches its answers itself (another Suffice) has told of this one."""

    @property
    def looped(self) -> bool:
        """Whether it was stopped because it repeated itself: `length` by `repetition`, for it is not complete."""
        return self.by == "repetition"

    @property
    def cut(self) -> bool:
        """Whether a limit ended it, so that with a larger one there would be more. A loop would only go on."""
        return self.reason == "length" and not self.looped


@immutable
class Usage:
    prompt_tokens: int
    answer_tokens: int
    """Everything that was generated, thinking included: what `max_new_tokens` counts and servers bill."""
    exact: bool = True
    """False where the engine did not say and the numbers are counted from what arrived."""
    thinking_tokens: int = 0
    """How many of `answer_tokens` were thinking."""


@immutable
class TokenLogprob:
    """One token of an answer, and how likely the model thought it."""

    token: str
    """Its text; U+FFFD for an incomplete character."""
    logprob: float
    """The natural logarithm of its probability, before temperature and penalties where the engine can tell."""
    data: tuple[int, ...] | None = None
    """Its bytes in UTF-8; None where they are not known."""
    others: tuple[TokenLogprob, ...] = ()
    """The likeliest tokens in its place."""


@immutable
class Chunk:
    """A piece of an answer, as the engine produces it. `text` never holds half a character."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    """Empty where the engine gives only text."""
    lengths: tuple[int, ...] = ()
    """Characters of `text` that came with each of `token_ids`, where the engine knows."""
    reasoning: str = ""
    """Thinking that a server has taken out of the text (`reasoning_content`); it comes before this chunk's `text`."""
    prompt_ids: tuple[int, ...] = ()
    """The prompt's tokens, on the first chunk of a server that tells them."""
    thinking: bool = False
    """On the first chunk: the prompt has opened a block of thinking, and the text begins inside it."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Pieces of tool calls, as OpenAI's streams have them: `index`, `id`, `function.name`, more of
    `function.arguments`. They come after this chunk's `text`."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens of `text`, where the request wants them."""
    finish: Finish | None = None
    """Set on the last chunk, and only there. The engine knows `stop` (end token) and `length`."""
    usage: Usage | None = None
    """On the last chunk, where the engine knows it."""

    @property
    def tokens(self) -> int:
        """Tokens in it: by their ids, or one for each piece of text, thinking or tool calls without ids."""
        return len(self.token_ids) or bool(self.text) + bool(self.reasoning) + bool(self.tool_calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine can do, and what it holds, in tokens. `None` where it does not say."""

    context_tokens: int | None = None
    """The longest prompt + answer."""
    kv_tokens: int | None = None
    """Tokens that fit into the KV cache, all running requests together."""
    default_max_new_tokens: int | None = None
    """The model's own default from `generation_config.json`."""
    charges: Literal["nothing", "reservation", "cap"] = "nothing"
    """What a request costs in KV tokens when it is admitted: nothing (vLLM: it takes pages as it goes), its
    reservation, which the engine grows by itself, or all of its cap, so that a smaller one at first pays even where
    continuing costs another request."""
    calls_in_text: bool = False
    """Tool calls stand in the text as the model writes them; servers take them out."""
    counts_tokens: bool = True
    """Whether `count_tokens` may be exact; where it cannot, it need not be asked."""
    ignores_end_tokens: bool = False
    """It goes on to the cap whatever the model says, as for measurements: then a loop is no mistake."""
    forwards_unknown_fields: bool = False
    """Whether fields that Suffice does not know (`GenerationRequest.extra`) go to a server that may know them."""
    models: tuple[str, ...] = ()
    """Names that a request may ask for, where there are several, such as those of adapters; the first is the usual."""
    usual_concurrency: int = 64
    """Requests at once that keep the engine busy, for callers who have many to ask."""


@immutable
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
    recovering: bool = False
    """It will be ok again without anybody's doing, and a request that is submitted now waits for that."""


@runtime_checkable
class TakesMemory(Protocol):
    """An engine that takes memory by what it is told to expect."""

    def expect(self, *, requests: int, tokens: int) -> None:
        """Say what will be asked, before the first request.

        Args:
            requests: at once.
            tokens: of the longest of them, prompt and answer.
        """


class Engine(Protocol):
    """What generates. Used as `async with engine:`; many tasks of one event loop may call every method at once."""

    @property
    def model_name(self) -> str:
        """The model's name, as a person would say it."""

    @property
    def decode_token(self) -> Callable[[int], str] | None:
        """The text of one token, always the same function; None where only the server knows."""

    def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        """Generate one answer, chunk by chunk; the last chunk has `finish`.

        Closing the iterator early (`aclose`, a cancelled task) cancels the generation at once.

        Raises:
            EngineError: generation failed; what was yielded before stays valid.
        """

    async def resume_point(self, request: GenerationRequest, written: AnswerPrefix, then: str = "") -> AnswerPrefix:
        """Where an answer that has ended can be continued, as `GenerationRequest.prefix`.

        Args:
            request: what was asked for.
            written: all of the answer so far.
            then: text to put behind it (the end of a block of thinking).

        Returns:
            `written` without an unfinished character at its end, which the engine will write again, and with `then`.

        Raises:
            CannotContinueError: with the reason.
            EngineError: the engine failed.
        """

    def capabilities(self) -> Capabilities: ...

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """Tokens of the prompt: a conversation with the chat template applied, tools included."""

    async def health(self) -> Health: ...

    async def __aenter__(self) -> Engine: ...

    async def __aexit__(self, *error: object) -> None: ...


__getattr__ = renamed(__name__, {"Prefix": "AnswerPrefix", "Capacity": "Capabilities"})

"""What a client asked for, read from its JSON. Knows nothing about HTTP or the shapes of APIs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self, TypedDict

from suffice.engines.base import OnRunaway
from suffice.immutable import immutable
from suffice.session import Request

__all__ = ["ApiRequest", "RequestOrigin"]

_LOWEST_SEED, _SEEDS = -(2**63), 2**64  # seeds are whole numbers of 64 bits


class RequestOrigin(TypedDict):
    """What a request has beside its JSON, as fields of the session's `Request`."""

    id: str
    client: str | None
    """For the length model."""
    route: str
    trace_context: dict[str, str]
    """Headers that make an upstream's spans part of the caller's trace."""
    may_restart: Callable[[], bool]
    """Whether nothing has been sent, so that the answer may begin again on another engine."""


@immutable
class ApiRequest:
    prompts: tuple[Request, ...]
    model: str | None = None
    tier: str | None = None
    n: int = 1
    """Answers to each prompt."""
    stream: bool = False
    include_usage: bool = False
    """End a stream with a chunk of token counts."""
    strict: bool = False
    """Refuse instead of clamping."""
    on_runaway: OnRunaway | None = None
    """What to do about an answer that repeats itself, where the client says."""
    runaway_said: tuple[tuple[str, str], ...] = ()
    """What is done about loops, and whose word that is, where the client is told: fields of the `suffice` object."""
    ignored: tuple[str, ...] = ()
    """Names of fields that nothing here reads."""

    @property
    def request(self) -> Request:
        """That of the first prompt."""
        return self.prompts[0]

    def requests(self) -> tuple[Request, ...]:
        """One for each answer. Where there are several, each has its own id, and its own seed where one is given, so
        that the answers to one prompt differ, and all of it can be repeated."""
        if self.n == len(self.prompts) == 1:
            return self.prompts
        return tuple([self._numbered(index) for index in range(self.n * len(self.prompts))])

    def for_model(self, name: str) -> Self:
        """The same, asked of this one of the models that are served."""
        return replace(self, model=name, prompts=tuple([replace(each, model=name) for each in self.prompts]))

    def with_trace_context(self, context: Mapping[str, str]) -> Self:
        return replace(self, prompts=tuple([replace(each, trace_context=context) for each in self.prompts]))

    def _numbered(self, index: int) -> Request:
        request = self.prompts[index // self.n]
        sampling = request.sampling
        if sampling.seed is not None:
            seed = _LOWEST_SEED + (sampling.seed + index % self.n - _LOWEST_SEED) % _SEEDS
            sampling = replace(sampling, seed=seed)
        return replace(request, id=f"{request.id}/{index}", sampling=sampling)

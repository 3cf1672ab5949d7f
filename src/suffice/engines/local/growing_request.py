"""A running request whose reservation grows while it is answered, so that continuing costs nothing at all."""

from __future__ import annotations

from typing import Any

from transformers.generation.continuous_batching.requests import RequestState

from suffice.engines.local.logprobs import LogprobRecorder

__all__ = ["GrowingRequest"]


class GrowingRequest(RequestState):
    """A request of transformers' manager that starts with a small limit and raises it, up to `max_new_tokens`.

    The generation thread asks for the limit just before the last token that it allows, so nothing is paused, sent or
    computed again. A request that loses its cache under memory pressure starts again with all that it has generated
    as its prompt, as transformers has it, and with a reservation of the same size. `recorder` is told how likely the
    answer's tokens are; `settings` are those of `RequestState`.
    """

    def __init__(self, *, reservation: int, recorder: LogprobRecorder | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.recorder = recorder
        self._reservation = max(1, reservation)
        self._new_tokens_limit = min(self._reservation, self._cap)

    @property
    def reserved_tokens(self) -> int:
        """Tokens of the answer that are set aside now."""
        return self._new_tokens_limit

    def update_and_check_completion(self, token_id: int, logprob: float | None) -> bool:
        if self.generated_len() + 1 >= self._new_tokens_limit < self._cap:
            self._new_tokens_limit = min(self._cap, 2 * self._new_tokens_limit)
        return bool(super().update_and_check_completion(token_id, logprob))

    def create_equivalent_initial_request(self) -> RequestState:
        """The request that takes this one's place when its cache has been given to others."""
        plain = super().create_equivalent_initial_request()
        again = GrowingRequest(
            reservation=self._reservation,
            recorder=self.recorder,
            request_id=plain.request_id,
            initial_tokens=plain.initial_tokens,
            logprobs=plain.logprobs,
            **plain.get_request_config(),
        )
        again._true_initial_tokens = plain._true_initial_tokens
        return again

    @property
    def _cap(self) -> int:
        assert self.max_new_tokens is not None
        return int(self.max_new_tokens)

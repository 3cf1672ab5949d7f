"""How likely the tokens of one answer are: noted in the generation thread, read in the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from suffice.engines.base import TokenLogprob

__all__ = ["LogprobRecorder"]

_NEVER = -9999.0  # stands for minus infinity, which JSON does not have; vLLM writes the same


class LogprobRecorder:
    """The log-probabilities of one answer, by the place of each token: a step that has to be run again notes it again.

    Args:
        others: likeliest tokens to note in each place.
        describe: a token's text and bytes.
    """

    def __init__(self, prompt_tokens: int, others: int, describe: Callable[[int], tuple[str, bytes]]) -> None:
        self.others = others
        self._prompt_tokens, self._describe = prompt_tokens, describe
        self._noted: dict[int, tuple[float, Mapping[int, float]]] = {}

    def note(self, place: int, logprob: float, top: Mapping[int, float]) -> None:
        """Take one token's, and the likeliest in its place; tokens before it make its place, the prompt's included."""
        self._noted[place] = logprob, top

    def of(self, tokens: Sequence[int], begin: int) -> tuple[TokenLogprob, ...]:
        """Those of some tokens of the answer, before which `begin` others come; each is read once."""
        found = []
        for place, token in enumerate(tokens, self._prompt_tokens + begin):
            logprob, top = self._noted.pop(place)
            others = tuple(self._entry(other, value) for other, value in top.items())
            found.append(self._entry(token, logprob, others))
        return tuple(found)

    def _entry(self, token: int, logprob: float, others: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        text, data = self._describe(token)
        return TokenLogprob(text, max(logprob, _NEVER), tuple(data), others)

"""How likely the tokens of one answer are: noted in the generation thread, read in the event loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from suffice.engines.base import TokenLogprob

__all__ = ["Describe", "LogprobRecorder"]

Describe = Callable[[int], tuple[str, bytes]]
"""A token's text and bytes."""

_NEVER = -9999.0  # stands for minus infinity, which JSON has not; vLLM writes the same


class LogprobRecorder:
    """The log-probabilities of one answer, by the place of each token: a step that has to be run again notes it again.

    Args:
        prompt_tokens: tokens before the answer.
        others: likeliest tokens to note in each place.
        describe: for people to read.
    """

    def __init__(self, prompt_tokens: int, others: int, describe: Describe) -> None:
        self.others = others
        self._prompt_tokens, self._describe = prompt_tokens, describe
        self._noted: dict[int, tuple[float, Mapping[int, float]]] = {}

    def note(self, place: int, logprob: float, top: Mapping[int, float]) -> None:
        """Take one token's.

        Args:
            place: tokens before it, the prompt's included.
            logprob: its own.
            top: the likeliest tokens there.
        """
        self._noted[place] = logprob, top

    def of(self, tokens: Sequence[int], begin: int) -> tuple[TokenLogprob, ...]:
        """Of some tokens of the answer, of which `begin` come before them; each is read once."""
        found = []
        for place, token in enumerate(tokens, self._prompt_tokens + begin):
            logprob, top = self._noted.pop(place)
            others = tuple(self._entry(other, value) for other, value in top.items())
            found.append(self._entry(token, logprob, others))
        return tuple(found)

    def _entry(self, token: int, logprob: float, others: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
        text, data = self._describe(token)
        return TokenLogprob(text, max(logprob, _NEVER), tuple(data), others)

"""Next-token choice for requests that share a batch and differ in every sampling parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from suffice.engines.base import Sampling

__all__ = ["BatchSampler", "SamplingParams"]

_SEED_STRIDE = 1_000_003  # a prime, so that neighbouring seeds do not meet at neighbouring positions
_SEED_MASK = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One request's sampling with every default filled in: those fields of `Sampling` that `BatchSampler` acts on."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    repetition_penalty: float = 1.0
    seed: int | None = None

    @classmethod
    def of(cls, asked: Sampling, generation: Any) -> SamplingParams:
        """What a request asks for, else what the model's `generation_config.json` says, else the defaults here.

        Raises:
            UsageError: a value is out of range.
        """
        values: dict[str, Any] = {}
        if not generation.do_sample or not generation.temperature:
            values["temperature"] = 1.0 if generation.do_sample else 0.0
        for each in Sampling.fields():
            value = getattr(asked, each.name)
            if value is not None:
                each.check(value)
            elif each.name not in values:
                value = getattr(generation, each.name, None)
            if value is not None:
                values[each.name] = each.type(value)
        return cls(**values)


class BatchSampler:
    """Takes the place of transformers' `ContinuousBatchingLogitsProcessorList`, which has no penalties, seeds and
    greedy rows for each request.

    The manager always takes the arg-max; for a sampled row the token drawn here is given an infinite score. Tokens are
    drawn by the Gumbel-max trick: argmax(log p - log Exp(1)) is distributed as p.

    A seeded request draws its noise from (seed, position) alone, so other requests in the batch do not disturb it.
    What remains is rounding: logits differ in the last bits with the size of the batch, which can flip a near-tie.
    """

    tensors_required = 0
    do_processing = True

    def __init__(self) -> None:
        self._states: list[Any] = []
        self._seen: dict[str, tuple[torch.Tensor, int]] = {}

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Parameters are checked before a request is submitted."""

    def fill_defaults(self, storage: torch.Tensor) -> None:
        """Nothing is stored in the manager's input tensor."""

    def prepare_tensor_args(self, requests_in_batch: Sequence[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        """Note whose logits the next call gets, in order."""
        self._states = [request.state for request in requests_in_batch if request.has_new_token]
        return arg_storage

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, args: torch.Tensor) -> torch.Tensor:
        """Penalise, draw, and mark what was drawn. Shape of `scores`: [requests, vocabulary]."""
        params = [state.logit_processor_kwargs["sampling"] for state in self._states]
        watched = [row for row, state in enumerate(self._states) if _recorder(state) is not None]
        before = scores[watched].log_softmax(-1) if watched else None
        penalised = [row for row, each in enumerate(params) if each.repetition_penalty != 1]
        self._penalise(scores, penalised, params)
        rows = [row for row, each in enumerate(params) if each.temperature > 0]
        if rows:
            chosen = self._draw(scores[rows], [params[row] for row in rows], [self._states[row] for row in rows])
            scores[rows, chosen] = float("inf")
        if before is not None:
            self._note(before, scores[watched].argmax(-1), [self._states[row] for row in watched])
        return scores

    def _note(self, logprobs: torch.Tensor, chosen: torch.Tensor, states: list[Any]) -> None:
        """Hand over the log-probabilities of what was chosen, and the likeliest others: the model's own, before
        penalties and temperature."""
        for row, token, state in zip(logprobs, chosen.tolist(), states, strict=True):
            recorder = _recorder(state)
            values, tokens = row.topk(min(recorder.others, len(row)))
            top = dict(zip(tokens.tolist(), values.tolist(), strict=True))
            recorder.note(_position(state), float(row[token]), top)

    def _penalise(self, scores: torch.Tensor, rows: list[int], params: list[SamplingParams]) -> None:
        """Divide positive and multiply negative logits of every token used so far (Keskar et al. 2019, CTRL)."""
        self._seen = {self._states[row].request_id: self._used_tokens(self._states[row], scores) for row in rows}
        if not rows:
            return
        used = torch.stack([self._seen[self._states[row].request_id][0] for row in rows])
        penalty = scores.new_tensor([params[row].repetition_penalty for row in rows])[:, None]
        raw = scores[rows]
        scores[rows] = torch.where(used, torch.where(raw > 0, raw / penalty, raw * penalty), raw)

    def _used_tokens(self, state: Any, scores: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Which tokens of the vocabulary prompt and answer hold, and how many tokens that covers; kept between steps,
        so that a step costs its own tokens only."""
        prompt, answer, total = state.initial_tokens, state.generated_tokens, _position(state)
        used, covered = self._seen.get(state.request_id, (None, 0))
        if used is None or covered > total:
            used, covered = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device), 0
        new = prompt[covered:] + answer[max(0, covered - len(prompt)) :]
        used[new] = True
        return used, total

    def _draw(self, logits: torch.Tensor, params: list[SamplingParams], states: list[Any]) -> torch.Tensor:
        vocabulary = logits.shape[-1]
        kept = [each.top_k if 0 < each.top_k < vocabulary else vocabulary for each in params]
        logits = logits / logits.new_tensor([each.temperature for each in params])[:, None]
        if min(kept) == vocabulary and all(each.top_p >= 1 for each in params):
            return (logits - self._noise(logits, kept, params, states).log_()).argmax(dim=-1)
        logits, tokens = logits.topk(max(kept))  # sorted, likeliest first
        if min(kept) < max(kept):
            rank = torch.arange(max(kept), device=logits.device)
            logits.masked_fill_(rank >= torch.tensor(kept, device=logits.device)[:, None], float("-inf"))
        probability = logits.softmax(dim=-1)
        more_likely = probability.cumsum(dim=-1) - probability
        top_p = logits.new_tensor([each.top_p for each in params])[:, None]
        more_likely[:, 0] = -1  # the likeliest token stays, whatever top_p says
        logits.masked_fill_(more_likely >= top_p, float("-inf"))
        choice = (logits - self._noise(logits, kept, params, states).log_()).argmax(dim=-1, keepdim=True)
        return tokens.gather(1, choice)[:, 0]

    def _noise(
        self, logits: torch.Tensor, kept: list[int], params: list[SamplingParams], states: list[Any]
    ) -> torch.Tensor:
        """Exp(1) noise. Seeded rows draw as many numbers as they keep tokens, whatever the others keep."""
        noise = torch.empty_like(logits).exponential_()
        for row, (each, state) in enumerate(zip(params, states, strict=True)):
            if each.seed is not None:
                generator = torch.Generator(logits.device)
                generator.manual_seed((each.seed * _SEED_STRIDE + _position(state)) & _SEED_MASK)
                noise[row, : kept[row]].exponential_(generator=generator)
        return noise


def _recorder(state: Any) -> Any:
    return getattr(state, "recorder", None)


def _position(state: Any) -> int:
    """Of the next token: how many come before it."""
    return len(state.initial_tokens) + len(state.generated_tokens)

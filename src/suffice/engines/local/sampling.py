"""Next-token choice for requests that share a batch and differ in every sampling parameter."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from suffice.engines.base import Sampling
from suffice.engines.local.paged_attention import to_device

__all__ = ["BatchSampler", "SamplingParams", "UsedTokens"]

_MASK = 0xFFFFFFFF  # 32 bits, in numbers of 64


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


_GREEDY = SamplingParams()


@dataclass(slots=True)
class SampledStep:
    """One step's requests that get a token, and what their sampling needs; all of it is known without the device."""

    states: Sequence[Any]
    params: list[SamplingParams]
    positions: list[int]
    """Of the next token of each: how many come before it."""

    def vector(self, values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
        return to_device([*map(float, values)], like.device)[:, None]


class BatchSampler:
    """Takes the place of transformers' `ContinuousBatchingLogitsProcessorList`, which has no penalties, seeds and
    greedy rows for each request.

    The manager always takes the arg-max; for a sampled row the token drawn here is given an infinite score. Tokens are
    drawn by the Gumbel-max trick: argmax(log p - log Exp(1)) is distributed as p.

    All rows are drawn at once, each with parameters of its own, and nothing is read back from the device. The noise is
    a hash of (seed, position, token), so a seeded request is disturbed neither by others in the batch nor by its place
    among them. What remains is rounding: logits differ in the last bits with the size of the batch, which can flip a
    near-tie.
    """

    tensors_required = 0
    do_processing = True

    def __init__(self) -> None:
        self._batch = SampledStep([], [], [])
        self._logits: torch.Tensor | None = None
        self._used = UsedTokens()
        self._random = random.Random(int(torch.randint(2**62, (1,))))
        self._unread: list[tuple[list[Any], list[int], torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Parameters are checked before a request is submitted."""

    def fill_defaults(self, storage: torch.Tensor) -> None:
        """Nothing is stored in the manager's input tensor."""

    def prepare_tensor_args(self, requests_in_batch: Sequence[Any], arg_storage: torch.Tensor) -> torch.Tensor:
        """Note whose logits the next call gets, in order."""
        self.take([request.state for request in requests_in_batch if request.has_new_token])
        return arg_storage

    def take(self, states: Sequence[Any]) -> None:
        """The requests whose logits the next call gets, in order: `RequestState`s, or what has their attributes."""
        params = [state.logit_processor_kwargs.get("sampling", _GREEDY) for state in states]
        self._batch = SampledStep(states, params, [state.position_offset for state in states])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, args: torch.Tensor) -> torch.Tensor:
        """Penalise, draw, and mark what was drawn. Shape of `scores`: [requests, vocabulary]."""
        if self._logits is None:
            self._choose(scores)
        else:
            self._logits[: len(scores)].copy_(scores)
        return scores

    def keep_logits(self, requests: int, vocabulary: int, device: torch.device) -> None:
        """Only keep the logits when called, so that the call can be part of a step that is recorded once for all;
        `choose_kept` follows."""
        self._logits = torch.zeros(requests, vocabulary, device=device)

    def choose_kept(self, tokens: torch.Tensor) -> None:
        """Choose by the logits that were kept, where the arg-max in `tokens` is not the choice already."""
        states, params = self._batch.states, self._batch.params
        watched = any(_recorder(state) is not None for state in states)
        if watched or any(each.temperature > 0 or each.repetition_penalty != 1 for each in params):
            assert self._logits is not None
            rows = self._logits[: len(states)]
            self._choose(rows)
            tokens[: len(states)].copy_(rows.argmax(-1))

    def _choose(self, scores: torch.Tensor) -> None:
        batch = self._batch
        rows = scores[: len(batch.states)]  # what pads a step comes behind
        watched = [row for row, state in enumerate(batch.states) if _recorder(state) is not None]
        places = to_device(watched, rows.device) if watched else None
        before = None if places is None else rows.index_select(0, places).log_softmax(-1)
        penalised = any(each.repetition_penalty != 1 for each in batch.params)
        slots = self._used.slots(batch, rows) if penalised else None
        if slots is not None:
            penalty = batch.vector([each.repetition_penalty for each in batch.params], rows)
            rows.copy_(torch.where(self._used.at(slots), torch.where(rows > 0, rows / penalty, rows * penalty), rows))
        sampled = any(each.temperature > 0 for each in batch.params)
        if sampled:
            rows.scatter_(1, self._draw(rows, batch)[:, None], float("inf"))
        if slots is not None or before is not None:
            chosen = rows.argmax(-1)
            if slots is not None:
                self._used.add(slots, chosen)
            if before is not None and places is not None:
                self._note(before, chosen.index_select(0, places), watched)

    def read_logprobs(self) -> None:
        """Hand over the log-probabilities of the tokens that were chosen, and the likeliest others: the model's own,
        before penalties and temperature. For when the step is over: it waits for the device."""
        for states, positions, chosen, values, tokens in self._unread:
            rows = zip(states, positions, chosen.tolist(), values.tolist(), tokens.tolist(), strict=True)
            for state, position, logprob, likely, ids in rows:
                others = _recorder(state).others
                _recorder(state).note(position, logprob, dict(zip(ids[:others], likely[:others], strict=True)))
        self._unread.clear()

    def forget(self) -> None:
        """Drop what was to be read of a step that has failed."""
        self._unread.clear()

    def _note(self, logprobs: torch.Tensor, chosen: torch.Tensor, watched: list[int]) -> None:
        states = [self._batch.states[row] for row in watched]
        most = min(max(_recorder(state).others for state in states), logprobs.shape[-1])
        values, tokens = logprobs.topk(most)
        positions = [self._batch.positions[row] for row in watched]
        self._unread.append((states, positions, logprobs.gather(1, chosen[:, None])[:, 0], values, tokens))

    def _draw(self, scores: torch.Tensor, batch: SampledStep) -> torch.Tensor:
        """A token for each row; the likeliest where the temperature is 0."""
        params, vocabulary = batch.params, scores.shape[-1]
        # A greedy row keeps one token, and so draws it whatever the noise.
        kept = [
            1 if each.temperature == 0 else each.top_k if 0 < each.top_k < vocabulary else vocabulary for each in params
        ]
        logits = scores / batch.vector([each.temperature or 1.0 for each in params], scores)
        keys = to_device([*map(self._key, params, batch.positions)], scores.device)[:, None]
        if all(number in (1, vocabulary) for number in kept) and all(each.top_p >= 1 for each in params):
            greedy = batch.vector([float(number > 1) for number in kept], scores)
            tokens = torch.arange(vocabulary, device=scores.device)
            return (logits - greedy * _exponential(keys, tokens).log()).argmax(dim=-1)
        logits, tokens = logits.topk(max(kept))  # sorted, likeliest first
        rank = torch.arange(max(kept), device=logits.device)
        probability = logits.masked_fill(rank >= batch.vector(kept, logits), float("-inf")).softmax(dim=-1)
        more_likely = probability.cumsum(dim=-1) - probability
        more_likely[:, 0] = -1  # the likeliest token stays, whatever top_p says
        dropped = (more_likely >= batch.vector([each.top_p for each in params], logits)) | (probability == 0)
        dropped[:, 0] = False
        noisy = (logits - _exponential(keys, tokens).log()).masked_fill_(dropped, float("-inf"))
        return tokens.gather(1, noisy.argmax(dim=-1, keepdim=True))[:, 0]

    def _key(self, params: SamplingParams, position: int) -> int:
        """32 bits that a request's noise at a position is made of."""
        if params.temperature == 0:
            return 0
        if params.seed is None:
            return self._random.getrandbits(32)
        return zlib.crc32(f"{params.seed} {position}".encode())


class UsedTokens:
    """Which tokens the prompts and answers of penalised requests hold: a row of flags for each, kept on the device, so
    that a step costs its own tokens only. Row 0 is for all other requests."""

    def __init__(self) -> None:
        self._flags: torch.Tensor | None = None
        self._rows: dict[str, tuple[int, int]] = {}  # request: its row, and how many tokens that covers
        self._free: list[int] = []

    def slots(self, batch: SampledStep, scores: torch.Tensor) -> torch.Tensor:
        """The row of each request of the step, on the device, with all tokens in it that the request has."""
        present = {state.request_id for state in batch.states}
        for gone in [request for request in self._rows if request not in present]:
            self._free.append(self._rows.pop(gone)[0])
        rows = [
            self._row_of(state, position, scores) if params.repetition_penalty != 1 else 0
            for state, params, position in zip(batch.states, batch.params, batch.positions, strict=True)
        ]
        return to_device(rows, scores.device)

    def at(self, slots: torch.Tensor) -> torch.Tensor:
        assert self._flags is not None
        return self._flags[slots]

    def add(self, slots: torch.Tensor, tokens: torch.Tensor) -> None:
        """Count the tokens that were chosen."""
        assert self._flags is not None
        self._flags[slots, tokens] = True
        self._flags[0] = False

    def _row_of(self, state: Any, position: int, scores: torch.Tensor) -> int:
        row, covered = self._rows.get(state.request_id, (0, -1))
        if covered != position:  # new, continued after a pause, or in a step that is run again
            row = row or self._new_row(scores)
            assert self._flags is not None
            self._flags[row] = False
            tokens = to_device(state.initial_tokens + state.generated_tokens, scores.device)
            self._flags[row].index_fill_(0, tokens, True)
        self._rows[state.request_id] = row, position + 1
        return row

    def _new_row(self, scores: torch.Tensor) -> int:
        if not self._free:
            held = 1 if self._flags is None else len(self._flags)
            more = torch.zeros(2 * held, scores.shape[-1], dtype=torch.bool, device=scores.device)
            if self._flags is not None:
                more[:held] = self._flags
            self._flags, self._free = more, list(range(held, 2 * held))
        return self._free.pop()


def _exponential(keys: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Exp(1) noise from 32 bits for each row and from the tokens, the same on every device.

    The bits are mixed by the last steps of MurmurHash3 (Appleby, public domain), twice; 23 of them make a number
    between 0 and 1, neither of which it can be.
    """
    bits = _mix(_mix(tokens * 0x9E3779B1 & _MASK) ^ keys)
    return ((bits >> 9).to(torch.float32) + 0.5).mul_(2.0**-23).log_().neg_()


def _mix(bits: torch.Tensor) -> torch.Tensor:
    bits = (bits ^ bits >> 16) * 0x85EBCA6B & _MASK
    bits = (bits ^ bits >> 13) * 0xC2B2AE35 & _MASK
    return bits ^ bits >> 16


def _recorder(state: Any) -> Any:
    return getattr(state, "recorder", None)

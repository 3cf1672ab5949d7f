"""transformers' `generate` on batches of requests: slower than continuous batching, and there in every version."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from suffice.engines.local.logprobs import LogprobRecorder
from suffice.engines.local.sampling import BatchSampler, SamplingParams
from suffice.errors import first_line
from suffice.memory import free_memory, human_bytes, is_memory_error

__all__ = ["PlainGenerator"]

_ROWS = 32  # requests in one batch


@dataclass(frozen=True, slots=True)
class PlainOutput:
    """What there is of one answer, as transformers' `GenerationOutput` has it."""

    request_id: str
    generated_tokens: tuple[int, ...]
    ended: bool
    error: str | None = None

    def is_finished(self) -> bool:
        return self.ended


@dataclass(slots=True, eq=False)
class PlainRequest:
    """A request, and what there is of its answer."""

    request_id: str
    initial_tokens: list[int]
    max_new_tokens: int
    end_ids: frozenset[int]
    logit_processor_kwargs: dict[str, SamplingParams]
    recorder: LogprobRecorder | None = None
    generated_tokens: list[int] = field(default_factory=list)
    over: bool = False

    @property
    def position_offset(self) -> int:
        return len(self.initial_tokens) + len(self.generated_tokens)

    @property
    def left(self) -> int:
        return self.max_new_tokens - len(self.generated_tokens)

    def output(self, error: str | None = None) -> PlainOutput:
        return PlainOutput(self.request_id, tuple(self.generated_tokens), self.over, error)


class PlainGenerator:
    """Answers requests as `Manager` does, with nothing of transformers but `generate`.

    A batch takes what waits, up to a number of requests, and runs until its last answer has ended; who comes meanwhile
    waits for the next. A batch that runs out of memory is run again with half of its requests, which keep what they
    have.

    Args:
        deliver: gets what is new after each step, in the generation thread.
    """

    kv_tokens = None
    longest_request = None
    kv_bytes = None

    def __init__(self, model: Any, deliver: Callable[[list[Any]], None]) -> None:
        self._model, self._deliver = model, deliver
        self._defaults = model.generation_config
        model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0)  # `BatchSampler` decides
        self._waiting: deque[PlainRequest] = deque()
        self._running: list[PlainRequest] = []
        self._news = threading.Condition()
        self._closed = False
        self._rows = _ROWS
        self.memory_failures = 0
        """Batches that ran out of memory so far."""
        self._thread = threading.Thread(target=self._work, name="suffice-generate", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: list[int],
        key: str,
        *,
        max_new_tokens: int,
        reservation: int,
        end_ids: list[int],
        sampling: SamplingParams,
        recorder: LogprobRecorder | None = None,
    ) -> bool:
        """As `Manager.submit`. Nothing is reserved here."""
        kwargs = {"sampling": sampling}
        with self._news:
            if self._closed:
                return False
            self._waiting.append(PlainRequest(key, prompt, max_new_tokens, frozenset(end_ids), kwargs, recorder))
            self._news.notify()
        return True

    def cancel_request(self, key: str) -> None:
        with self._news:
            for each in (*self._waiting, *self._running):
                each.over = each.over or each.request_id == key

    def reserved_tokens(self) -> int:
        """The tokens of running requests, with all that they may become."""
        return sum(len(each.initial_tokens) + each.max_new_tokens for each in list(self._running))

    def close(self) -> None:
        """End the thread after the step it is in, and give the model its settings back."""
        with self._news:
            self._closed = True
            for each in (*self._waiting, *self._running):
                each.over = True
            self._news.notify()
        self._thread.join()
        self._model.generation_config = self._defaults

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._running = batch
            problem = self._run(batch)
            self._running = []
            if problem is not None:
                self._failed([each for each in batch if not each.over], *problem)

    def _next_batch(self) -> list[PlainRequest] | None:
        with self._news:
            while True:
                while self._waiting and self._waiting[0].over:
                    self._waiting.popleft()
                if self._closed:
                    return None
                if self._waiting:
                    return [self._waiting.popleft() for _ in range(min(self._rows, len(self._waiting)))]
                self._news.wait()

    def _run(self, batch: list[PlainRequest]) -> tuple[bool, str] | None:
        """Generate until all of a batch is over; else, whether memory ran out, and what was said."""
        rows = [each.initial_tokens + each.generated_tokens for each in batch]
        longest = max(map(len, rows))
        device = self._model.device
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
        sampler = BatchSampler()
        try:
            with torch.inference_mode():
                self._model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=max(each.left for each in batch),
                    logits_processor=[TokenChooser(sampler, batch)],
                    stopping_criteria=[TokenReader(sampler, batch, self._deliver)],
                )
        except Exception as error:  # of the model or of the device; the requests hear of it
            return is_memory_error(error), first_line(error)
        return None

    def _failed(self, batch: list[PlainRequest], out_of_memory: bool, reason: str) -> None:
        """Run a batch again with half of its requests where memory was short, or let its requests fail."""
        if out_of_memory:
            self.memory_failures += 1
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) > 1:
                self._rows = max(1, len(batch) // 2)
                with self._news:
                    self._waiting.extendleft(reversed(batch))
                return
            device = str(self._model.device)
            reason = f"out of memory on {device} ({human_bytes(free_memory(device))} free), also alone: {reason}"
        for each in batch:
            each.over = True
        self._deliver([each.output(reason) for each in batch])


class TokenChooser(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Lets `BatchSampler` choose each next token of a batch."""

    def __init__(self, sampler: BatchSampler, batch: Sequence[PlainRequest]) -> None:
        self._sampler, self._batch = sampler, batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._sampler.take(self._batch)
        return self._sampler(input_ids, scores, input_ids)


class TokenReader(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Reads each step's tokens, hands them over, and says which rows are over."""

    def __init__(
        self, sampler: BatchSampler, batch: Sequence[PlainRequest], deliver: Callable[[list[Any]], None]
    ) -> None:
        self._sampler, self._batch, self._deliver = sampler, batch, deliver

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self._sampler.read_logprobs()
        outputs = []
        for each, token in zip(self._batch, input_ids[:, -1].tolist(), strict=True):
            if not each.over:
                each.generated_tokens.append(token)
                each.over = token in each.end_ids or each.left <= 0
                outputs.append(each.output())
        if outputs:
            self._deliver(outputs)
        return torch.tensor([each.over for each in self._batch], device=input_ids.device)

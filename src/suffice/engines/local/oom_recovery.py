"""When the device runs out of memory in a step: give back what can be, and run the step's requests again with less."""

from __future__ import annotations

import gc
import time
from typing import Any

import torch

from suffice.errors import EngineError
from suffice.memory import free_memory, human_bytes

__all__ = ["Recovery"]

_FEWER_TOKENS = 4  # each time a request fails alone, its steps get so many times shorter
_FEWEST_TOKENS = 16  # per step: below that a prompt takes for ever
_PAUSES = (0.0, 0.1, 0.5)  # seconds before a request is tried alone again: what eats the memory may go away
_CALM_STEPS = 32  # without trouble, after which the limits double


class Recovery:
    """Takes the requests of a failed step back to the queue, and keeps steps small until memory is there again.

    First each request of the step runs alone, then with fewer tokens per step, then it fails; the others go on. What
    was generated so far is kept: a request starts again from its prompt and its answer so far.

    Lives in the generation thread. `processor` is transformers' `ContinuousBatchProcessor`.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._limits = (processor.scheduler.max_requests_per_batch, processor.max_batch_tokens)
        self._calm = 0
        self._alone: dict[str, int] = {}
        self.failures = 0
        """Steps that ran out of memory so far."""
        self.reason = ""
        """What the last of them said."""

    def step_failed(self, reason: str) -> None:
        """Put the step's requests back into the queue, or fail the one that has been tried enough."""
        processor, scheduler = self._processor, self._processor.scheduler
        batch = processor.inputs_and_outputs
        states = [each.state for each in batch.requests_in_batch]
        batch.requests_in_batch, batch.num_request_in_batch = [], 0  # nothing to take over from this step
        self.failures += 1
        self.reason = reason
        self._calm = 0
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        scheduler.max_requests_per_batch = 1
        if len(states) == 1 and self._tried_enough(states[0].request_id):
            self._fail(states[0], reason)
            return
        for state in reversed(states):
            scheduler.finish_request(state.request_id)
            again = state.create_equivalent_initial_request()
            scheduler.waiting_requests[again.request_id] = again
            scheduler.waiting_requests_order.appendleft(again.request_id)
        scheduler.block_new_requests = False

    def step_succeeded(self) -> None:
        """Double the limits after some calm, up to what they were."""
        processor, scheduler = self._processor, self._processor.scheduler
        if (scheduler.max_requests_per_batch, processor.max_batch_tokens) == self._limits:
            return
        self._calm += 1
        if self._calm < _CALM_STEPS:
            return
        self._calm = 0
        self._alone.clear()  # what went well so long may be tried as often again
        requests, tokens = self._limits
        scheduler.max_requests_per_batch = min(requests, 2 * scheduler.max_requests_per_batch)
        processor.max_batch_tokens = min(tokens, 2 * processor.max_batch_tokens)

    def _tried_enough(self, request_id: str) -> bool:
        """Note that a request failed alone, and make the next try smaller."""
        tries = self._alone.get(request_id, 0)
        if tries == len(_PAUSES):
            return True
        self._alone[request_id] = tries + 1
        processor = self._processor
        tokens = processor.max_batch_tokens
        processor.max_batch_tokens = min(tokens, max(_FEWEST_TOKENS, tokens // _FEWER_TOKENS))
        time.sleep(_PAUSES[tries])
        return False

    def _fail(self, state: Any, reason: str) -> None:
        processor, device = self._processor, str(self._processor.model_device)
        error = EngineError(
            f"out of memory on {device} ({human_bytes(free_memory(device))} free), also alone and with "
            f"{processor.max_batch_tokens} tokens per step: {reason.splitlines()[0] if reason else 'no details'}; "
            "free memory there, or take a shorter prompt, a smaller model or a smaller KV cache"
        )
        processor.output_router.fail_and_deliver(state, error)
        processor.scheduler.finish_request(state.request_id)
        processor.scheduler.block_new_requests = False
        self._alone.pop(state.request_id, None)

"""transformers' continuous batching, set up for Suffice: attention by pages, sampling per request, output by events."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens
from transformers.generation.continuous_batching.utils import stream_context

from suffice.engines.local import paged_attention
from suffice.engines.local.borrowed_model import BorrowedModel, Way
from suffice.engines.local.cache_size import EngineSize, kv_layout, memory_is
from suffice.engines.local.decode_graphs import DecodeTables
from suffice.engines.local.growing_request import GrowingRequest
from suffice.engines.local.logprobs import LogprobRecorder
from suffice.engines.local.oom_recovery import Recovery
from suffice.engines.local.sampling import BatchSampler, SamplingParams
from suffice.memory import free_memory, is_memory_error

__all__ = ["Deliver", "Manager"]

Deliver = Callable[[list[Any]], None]
"""Takes transformers' `GenerationOutput`s, in the generation thread."""


class StepRouter(OutputRouter):
    """Hands every output of a step to one function at once."""

    def __init__(self, deliver: Deliver) -> None:
        super().__init__()
        self._deliver = deliver

    def deliver_to(self, deliver: Deliver) -> Deliver:
        """Hand them to another function; returns the one before."""
        before, self._deliver = self._deliver, deliver
        return before

    def deliver(self, output: Any) -> None:
        self._deliver([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        self._deliver(outputs)


class Manager(ContinuousBatchingManager):
    """A `ContinuousBatchingManager` that attends by pages where the model allows it.

    Args:
        borrowed: the model, set up for the way.
        config: sizes.
        way: how it runs.
        deliver: gets the outputs of each step.
        failed: told, in the generation thread, that it is about to end and every request with it.
    """

    batch_processor: Any

    def __init__(
        self,
        borrowed: BorrowedModel,
        config: ContinuousBatchingConfig,
        way: Way,
        deliver: Deliver,
        failed: Callable[[Exception], None],
    ) -> None:
        self._failed, self._way = failed, way
        super().__init__(borrowed.model, GenerationConfig(do_sample=False, eos_token_id=-1), config)
        self.logit_processor: BatchSampler = BatchSampler()
        self.output_router: StepRouter = StepRouter(deliver)
        self._recovery: Recovery
        self._tables: DecodeTables | None = None
        self.longest_request: int | None = None
        """Tokens that a single request can have in the cache, prompt and answer; None if it can have any number."""
        if way.attention == "paged":
            # Tells the scheduler that decoding needs no list of cache positions; transformers itself believes so only
            # where flash-attention is there.
            self.continuous_batching_config.max_blocks_per_request = 1
            borrowed.before_forward(self._plan_step)

    @property
    def kv_bytes_per_token(self) -> int:
        return kv_layout(self.model).bytes_per_token(self.model.dtype.itemsize)

    @property
    def memory_failures(self) -> int:
        return self._recovery.failures

    @property
    def kv_bytes(self) -> tuple[int, int]:
        """Bytes of the KV cache that requests hold now, and all that they can hold. Read from any thread."""
        processor = self.batch_processor
        if processor is None:  # it has been stopped
            return 0, 0
        cache = processor.cache
        total = cache.num_sectors * cache.bytes_per_sector
        allocators = cache.cache_allocators.values()  # what is kept for the next prompt that begins so is free to take
        kept = sum(len(each.ledger.cached_blocks) * each.bytes_per_block for each in allocators)
        return total - round(cache.compute_free_capacity(relative=False)) - kept, total

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit into the KV cache; known after `warmup`."""
        return int(self.batch_processor.cache.num_blocks * self.continuous_batching_config.page_size)

    def reserved_tokens(self) -> int:
        """Cache that running requests have been promised: their prompts and the reservations of their answers."""
        running = list(self.batch_processor.scheduler.active_requests.values())
        return sum(len(each.initial_tokens) + each.reserved_tokens for each in running)

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
        """Queue a request whose reservation grows up to `max_new_tokens`; whether the manager takes any.

        What `add_request` does, but for the kind of request.
        """
        if self.background_thread_status.can_accept_new_requests() is not None:
            return False
        state = GrowingRequest(
            reservation=reservation,
            recorder=recorder,
            request_id=key,
            initial_tokens=prompt,
            max_new_tokens=max_new_tokens,
            eos_token_id=end_ids,
            streaming=True,
            logit_processor_kwargs={"sampling": sampling},
        )
        self.input_queue.put(state, block=True, timeout=10)
        self._wake_up_loop.set()
        return True

    def switch_to_cb_friendly_attn(self, model: Any, auto_switch_to_flash: bool = True) -> None:
        """`BorrowedModel.run` has set the attention, and puts it back."""

    def start(self) -> None:
        """Start the generation thread. A program that forgets to close the engine can still end: a thread inherits
        being a daemon from the one that starts it."""
        start, problems = super().start, []

        def run() -> None:
            try:
                start()
            except BaseException as error:  # raised where somebody hears it
                problems.append(error)

        starter = threading.Thread(target=run, daemon=True)
        starter.start()
        starter.join()
        if problems:
            raise problems[0]

    def close(self) -> None:
        """End the thread, and give the cache back. May be called again, and before `start`."""
        if self._generation_thread is not None:
            self.stop(hard_stop=True)
        self.batch_processor = None

    def try_out(self, size: EngineSize) -> None:
        """Run the largest step that these sizes allow, and one that decodes, in the thread that will run all others.

        Raises:
            MemoryError: there was none for it.
            Exception: whatever else went wrong in the thread.
        """
        ended: SimpleQueue[Any] = SimpleQueue()
        deliver, failed = self.output_router.deliver_to(ended.put), self._failed
        self._failed = ended.put
        pages = self.kv_tokens // size.page_size
        others = max(0, min(size.step_requests - 1, pages // 2, size.step_tokens - 1))
        longest = min(self.longest_request or size.step_tokens, (pages - others) * size.page_size)
        lengths = [max(1, min(size.step_tokens - others, longest - 2)), *[1] * others]
        try:
            for i, length in enumerate(lengths):
                self.submit(
                    [0] * length,
                    f"try {i}",
                    max_new_tokens=2,
                    reservation=2,
                    end_ids=[],
                    sampling=SamplingParams(temperature=1.0),
                )
            running = {f"try {i}" for i in range(len(lengths))}
            while running:
                news = ended.get()
                if isinstance(news, Exception):
                    raise news
                for output in news:
                    if output.error is not None:
                        raise MemoryError(output.error)
                    if output.is_finished():
                        running.discard(output.request_id)
            if self._recovery.failures:
                raise MemoryError(self._recovery.reason)
        finally:
            self.output_router.deliver_to(deliver)
            self._failed = failed

    def _create_batch_processor(self) -> Any:
        """Called by `warmup`, and by the thread that starts after it, which gets the same one again."""
        if self.batch_processor is not None:
            return super()._create_batch_processor()
        with memory_is(self.model.device, free_memory(str(self.model.device))):
            processor = super()._create_batch_processor()
        self._recovery = Recovery(processor)
        self.longest_request = longest_request(processor.cache)
        if self._way.attention == "paged":
            paged_attention.open_to_decoding(processor.cache)
        if self._way.graphs:
            self._record_steps(processor)
        return processor

    def _record_steps(self, processor: Any) -> None:
        """Let steps be recorded: what differs from one to the next is written to tensors that stay where they are,
        before a step, and sampling follows after it."""
        batch, runner, model = processor.inputs_and_outputs, processor.model_runner, self.model
        requests = self.continuous_batching_config.max_requests_per_batch
        self.logit_processor.keep_logits(requests, model.get_output_embeddings().weight.shape[0], model.device)
        compute = runner.compute_batch
        if self._way.attention == "paged":
            self._tables = DecodeTables(processor.cache, requests, model.device, model.dtype)
            batch._get_graph_key = lambda: (batch.num_q_tokens, self._tables.pages)

        def compute_batch(model: Any, inputs: dict[str, Any]) -> None:
            with stream_context(batch.compute_stream):
                if self._tables is not None and batch.use_block_table:
                    self._tables.fill(*self._decoding(), padded_to=batch.num_q_tokens)
            compute(model, inputs)
            with stream_context(batch.compute_stream):
                self.logit_processor.choose_kept(batch.output_ids[0])

        runner.compute_batch = compute_batch

    def _decoding(self) -> tuple[list[str], list[int]]:
        """The requests of a step in which each has one new token, and the position of that token."""
        states = [each.state for each in self.batch_processor.inputs_and_outputs.requests_in_batch]
        return [each.request_id for each in states], [each.position_offset - 1 for each in states]

    def _plan_step(self, model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Forward pre-hook of the model: gives all layers the geometry of the step, from what is known without asking
        the device."""
        cache = kwargs["cache"]
        if kwargs["block_table"] is None:
            batch = self.batch_processor.inputs_and_outputs.requests_in_batch
            requests = [(each.state.position_offset - each.query_length, each.query_length) for each in batch]
            kwargs["step"] = paged_attention.plan_mixed(cache, requests, model.device)
        elif self._tables is not None:
            kwargs["step"] = self._tables.plan(kwargs["position_ids"].shape[1])
        else:
            kwargs["step"] = paged_attention.plan_decode(cache, *self._decoding(), model.device, model.dtype)
        return args, kwargs

    def _generation_step(self) -> None:
        with torch.inference_mode():
            try:
                super()._generation_step()
            except (RuntimeError, MemoryError) as error:
                if not is_memory_error(error):
                    raise
                reason = str(error)  # the traceback keeps tensors alive, so it has to go before memory is given back
                self.logit_processor.forget()
            else:
                self.logit_processor.read_logprobs()
                self._recovery.step_succeeded()
                return
        self._recovery.step_failed(reason)

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        self._failed(error)  # first, so that a caller who hears of it finds a new manager when asking again
        super()._handle_critical_error(error, batch_processor)


def longest_request(cache: Any) -> int | None:
    """Tokens that one request can have in an empty `PagedAttentionCache`; None where the layers' windows bound it."""
    longest = infer_max_single_request_tokens(cache)
    return None if cache.read_cache_limit is not None and longest >= cache.max_tokens_read else longest

"""transformers' continuous batching, set up for Suffice: attention by pages, sampling per request, output by events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.model_runner import infer_max_single_request_tokens

from suffice.engines.local import paged_attention
from suffice.engines.local.growing_request import GrowingRequest
from suffice.engines.local.logprobs import LogprobRecorder
from suffice.engines.local.oom_recovery import Recovery
from suffice.engines.local.sampling import BatchSampler, SamplingParams
from suffice.memory import KvLayout, free_memory, is_memory_error
from suffice.memory.inference import cache_tokens_that_fit, step_bytes

__all__ = ["Deliver", "Manager", "cache_config", "kv_layout"]

_MAX_REQUESTS = 256  # requests in one step
_MAX_FULL_CONTEXTS = 32  # requests at full context that the cache has room for, where memory allows
_MAX_MASKED_TOKENS = 32_768  # cache of a model that needs masks: each takes (tokens in a step) x (tokens in the cache)
_CPU_SHARE = 0.25  # of the free memory: other programs live there too
_CUDA_SHARE = 0.8  # of what the weights leave

Deliver = Callable[[list[Any]], None]
"""Takes transformers' `GenerationOutput`s, in the generation thread."""


class _Router(OutputRouter):
    """Hands every output of a step to one function at once."""

    def __init__(self, deliver: Deliver) -> None:
        super().__init__()
        self._deliver = deliver

    def deliver(self, output: Any) -> None:
        self._deliver([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        self._deliver(outputs)


class Manager(ContinuousBatchingManager):
    """A `ContinuousBatchingManager` that attends by pages where the model allows it.

    Args:
        deliver: gets the outputs of each step.
        failed: told, in the generation thread, that it is about to end and every request with it.
        context_tokens: longest prompt + answer.
    """

    _original_attn_impl: str | None

    def __init__(
        self,
        model: Any,
        config: ContinuousBatchingConfig,
        deliver: Deliver,
        failed: Callable[[Exception], None],
        context_tokens: int,
    ) -> None:
        self._failed = failed
        super().__init__(model, GenerationConfig(do_sample=False, eos_token_id=-1), config)
        self.logit_processor: BatchSampler = BatchSampler()
        self.output_router = _Router(deliver)
        self._hook = None
        self._recovery: Recovery
        self.longest_request: int | None = None
        """Tokens that a single request can have in the cache, prompt and answer; None if it can have any number."""
        if model.config._attn_implementation == paged_attention.PAGED_ATTENTION:
            # Tells the scheduler that decoding needs no list of cache positions; transformers itself believes so only
            # where flash-attention is there.
            pages = -(-context_tokens // self.continuous_batching_config.page_size)
            self.continuous_batching_config.max_blocks_per_request = pages
            self._hook = model.register_forward_pre_hook(self._plan_step, with_kwargs=True)

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
        """Flash-attention where it is there (CUDA), else attention by pages, else what transformers would take."""
        original = self._original_attn_impl or model.config._attn_implementation
        if model.device.type == "cuda":
            super().switch_to_cb_friendly_attn(model, auto_switch_to_flash)
            if "flash" in model.config._attn_implementation:
                return
        if paged_attention.supports(model):
            paged_attention.register()
            model.set_attn_implementation(paged_attention.PAGED_ATTENTION)
        elif paged_attention.has_sinks(model):
            model.set_attn_implementation("paged|eager")  # the only other one that knows sinks
        else:
            super().switch_to_cb_friendly_attn(model, auto_switch_to_flash=False)
        self._original_attn_impl = original

    def stop(self, *args: Any, **kwargs: Any) -> None:
        super().stop(*args, **kwargs)
        if self._hook is not None:
            self._hook.remove()

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        self._recovery = Recovery(processor)
        self.longest_request = longest_request(processor.cache)
        if self._hook is not None:
            # `_plan_step` builds all block tables at once; one by one they take as long as the attention.
            processor.cache.fill_block_table = lambda *args: None
        return processor

    def _plan_step(self, model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Forward pre-hook of the model: gives all layers the geometry of the step."""
        if kwargs["block_table"] is None:
            (key_ends,) = kwargs["cu_seq_lens_k"].values()
            kwargs["step"] = paged_attention.plan_mixed(kwargs["cu_seq_lens_q"], key_ends)
        else:
            ids = [each.state.request_id for each in self.batch_processor.inputs_and_outputs.requests_in_batch]
            kwargs["step"] = paged_attention.plan_decode(kwargs["cache"], ids, kwargs["position_ids"], model.dtype)
        return args, kwargs

    def _generation_step(self) -> None:
        with torch.inference_mode():
            try:
                super()._generation_step()
            except (RuntimeError, MemoryError) as error:
                if not is_memory_error(error):
                    raise
                reason = str(error)  # the traceback keeps tensors alive, so it has to go before memory is given back
            else:
                self._recovery.step_succeeded()
                return
        self._recovery.step_failed(reason)

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        self._failed(error)  # first, so that a caller who hears of it finds a new manager when asking again
        super()._handle_critical_error(error, batch_processor)


def cache_config(
    model: Any, context_tokens: int, kv_tokens: int | None = None, max_batch_tokens: int | None = None
) -> ContinuousBatchingConfig:
    """Page, cache and batch sizes for a model and the device it is on.

    CPU: pages of 16 tokens, so that little is gathered in vain. CUDA: transformers' own 256, which flash-attention's
    block tables need. CUDA graphs and asynchronous batches stay off, because they record one way of sampling and
    `BatchSampler` decides row by row.

    Args:
        kv_tokens: size of the cache; None takes a share of the free memory.
        max_batch_tokens: most tokens in one step; None takes 512 on CPU (a step stays short) and 2048 on CUDA.
    """
    page_size = _page_size(model)
    max_batch_tokens = max_batch_tokens or (512 if model.device.type == "cpu" else 2048)
    if kv_tokens is None:
        kv_tokens = _kv_tokens_that_fit(model, context_tokens, max_batch_tokens)
    return ContinuousBatchingConfig(
        page_size=page_size,
        num_blocks=-(-kv_tokens // page_size),
        max_batch_tokens=max_batch_tokens,
        max_requests_per_batch=_MAX_REQUESTS,
        use_cuda_graph=False,
        use_async_batching=False,
    )


def _page_size(model: Any) -> int:
    return 16 if model.device.type == "cpu" else 256


def kv_layout(model: Any) -> KvLayout:
    """What the model's cache keeps of a token, layer by layer."""
    config = model.config.get_text_config()
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")  # what transformers calls them in every family
    return KvLayout.from_config(config.to_dict() | {name: getattr(config, name) for name in names})


def longest_request(cache: Any) -> int | None:
    """Tokens that one request can have in an empty `PagedAttentionCache`; None where the layers' windows bound it."""
    longest = infer_max_single_request_tokens(cache)
    return None if cache.read_cache_limit is not None and longest >= cache.max_tokens_read else longest


def _kv_tokens_that_fit(model: Any, context_tokens: int, max_batch_tokens: int) -> int:
    """What `_MAX_FULL_CONTEXTS` requests at full context can use, or what memory has room for where that is less."""
    useful = _MAX_FULL_CONTEXTS * context_tokens
    if not paged_attention.supports(model):
        useful = min(useful, _MAX_MASKED_TOKENS)
    config, value = model.config.get_text_config().to_dict(), model.dtype.itemsize
    return min(
        useful,
        cache_tokens_that_fit(
            kv_layout(model),
            free_memory(str(model.device)) * (_CPU_SHARE if model.device.type == "cpu" else _CUDA_SHARE),
            beside=step_bytes(config, max_batch_tokens, _MAX_REQUESTS, value),
            bytes_per_value=value,
            page_size=_page_size(model),
        ),
    )

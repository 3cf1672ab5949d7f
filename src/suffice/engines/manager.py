"""transformers' continuous batching, set up for Suffice: attention by pages, sampling per request, output by events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.continuous_api import OutputRouter

from suffice.engines import paged
from suffice.engines.growing import GrowingRequest
from suffice.engines.sampling import BatchSampler, SamplingParams

__all__ = ["Deliver", "Manager", "cache_config", "kv_bytes_per_token"]

_MAX_REQUESTS = 256  # requests in one step
_MAX_FULL_CONTEXTS = 32  # requests at full context that the cache has room for, where memory allows
_MAX_MASKED_TOKENS = 32_768  # cache of a model that needs masks: each takes (tokens in a step) x (tokens in the cache)
_CPU_SHARE = 0.25  # of the free memory: other programs live there too
_CUDA_SHARE = 0.5  # of what the weights leave

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
        model: a causal language model of transformers.
        config: page size, cache size, batch size.
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
        self.logit_processor = BatchSampler()
        self.output_router = _Router(deliver)
        self._hook = None
        if model.config._attn_implementation == paged.PAGED_ATTENTION:
            # Tells the scheduler that decoding needs no list of cache positions; transformers itself believes so only
            # where flash-attention is there.
            pages = -(-context_tokens // self.continuous_batching_config.page_size)
            self.continuous_batching_config.max_blocks_per_request = pages
            self._hook = model.register_forward_pre_hook(self._plan_step, with_kwargs=True)

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
    ) -> bool:
        """Queue a request whose reservation grows up to `max_new_tokens`; whether the manager takes any.

        What `add_request` does, but for the kind of request.
        """
        if self.background_thread_status.can_accept_new_requests() is not None:
            return False
        state = GrowingRequest(
            reservation=reservation,
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
        if paged.supports(model):
            paged.register()
            model.set_attn_implementation(paged.PAGED_ATTENTION)
        elif paged.has_sinks(model):
            model.set_attn_implementation("paged|eager")  # the only other one that knows sinks
        else:
            super().switch_to_cb_friendly_attn(model, auto_switch_to_flash=False)
        self._original_attn_impl = original

    def stop(self, *args: Any, **kwargs: Any) -> None:
        """Stop the generation thread and leave the model as it was."""
        super().stop(*args, **kwargs)
        if self._hook is not None:
            self._hook.remove()

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        if self._hook is not None:
            # `_plan_step` builds all block tables at once; one by one they take as long as the attention.
            processor.cache.fill_block_table = lambda *args: None
        return processor

    def _plan_step(self, model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Forward pre-hook of the model: gives all layers the geometry of the step."""
        if kwargs["block_table"] is None:
            (key_ends,) = kwargs["cu_seq_lens_k"].values()
            kwargs["step"] = paged.plan_mixed(kwargs["cu_seq_lens_q"], key_ends)
        else:
            ids = [each.state.request_id for each in self.batch_processor.inputs_and_outputs.requests_in_batch]
            kwargs["step"] = paged.plan_decode(kwargs["cache"], ids, kwargs["position_ids"], model.dtype)
        return args, kwargs

    def _generation_step(self) -> None:
        with torch.inference_mode():
            super()._generation_step()

    def _handle_critical_error(self, error: Exception, batch_processor: Any) -> None:
        self._failed(error)  # first, so that whoever hears of it finds a new manager when asking again
        super()._handle_critical_error(error, batch_processor)


def cache_config(
    model: Any, context_tokens: int, kv_tokens: int | None = None, max_batch_tokens: int | None = None
) -> ContinuousBatchingConfig:
    """Page, cache and batch sizes for a model and the device it is on.

    CPU: pages of 16 tokens, so that little is gathered in vain. CUDA: transformers' own 256, which flash-attention's
    block tables need, and the memory that is left. CUDA graphs and asynchronous batches stay off, because they record
    one way of sampling and `BatchSampler` decides row by row.

    Args:
        context_tokens: longest prompt + answer.
        kv_tokens: size of the cache; None takes a share of the free memory.
        max_batch_tokens: most tokens in one step; None takes 512 on CPU (a step stays short) and 2048 on CUDA.
    """
    on_cpu = model.device.type == "cpu"
    page_size = 16 if on_cpu else 256
    if kv_tokens is None:
        kv_tokens = _kv_tokens_that_fit(model, context_tokens)
    return ContinuousBatchingConfig(
        page_size=page_size,
        num_blocks=None if kv_tokens is None else -(-kv_tokens // page_size),
        max_batch_tokens=max_batch_tokens or (512 if on_cpu else 2048),
        max_requests_per_batch=_MAX_REQUESTS,
        use_cuda_graph=False,
        use_async_batching=False,
    )


def kv_bytes_per_token(model: Any) -> int:
    """KV-cache bytes per token: 2 (key, value) x layers x key-value heads x head size x bytes per number."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * model.dtype.itemsize)


def _kv_tokens_that_fit(model: Any, context_tokens: int) -> int | None:
    """What `_MAX_FULL_CONTEXTS` requests at full context can use, or a share of the free memory where that is less.

    None on CUDA for the second: there transformers knows better what its own buffers take.
    """
    useful = _MAX_FULL_CONTEXTS * context_tokens
    if not paged.supports(model):
        useful = min(useful, _MAX_MASKED_TOKENS)
    if model.device.type == "cuda":
        fits = int(torch.cuda.mem_get_info(model.device)[0] * _CUDA_SHARE) // kv_bytes_per_token(model)
        return useful if useful < fits else None
    import psutil

    return min(useful, int(psutil.virtual_memory().available * _CPU_SHARE) // kv_bytes_per_token(model))

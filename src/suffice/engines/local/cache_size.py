"""How large the KV cache and a step are: what the work can use, as far as transformers' own arithmetic says it fits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import torch
from transformers import ContinuousBatchingConfig
from transformers.generation.continuous_batching import cache as paged_cache
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.generation.continuous_batching.distributed import DistributedHelper

from suffice.engines.local import paged_attention
from suffice.errors import UsageError
from suffice.memory import KvLayout, free_memory, human_bytes

__all__ = [
    "CacheWish",
    "EngineSize",
    "batching_config",
    "cpu_or_cuda",
    "describe_size",
    "fitted_size",
    "kv_layout",
    "memory_is",
    "room",
    "tokens_that_fit",
    "wanted_size",
]

_MAX_REQUESTS = 256  # requests in one step
_MAX_FULL_CONTEXTS = 32  # requests at full context that a shared cache has room for, where memory allows
_MAX_MASKED_TOKENS = 32_768  # cache of a model that needs masks: each takes (tokens in a step) x (tokens in the cache)
_FREE_SHARE = {"cpu": 0.25, "cuda": 0.8}  # of what is free beside the weights: other programs live there too
_LEAST_KV_TOKENS = 256  # a smaller cache is of no use, but for work that needs no more
_LEAST_RETRIED = 16  # tokens: where a cache of so few fails, its size is not what is wrong
_STEP = {"cpu": 512, "cuda": 2048}  # tokens of a step: on the CPU it stays short
_LEAST_STEP = 32  # tokens: below that, a prompt takes for ever
_STEPS_IN_CACHE = 4  # room for so many full steps: before there is less, steps get shorter

_asking = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheWish:
    """What is known of the cache before it is made; each may be unknown."""

    kv_tokens: int | None = None
    """Exactly so many tokens."""
    utilization: float | None = None
    """The share of the device (above 0, at most 1) that the weights, the cache and a step may take of what other
    programs leave; None takes 80 % of what is free beside the weights, on the CPU 25 %."""
    requests: int | None = None
    """That will run at once."""
    tokens: int | None = None
    """Of the longest of them, prompt and answer."""
    step_tokens: int | None = None
    """The most tokens of one step."""

    @property
    def work(self) -> tuple[int, int] | None:
        """Requests and tokens of each, where both are known."""
        return None if self.requests is None or self.tokens is None else (self.requests, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSize:
    """Sizes that an engine starts with."""

    kv_tokens: int
    step_tokens: int
    step_requests: int
    page_size: int
    bound: str
    """Why the cache is not larger: `asked`, `work`, `context` or `memory`."""

    def smaller(self, needed: int = 0) -> EngineSize | None:
        """What to try where this did not fit: a quarter of the step, and half of the cache while that holds the
        `needed` tokens of a single request. None where there is nothing left to give up."""
        cache = self.kv_tokens // 2
        if self.step_tokens <= _LEAST_STEP and cache < _LEAST_RETRIED:
            return None
        if cache < needed and self.step_tokens > _LEAST_STEP:
            cache = self.kv_tokens
        return replace(self.with_step(self.step_tokens // 4), kv_tokens=cache, bound="memory")

    def with_step(self, tokens: int) -> EngineSize:
        """With shorter steps, but not with less than the least."""
        step = min(max(_LEAST_STEP, tokens), self.step_tokens)
        return replace(self, step_tokens=step, step_requests=min(self.step_requests, step))


def cpu_or_cuda(model: Any) -> str:
    """Whose settings a model gets by where it is."""
    return "cpu" if model.device.type == "cpu" else "cuda"


def room(model: Any, utilization: float | None) -> int:
    """Bytes of the model's device that the cache and a step may take."""
    free = free_memory(str(model.device))
    if utilization is None:
        return int(free * _FREE_SHARE[cpu_or_cuda(model)])
    held = sum(each.nbytes for each in model.parameters())
    return max(0, int((free + held) * utilization) - held)


def wanted_size(model: Any, context: int, wish: CacheWish) -> EngineSize:
    """The sizes that the work can use, whatever memory there is."""
    page_size = _page_size(model)
    tokens, bound = _useful_tokens(model, context, wish)
    step = wish.step_tokens or min(_STEP[cpu_or_cuda(model)], _pages(tokens, page_size) * page_size)
    requests = min(_MAX_REQUESTS, wish.requests or _MAX_REQUESTS, step)
    return EngineSize(kv_tokens=tokens, step_tokens=step, step_requests=requests, page_size=page_size, bound=bound)


def fitted_size(model: Any, wanted: EngineSize, wish: CacheWish) -> EngineSize | None:
    """The sizes that fit: all of the wanted cache or as much as there is room for, with shorter steps where those leave
    more of it. `model` has the attention set that it will run with, which decides what transformers sets aside.

    Returns:
        None where not even the least fits.
    """
    there = free_memory(str(model.device)) if wish.kv_tokens is not None else room(model, wish.utilization)
    size: EngineSize | None = wanted
    best = replace(wanted, kv_tokens=0)
    while size is not None:
        fitting = tokens_that_fit(model, size, there)
        if fitting >= wanted.kv_tokens:
            return size
        if fitting > best.kv_tokens:
            best = replace(size, kv_tokens=fitting, bound="memory")
        if fitting >= _STEPS_IN_CACHE * size.step_tokens or size.step_tokens <= _LEAST_STEP:
            break
        size = size.with_step(size.step_tokens // 4)
    least = wanted.kv_tokens if wish.kv_tokens is not None else min(wanted.kv_tokens, _LEAST_KV_TOKENS)
    return best if best.kv_tokens >= least else None


def batching_config(model: Any, size: EngineSize, context: int, *, graphs: bool = False) -> ContinuousBatchingConfig:
    """transformers' settings for these sizes. Asynchronous batches stay off: a step that runs out of memory can only be
    repeated where no other one is under way."""
    return ContinuousBatchingConfig(
        page_size=size.page_size,
        num_blocks=_pages(size.kv_tokens, size.page_size),
        max_batch_tokens=size.step_tokens,
        max_requests_per_batch=size.step_requests,
        max_blocks_per_request=_pages(min(context, max(size.kv_tokens, size.page_size)), size.page_size),
        max_memory_percent=1.0,
        safety_margin=0.0 if size.bound == "work" else None,  # room for all that may come has been made
        use_cuda_graph=(False, graphs),
        use_async_batching=False,
    )


def kv_layout(model: Any) -> KvLayout:
    """What the model's cache keeps of a token, layer by layer. Raises UsageError as `KvLayout.from_config`."""
    config = model.config.get_text_config()
    names = ("num_hidden_layers", "num_attention_heads", "hidden_size")  # what transformers calls them in every family
    return KvLayout.from_config(config.to_dict() | {name: getattr(config, name) for name in names})


@contextmanager
def memory_is(device: torch.device, free: int) -> Iterator[None]:
    """Let transformers' arithmetic find `free` bytes. By itself it asks the first accelerator that there is, wherever
    the model is, and on a CPU it takes memory of other programs for free."""
    with _asking:
        before = paged_cache.get_device_and_memory_breakdown
        paged_cache.get_device_and_memory_breakdown = lambda: (device, free, 0, 0)
        try:
            yield
        finally:
            paged_cache.get_device_and_memory_breakdown = before


def _page_size(model: Any) -> int:
    """CPU: small pages, so that little is gathered in vain. CUDA: 256, which flash-attention's block tables need."""
    return 16 if cpu_or_cuda(model) == "cpu" else 256


def _pages(tokens: int, page_size: int) -> int:
    return max(1, -(-tokens // page_size))


def _useful_tokens(model: Any, context: int, wish: CacheWish) -> tuple[int, str]:
    """The largest cache that makes sense, and what says so."""
    if wish.kv_tokens is not None:
        return wish.kv_tokens, "asked"
    if wish.work is not None:
        return _tokens_of_work(model, *wish.work), "work"
    useful = (wish.requests or _MAX_FULL_CONTEXTS) * context
    if not paged_attention.supports(model):
        useful = min(useful, _MAX_MASKED_TOKENS)
    return useful, "context"


def _tokens_of_work(model: Any, requests: int, tokens: int) -> int:
    """Cache for requests of a length, in tokens that every layer keeps: layers with windows keep less."""
    page_size = _page_size(model)
    whole = _pages(tokens, page_size) * page_size
    try:
        layout = kv_layout(model)
    except UsageError:
        return requests * whole
    if not layout.windows:
        return requests * whole
    kept = -(-layout.bytes_for(whole, 1, page_size) // layout.bytes_per_token(1))
    return min(requests * whole, (requests + 1) * (kept + page_size))  # sectors are not shared by kinds of layers


def tokens_that_fit(model: Any, size: EngineSize, free: int) -> int:
    """The largest cache, in tokens, that transformers would make in `free` bytes beside such steps: its own class works
    that out, on a device that has no memory to take."""
    config = batching_config(model, size, size.kv_tokens)
    config.num_blocks = None
    keeps = getattr(model, "_supports_logits_to_keep", None)
    try:
        with memory_is(model.device, free):
            probe = PagedAttentionCache(
                config=model.config.get_text_config(),
                continuous_batching_config=config,
                device="meta",
                distributed_helper=DistributedHelper(None, None),
                dtype=model.dtype,
                model_supports_logits_to_keep=callable(keeps) and keeps(),
            )
    except MemoryError as error:
        if "footprint" not in str(error):
            raise
        return 0
    except ValueError as error:
        if "num_sectors" not in str(error):  # another one says that the model's kind of layers is not known
            raise
        return 0
    return int(probe.num_blocks) * size.page_size


def describe_size(model: Any, size: EngineSize) -> str:
    """One line for a person: how large the cache is, and why."""
    why = {
        "asked": "as asked for",
        "work": "what this work can use",
        "context": "what the work can use at full context",
        "memory": f"what fits beside the weights on {model.device}",
    }
    try:
        total = f", {human_bytes(kv_layout(model).bytes_per_token(model.dtype.itemsize) * size.kv_tokens)}"
    except UsageError:
        total = ""
    return f"KV cache: {size.kv_tokens:,} tokens{total}; {why[size.bound]}"

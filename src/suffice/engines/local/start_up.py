"""Starts a manager whatever the device has left: with a smaller cache, shorter steps, or plainer ways of attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from suffice.engines.local import paged_attention
from suffice.engines.local.batching import Deliver, Manager
from suffice.engines.local.borrowed_model import BorrowedModel, Way
from suffice.engines.local.cache_size import (
    CacheWish,
    EngineSize,
    batching_config,
    cpu_or_cuda,
    describe_size,
    fitted_size,
    kv_layout,
    tokens_that_fit,
    wanted_size,
)
from suffice.engines.local.step_memory import peak_of, spare_memory
from suffice.errors import EngineError, first_line
from suffice.memory import free_memory, human_bytes, is_memory_error

__all__ = ["Started", "start_manager", "ways_of"]

_TRIED_ON = {"cuda"}
"""Devices on which a step is run before an engine counts as started. The CPU's memory is not taken before it is used,
and a full step of a large model would take many seconds there."""


@dataclass(frozen=True, slots=True)
class Started:
    """A manager that is ready, and what it took from the model."""

    manager: Manager
    borrowed: BorrowedModel
    size: EngineSize
    notices: tuple[str, ...]
    """What did not work at first, and how large the cache is, one line each."""

    @property
    def for_work(self) -> bool:
        """Whether the cache has room for the expected work and no more."""
        return self.size.bound == "work"

    def is_outgrown(self, needed: int) -> bool:
        """Whether a request of so many tokens could have more room than it finds in a cache that was made for less."""
        longest = self.manager.longest_request
        return self.for_work and longest is not None and needed > longest

    def close(self) -> None:
        """End the thread, and put the model back as it was."""
        self.manager.close()
        self.borrowed.give_back()


def start_manager(
    model: Any, context: int, wish: CacheWish, deliver: Deliver, failed: Callable[[Exception], None]
) -> Started:
    """The best manager that starts on this model and this device.

    Args:
        context: longest prompt + answer, in tokens.
        wish: what is asked for, or known of the work.
        deliver: gets the outputs of each step, in the generation thread.
        failed: told, in the generation thread, that it ends and every request with it.

    Raises:
        EngineError: no memory for the least that is needed, with what would fit.
        Exception: whatever transformers says of a model that it cannot batch.
    """
    notices: list[str] = []
    ways = ways_of(model)
    for way in ways:
        try:
            manager, borrowed, size = _start(model, context, wish, way, deliver, failed)
        except EngineError:
            raise
        except Exception as error:  # from whatever a faster way is built of: drivers, kernels, compilers
            if way is ways[-1]:
                raise
            notices.append(f"{way} does not work here ({first_line(error)}), so it goes on without")
        else:
            return Started(manager, borrowed, size, (*notices, describe_size(model, size)))
    raise AssertionError("there is always a last way")


def ways_of(model: Any) -> tuple[Way, ...]:
    """Ways to run a model, the fastest first; each is correct, and the next is for where it does not work."""
    plain = Way("paged" if paged_attention.supports(model) else "masked")
    if cpu_or_cuda(model) == "cpu":
        return (plain,)
    flash = (Way("flash", graphs=True), Way("flash")) if _has_flash(model) else ()
    graphs = (replace(plain, graphs=True),) if plain.attention == "paged" else ()
    return (*flash, *graphs, plain)


def _has_flash(model: Any) -> bool:
    from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

    there = is_flash_attn_3_available() or is_flash_attn_2_available()
    return there and bool(model._supports_flash_attn) and model.dtype in (torch.bfloat16, torch.float16)


def _start(
    model: Any, context: int, wish: CacheWish, way: Way, deliver: Deliver, failed: Callable[[Exception], None]
) -> tuple[Manager, BorrowedModel, EngineSize]:
    """One way, with smaller sizes each time that memory runs out."""
    wanted = wanted_size(model, context, wish)
    while True:
        borrowed, manager, size = BorrowedModel(model), None, wanted
        try:
            borrowed.run(way)
            size = _fitted(model, wanted, wish)
            manager = Manager(borrowed, batching_config(model, size, context, graphs=way.graphs), way, deliver, failed)
            manager.warmup()
            manager.start()
            short_of = _try_out(manager, size) if model.device.type in _TRIED_ON else 0
            if short_of <= 0:
                return manager, borrowed, size
            problem = f"a step takes {human_bytes(short_of)} more than the cache leaves"
            smaller = _less_cache(model, size, short_of)
        except BaseException as error:
            if not is_memory_error(error):
                _clear(manager, borrowed)
                raise
            problem, smaller = first_line(error), size.smaller(wish.tokens or 0)
        _clear(manager, borrowed)  # only now: the exception's frames kept tensors of the try alive
        if wish.kv_tokens is not None or smaller is None:
            raise EngineError(_what_would_fit(model, wanted, problem))
        wanted = smaller


def _fitted(model: Any, wanted: EngineSize, wish: CacheWish) -> EngineSize:
    size = fitted_size(model, wanted, wish)
    if size is None:
        raise EngineError(_what_would_fit(model, wanted, f"{wanted.kv_tokens:,} tokens do not fit"))
    return size


def _try_out(manager: Manager, size: EngineSize) -> int:
    """Run the largest step and a step of decoding. Returns the bytes that such a step will lack, if it lacks any, once
    the device has nothing left over from this one."""
    with peak_of(manager.model.device) as peak:
        manager.try_out(size)
    return peak() - spare_memory(manager.model.device)


def _less_cache(model: Any, size: EngineSize, short_of: int) -> EngineSize | None:
    """A cache that leaves so many bytes more to a step."""
    less = -(-short_of // kv_layout(model).bytes_per_token(model.dtype.itemsize))
    pages = (size.kv_tokens - less) // size.page_size
    return replace(size, kv_tokens=pages * size.page_size, bound="memory") if pages > 0 else size.smaller()


def _clear(manager: Manager | None, borrowed: BorrowedModel) -> None:
    if manager is not None:
        manager.close()
    borrowed.give_back()


def _what_would_fit(model: Any, wanted: EngineSize, problem: str) -> str:
    """The one line where nothing could be started."""
    device = str(model.device)
    free = free_memory(device)
    fitting = tokens_that_fit(model, wanted.with_step(0), free)
    fits = f"{fitting:,} tokens would fit (--kv-tokens {fitting})" if fitting else "none would fit"
    other = "" if device == "cpu" else ", or --device cpu"
    return (
        f"no memory on {device} for a KV cache of {wanted.kv_tokens:,} tokens ({problem}; {human_bytes(free)} free): "
        f"{fits}; free some memory there, or take a smaller model, a shorter prompt or cap{other}"
    )

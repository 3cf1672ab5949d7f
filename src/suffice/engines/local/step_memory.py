"""What a step takes of a device beside what it keeps, and what is left for the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from suffice.memory import free_memory

__all__ = ["peak_of", "spare_memory"]


@contextmanager
def peak_of(device: torch.device) -> Iterator[Callable[[], int]]:
    """Measure a block: the function says, afterwards, how many bytes it had at most beside those that it still has.
    Always 0 on the CPU, where torch does not count."""
    if device.type != "cuda":
        yield lambda: 0
        return
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield lambda: int(torch.cuda.max_memory_allocated(device) - torch.cuda.memory_allocated(device))


def spare_memory(device: torch.device) -> int:
    """Bytes that a step can have: what is free, and what torch holds and no tensor uses."""
    if device.type != "cuda":
        return free_memory("cpu")
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_memory(str(device)) + int(unused)

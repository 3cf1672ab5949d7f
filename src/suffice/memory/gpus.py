"""The NVIDIA GPUs that this process may use, and what is free on them. Asks NVML, which takes no memory on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["VisibleGpu", "visible_gpus"]


@dataclass(frozen=True, slots=True)
class VisibleGpu:
    id: str
    """As CUDA_VISIBLE_DEVICES names it."""
    name: str
    total: int
    """Bytes."""
    free: int


def visible_gpus() -> tuple[VisibleGpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; none where there is no driver or no `nvidia-ml-py`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return ()
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # the package is missing, or the driver
        return ()
    try:
        return tuple(_gpus(pynvml, visible))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _gpus(pynvml: Any, visible: str | None) -> Iterator[VisibleGpu]:
    count = pynvml.nvmlDeviceGetCount()
    for each in [str(n) for n in range(count)] if visible is None else visible.split(","):
        name = each.strip()
        if name.isdecimal():
            if int(name) >= count:
                return  # as CUDA does: what follows a device that is not there is not seen
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(name))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        yield VisibleGpu(name, str(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free))

"""Reads what a device's memory is used for right now, and warns before it gets tight. No torch at import.

Figures come from torch where it is loaded (what this process allocated and reserved), from NVML (`nvidia-ml-py`) for
the whole card with every other process on it, and from psutil for the CPU.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from suffice.memory.device import free_memory, human_bytes

__all__ = ["LiveMemory", "MemoryMeter", "MemoryReading", "Metered"]

_TIGHT_SHARE = 0.06  # of the device: less free than that is tight
_AHEAD_SECONDS = 60.0  # a warning comes when, at the rate of late, free memory will be tight within this time
_TREND_SECONDS = 15.0  # over which that rate is measured
_READ_SECONDS = 1.0  # between two readings of what is shown
_KV_FULL = 0.9  # share of the KV cache, above which new requests wait

KvUse = Callable[[], "tuple[int, int] | None"]
"""Gives the bytes of KV cache that are held now, and all there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReading:
    """A device's memory at one moment, in bytes."""

    device: str
    total: int
    free: int
    """That any process could still have."""
    allocated: int
    """By tensors of this process; on the CPU its resident memory."""
    reserved: int
    """What torch's allocator holds of the device, tensors included; on the CPU the same as `allocated`."""
    kv_used: int | None = None
    kv_total: int | None = None

    @property
    def others(self) -> int:
        """What other processes have (on CUDA, with this one's own context)."""
        return max(0, self.total - self.free - self.reserved)

    def line(self) -> str:
        """For a progress line: `memory 3.1 GiB, KV 12 of 256 MiB, 20.4 GiB free`."""
        parts = [f"memory {human_bytes(self.allocated)}"]
        if self.reserved > self.allocated:
            parts[0] += f" (reserved {human_bytes(self.reserved)})"
        if self.kv_used is not None and self.kv_total:
            parts.append(f"KV {human_bytes(self.kv_used)} of {human_bytes(self.kv_total)}")
        return ", ".join([*parts, f"{human_bytes(self.free)} free"])

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"others": self.others}


class MemoryMeter:
    """Reads the memory of a device (`cpu`, `cuda` or `cuda:N`), and warns once when it is about to get tight."""

    def __init__(
        self,
        device: str,
        kv_use: KvUse | None = None,
        clock: Callable[[], float] = time.monotonic,
        kv_may_fill: Callable[[], bool] = lambda: False,
    ) -> None:
        """`kv_may_fill` says whether a full KV cache is as planned: it has room for all that will run, and no more."""
        self._device, self._kv_use, self._clock, self._kv_may_fill = device, kv_use, clock, kv_may_fill
        self._history: deque[tuple[float, int]] = deque()
        self._warned: set[str] = set()
        self.peak = 0
        """The most that `read` saw this process reserve, in bytes."""

    def read(self) -> MemoryReading:
        """
        Raises:
            UsageError: no such device here.
        """
        total, free, allocated, reserved = _cpu() if self._device == "cpu" else _cuda(self._device)
        self.peak = max(self.peak, reserved)
        now = self._clock()
        self._history.append((now, free))
        while now - self._history[0][0] > _TREND_SECONDS:
            self._history.popleft()
        used, capacity = (self._kv_use() if self._kv_use is not None else None) or (None, None)
        figures = {"total": total, "free": free, "allocated": allocated, "reserved": reserved}
        return MemoryReading(device=self._device, **figures, kv_used=used, kv_total=capacity)

    def warning(self, reading: MemoryReading) -> str | None:
        """A warning after a reading, each kind once: memory will be tight soon, it is tight, the KV cache is full.
        None where there is nothing new to say."""
        kind, text = self._state(reading)
        if not kind or kind in self._warned:
            return None
        self._warned.add(kind)
        return text

    def _state(self, reading: MemoryReading) -> tuple[str, str]:
        """What there is to warn of: its kind, and the text; empty where all is well."""
        tight, falling = _TIGHT_SHARE * reading.total, self._falling_per_second()
        free = human_bytes(reading.free)
        if reading.free < tight:
            held = f"this process {human_bytes(reading.reserved)}, others {human_bytes(reading.others)}"
            total = human_bytes(reading.total)
            return "tight", f"memory on {reading.device} is tight: {free} of {total} free ({held})"
        if falling > 0 and (seconds := (reading.free - tight) / falling) < _AHEAD_SECONDS:
            soon = f"memory on {reading.device} will be tight in about {seconds:.0f} s"
            return "falling", f"{soon}: {free} free, {human_bytes(falling)} less each second"
        if self._kv_may_fill():
            return "", ""
        if reading.kv_used is not None and reading.kv_total and reading.kv_used > _KV_FULL * reading.kv_total:
            full = f"the KV cache is {100 * reading.kv_used // reading.kv_total} % full: requests wait for room"
            return "kv", f"{full}; a smaller --max_new_tokens or --concurrency avoids that"
        return "", ""

    def _falling_per_second(self) -> float:
        """Bytes that free memory lost per second of late; 0 while there is not half of the time to look back on."""
        (first, then), (last, now) = self._history[0], self._history[-1]
        return (then - now) / (last - first) if last - first >= _TREND_SECONDS / 2 else 0.0


class LiveMemory:
    """A meter's reading for a progress line, read at most once a second; warnings go to `warn`, one line each."""

    def __init__(self, meter: MemoryMeter, warn: Callable[[str], None]) -> None:
        self._meter, self._warn = meter, warn
        self._read_at, self._line = float("-inf"), ""

    def note(self) -> str:
        """The line of this second; it never raises."""
        now = time.monotonic()
        if now - self._read_at >= _READ_SECONDS:
            self._read_at = now
            try:
                reading = self._meter.read()
            except Exception:  # a driver that hiccups must not end the work that is being watched
                return self._line
            self._line = reading.line()
            if (warning := self._meter.warning(reading)) is not None:
                self._warn(warning)
        return self._line


@runtime_checkable
class Metered(Protocol):
    """An engine whose memory can be read: one in this process."""

    def memory_meter(self) -> MemoryMeter:
        """A meter of the device that the model is on, with the KV cache."""


def _cpu() -> tuple[int, int, int, int]:
    """Total, free, allocated, reserved; within the limit of the container, where there is one."""
    import psutil

    memory, resident = psutil.virtual_memory(), int(psutil.Process().memory_info().rss)
    return int(memory.total), int(memory.available), resident, resident


def _cuda(device: str) -> tuple[int, int, int, int]:
    """As `_cpu`. NVML sees every process and needs no context on the device; torch knows its own allocator."""
    torch = sys.modules.get("torch")
    allocated = reserved = 0
    if torch is not None and torch.cuda.is_initialized():
        allocated, reserved = int(torch.cuda.memory_allocated(device)), int(torch.cuda.memory_reserved(device))
    whole = _nvml(int(device.partition(":")[2] or 0))
    if whole is None:
        import torch as loaded

        free = free_memory(device)  # raises where there is no such device
        whole = int(loaded.cuda.get_device_properties(device).total_memory), free
    return *whole, allocated, reserved


def _nvml(index: int) -> tuple[int, int] | None:
    """Total and free bytes of a card; None without NVML. `CUDA_VISIBLE_DEVICES` renumbers cards for torch alone."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
        visible = [each.strip() for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each.strip()]
        name = visible[index] if index < len(visible) else str(index)
        by_index = pynvml.nvmlDeviceGetHandleByIndex
        handle = by_index(int(name)) if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID(name)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return int(memory.total), int(memory.free)
    except Exception:  # not installed, no driver, no such card, or a container that hides it
        return None

"""Asks a device how much memory is free, and reads and writes sizes as people do."""

from __future__ import annotations

import re

from suffice.errors import UsageError

__all__ = ["RUNTIME_BYTES", "free_memory", "human_bytes", "is_memory_error", "parse_bytes", "return_freed_memory"]

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "std::bad_alloc")
"""Words of torch's RuntimeErrors about memory that are not of the class OutOfMemoryError."""

RUNTIME_BYTES = {"cpu": 120 * 2**20, "cuda": 600 * 2**20}
"""What the runtime takes. CUDA: its context and libraries' workspaces, an allowance. CPU: what libraries load and keep
once they work, measured by the benchmarks."""

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_MMAP_THRESHOLD = 128 * 1024  # bytes: glibc's own first value, which it raises up to 32 MiB by itself

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def free_memory(device: str) -> int:
    """Bytes that a new process could still use on a device (`cpu`, `cuda` or `cuda:N`), on the CPU without swapping.

    Raises:
        UsageError: no such device here.
    """
    if device == "cpu":
        import psutil

        return int(psutil.virtual_memory().available)
    if device.partition(":")[0] != "cuda":
        raise UsageError(f"unknown device {device!r}: it must be cpu, cuda or cuda:N")
    import torch

    if not torch.cuda.is_available():
        raise UsageError(f"device {device!r} is not there: torch finds no CUDA device; use cpu")
    try:
        free, _ = torch.cuda.mem_get_info(torch.device(device))
    except (RuntimeError, ValueError) as error:
        count = torch.cuda.device_count()
        raise UsageError(f"device {device!r} is not there: torch finds {count} CUDA devices ({error})") from None
    return int(free)


def human_bytes(n: float) -> str:
    """`22.4 GiB`, `512 MiB`, `17 bytes`: three digits or so, in powers of 1,024."""
    size, unit = float(n), 0
    while abs(size) >= 1023.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    digits = 0 if unit == 0 or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
    return f"{size:.{digits}f} {_UNITS[unit]}"


def parse_bytes(text: str) -> int:
    """`24GiB`, `24 GB`, `22.5g`, `512MiB`: bytes. `G`, `GB` and `GiB` all mean powers of 1,024, as on the box of a
    graphics card; a number without a unit is GiB.

    Raises:
        UsageError: it is not a size.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(I?B)?\s*", text.upper())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{text!r} is not an amount of memory: write 24GiB, 22.5G or 512MiB")
    return round(float(match[1]) * 1024 ** (" KMGT".index(match[2]) if match[2] else 0 if match[3] else 3))


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception, Python's own or torch's on any device, says that memory ran out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def return_freed_memory() -> bool:
    """Make this process hand large blocks back to the system as soon as they are freed.

    glibc starts like this and then, seeing large blocks come and go, keeps them on its heap (mallopt(3),
    M_MMAP_THRESHOLD: "dynamic mmap threshold"), where those of a training step leave holes that the next step does not
    fit into. Call it before the first large allocation. It costs page faults.

    Returns:
        Whether the C library understood; False without glibc.
    """
    import ctypes

    try:
        return bool(ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD))
    except (OSError, AttributeError, TypeError):  # no C library to open by itself, or none with mallopt
        return False

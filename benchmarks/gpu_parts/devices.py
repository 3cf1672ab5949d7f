"""What a benchmark does with a device: measure its peaks, fill its memory, and say how fast it is at best."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from suffice.memory.cards import Card, card_here
from suffice.memory.device import RUNTIME_BYTES, free_memory

__all__ = ["Device", "device_named"]

_GIB = 2**30
_LEFT = 32 * 2**20  # bytes that are left when the memory is eaten
_EATEN_SECONDS = 2.0
_BITE_SECONDS = 0.05
_FAILING_STEPS = 3


class Device(Protocol):
    """A card, or the CPU that stands in for one."""

    name: str
    runtime: int
    """Bytes of the runtime that `peak` does not see."""
    runs_largest_step: bool
    """Whether an engine runs its largest step when it starts."""

    def hold(self, free: float) -> Holder:
        """Another program, that leaves so many GiB."""
        ...

    def command(self, free: float, *arguments: str) -> list[str]:
        """The command line that runs `suffice` where so many GiB are free."""
        ...

    def reset_peak(self) -> None: ...

    def peak(self) -> int:
        """Bytes at most since `reset_peak`."""
        ...

    def card(self) -> Card:
        """With its bandwidth and speed: from the table, else measured."""
        ...

    def eat(self, engine: Any) -> AbstractContextManager[None]:
        """A context in which a running engine's device has no memory left for some time."""
        ...

    def wait(self) -> None:
        """Until the device has done what it was given."""
        ...


class Holder(Protocol):
    """Holds memory until it is closed."""

    def close(self) -> None: ...


class _CudaHolder:
    """A process that holds memory of the card."""

    def __init__(self, free: float) -> None:
        command = [sys.executable, "-P", str(Path(__file__).with_name("hold.py")), str(free)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("held"):
            raise RuntimeError("the process that was to hold the rest of the card has ended")

    def close(self) -> None:
        self._process.communicate()  # its standard input ends, and so does it


class CudaDevice:
    """The first CUDA device."""

    name = "cuda"
    runtime = RUNTIME_BYTES["cuda"]
    runs_largest_step = True

    def hold(self, free: float) -> Holder:
        return _CudaHolder(free)

    def command(self, free: float, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "suffice", *arguments]

    def reset_peak(self) -> None:
        import torch

        torch.cuda.init()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        import torch

        return int(torch.cuda.max_memory_allocated())

    def card(self) -> Card:
        return _with_speeds(card_here(), self.name, side=8192)

    @contextmanager
    def eat(self, engine: Any) -> Iterator[None]:
        """Takes all that is left for two seconds; `engine` is not touched."""
        import threading

        import torch

        def take() -> None:
            eaten, ends = [], time.monotonic() + _EATEN_SECONDS
            while time.monotonic() < ends:  # again and again: what the engine gives back is taken, too
                torch.cuda.empty_cache()
                with suppress(torch.OutOfMemoryError):
                    there = max(0, free_memory(self.name) - _LEFT)
                    eaten.append(torch.empty(there, dtype=torch.uint8, device=self.name))
                time.sleep(_BITE_SECONDS)
            eaten.clear()
            torch.cuda.empty_cache()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def wait(self) -> None:
        import torch

        torch.cuda.synchronize()


class _NoHolder:
    def close(self) -> None:
        pass


class CpuDevice:
    """The CPU in the place of a card: what is free is pretended, and memory runs out by an exception."""

    name = "cpu"
    runtime = 0
    runs_largest_step = False

    def hold(self, free: float) -> Holder:
        return _NoHolder()

    def command(self, free: float, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gpu_parts.pretend", str(round(free * _GIB)), *arguments]

    def reset_peak(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): VmHWM starts again from what is resident

    def peak(self) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

    def card(self) -> Card:
        return _with_speeds(Card("CPU", free_memory(self.name)), self.name, side=512)

    @contextmanager
    def eat(self, engine: Any) -> Iterator[None]:
        """Lets a few forward passes fail, as those of a card do."""
        import torch

        model, left = engine._ready().model, [_FAILING_STEPS]
        forward = model.forward

        def failing(*args: Any, **kwargs: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise torch.OutOfMemoryError("CUDA out of memory, as pretended here")
            return forward(*args, **kwargs)

        model.forward = failing
        try:
            yield
            assert not left[0], "no step was run while memory was out"
        finally:
            model.forward = forward

    def wait(self) -> None:
        pass


def _with_speeds(found: Card, device: str, side: int) -> Card:
    """A card whose bandwidth and speed are known, or else measured."""
    if found.bandwidth is not None and found.flops is not None:
        return found
    import torch

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    large = torch.ones(16 * side * side, dtype=dtype, device=device)
    product = _seconds(lambda: float((matrix @ matrix)[0, 0]))
    copied = _seconds(lambda: float(large.clone()[0]))
    name = f"{found.name} (speeds measured)"
    return Card(name, found.memory, bandwidth=2 * large.nbytes / copied, flops=2 * side**3 / product)


def _seconds(work: Callable[[], object]) -> float:
    """Of the fastest of five runs; the first warms up."""
    return min([_timed(work) for _ in range(5)][1:])


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def device_named(name: str) -> Device:
    """`cuda` or `cpu`."""
    return CudaDevice() if name == "cuda" else CpuDevice()

"""How much memory training uses, and the error for people when there is not enough."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from suffice.errors import EngineError
from suffice.memory import free_memory, human_bytes, is_memory_error

__all__ = ["explained_memory_errors", "memory_in_use"]


def memory_in_use(device: str) -> int:
    """Bytes: the peak that torch has allocated on a CUDA device, or this process's resident memory now."""
    if device == "cpu":
        import psutil

        return int(psutil.Process().memory_info().rss)
    import torch

    return int(torch.cuda.max_memory_allocated(device))


@contextmanager
def explained_memory_errors(device: str, run: Path) -> Iterator[None]:
    """Turn running out of memory into an EngineError for people, with the figures, what to change and what is saved."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_memory_error(error):
            raise
        used, free = human_bytes(memory_in_use(device)), human_bytes(free_memory(device))
        saved = sorted(path.name for path in run.glob("checkpoint-*"))
        kept = f"{', '.join(saved)} in {run}: continue with --resume {run}" if saved else "nothing was saved yet"
        raise EngineError(
            f"out of memory on {device}: {used} in use, {free} free. Take a smaller --per_device_train_batch_size or "
            f"--max_length, --gradient_checkpointing true, or --quantization 4bit (--fit auto chooses); saved: {kept}"
        ) from error

"""Which engine a model is run with, where the caller leaves it open: the fastest that is installed and can run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["EngineChoice", "choose_engine", "settle_engine"]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    kind: Literal["transformers", "vllm"]
    reason: str
    """Which and why, in one line, with the command that would install the faster one."""
    worth_saying: bool = True
    """False where there was nothing to choose: no GPU, or the bundled model."""


def choose_engine(
    model: str | Path | None = None,
    *,
    adapters: Sequence[str | Path] = (),
    device: str = "auto",
    engine_python: str | None = None,
) -> EngineChoice:
    """vLLM on CUDA where it is installed, else transformers. Nothing is loaded, and no GPU is touched.

    Args:
        model: as `open_engine` takes it.
        adapters: likewise.
        device: likewise.
        engine_python: where vLLM may be installed; None for this environment.

    Raises:
        UsageError: `engine_python` is no interpreter, or the vLLM there is too old.
    """
    from suffice.engines.managed.programs import PROGRAMS, find_program
    from suffice.memory.gpus import visible_gpus

    if model is None and not adapters:
        return _transformers("the bundled model is too small for anything else", worth_saying=False)
    if device.startswith("cpu"):
        return _transformers("it is to run on the CPU", worth_saying=False)
    gpus = visible_gpus()
    if not gpus:
        return _transformers("no CUDA device is here", worth_saying=False)
    vllm = find_program("vllm", engine_python)
    if vllm is None:
        where = f"at {engine_python}" if engine_python else "here"
        install = PROGRAMS["vllm"].install
        return _transformers(f"vLLM is not installed {where}, and would be faster: {install}")
    if vllm.for_cpu:
        return _transformers(f"{vllm.package} {vllm.version} is a build for the CPU: {PROGRAMS['vllm'].install}")
    if len(adapters) > 1:
        return _transformers("it merges several adapters, and vLLM does not: suffice export --merge does it for good")
    return EngineChoice("vllm", f"engine: vLLM {vllm.version} on {gpus[0].name} (--engine transformers for the other)")


def settle_engine(
    asked: str | None,
    model: str | Path | None = None,
    *,
    adapters: Sequence[str | Path] = (),
    device: str = "auto",
    engine_python: str | None = None,
) -> tuple[str, str]:
    """The kind of engine that was asked for; where that is None or `auto`, the one that is chosen, and why it is that
    one, or '' where there was no choice. Arguments and errors are those of `choose_engine`."""
    if asked not in (None, "auto"):
        return str(asked), ""
    choice = choose_engine(model, adapters=adapters, device=device, engine_python=engine_python)
    return choice.kind, choice.reason if choice.worth_saying or asked == "auto" else ""


def _transformers(why: str, *, worth_saying: bool = True) -> EngineChoice:
    return EngineChoice("transformers", f"engine: transformers, because {why}", worth_saying)

"""Processors, memory and graphics cards: what there is, and what is free for us."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suffice.cli.doctor.findings import Section
from suffice.memory.device import human_bytes
from suffice.memory.gpus import VisibleGpu, visible_gpus

__all__ = ["CgroupLimits", "blame_gpus", "hardware"]

_CGROUPS = Path("/sys/fs/cgroup")
_LITTLE = 1 << 30  # bytes of free memory with which nothing but the bundled model runs
_MOSTLY_TAKEN = 0.1  # share of a card's memory that is free


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """What a container may use; None where nothing is said."""

    cores: float | None = None
    memory: int | None = None
    """Bytes."""

    @classmethod
    def read(cls, root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> CgroupLimits:
        """The tightest limits on the way from this process's group up to the root, in either version of cgroups."""
        cores, memory = [], []
        for folder in _groups(root, own):
            quota, _, period = _text(folder / "cpu.max").partition(" ")
            if quota.isdigit() and period.isdigit():
                cores.append(int(quota) / int(period))
            memory += [
                int(text)
                for name in ("memory.max", "memory.limit_in_bytes")
                if (text := _text(folder / name)).isdigit()
            ]
        old = _text(root / "cpu" / "cpu.cfs_quota_us"), _text(root / "cpu" / "cpu.cfs_period_us")
        if all(text.isdigit() for text in old):
            cores.append(int(old[0]) / int(old[1]))
        limits = [each for each in memory if each < 1 << 60]  # version 1 writes almost 2^63 for "none"
        return cls(min(cores, default=None), min(limits, default=None))


def _groups(root: Path, own: Path) -> Iterator[Path]:
    yield root / "memory"  # version 1
    path = next((line[3:] for line in _text(own).splitlines() if line.startswith("0::")), "/")
    folder = root / path.strip("/")
    while folder.is_relative_to(root):
        yield folder
        folder = folder.parent


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def hardware() -> Section:
    """The section of the report."""
    section, limits = Section("Hardware"), CgroupLimits.read()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    container = f", {limits.cores:g} of them for this container" if limits.cores else ""
    section.facts["processor"] = f"{_processor()}, {usable} cores{container}"
    _memory(section, limits)
    gpus, driver = visible_gpus(), _driver()
    for gpu in gpus:
        section.facts[f"GPU {gpu.id}"] = f"{gpu.name}, {human_bytes(gpu.free)} free of {human_bytes(gpu.total)}"
    section.facts |= {} if gpus else {"GPU": "none"}
    section.facts |= {"driver": driver} if driver else {}
    blame_gpus(section, gpus, driver, _torch())
    return section


def _processor() -> str:
    names = [
        line.partition(":")[2].strip() for line in _text(Path("/proc/cpuinfo")).splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor() or platform.machine()


def _memory(section: Section, limits: CgroupLimits) -> None:
    try:
        import psutil
    except ImportError:
        section.facts["memory"] = "not known without the package psutil"
        return
    memory = psutil.virtual_memory()
    container = f"; this container may use {human_bytes(limits.memory)}" if limits.memory else ""
    section.facts["memory"] = f"{human_bytes(memory.available)} free of {human_bytes(memory.total)}{container}"
    if min(memory.available, limits.memory or memory.available) < _LITTLE:
        section.blame("less than 1 GiB of memory is free", "end other programs, or use a server: --upstream URL")


def _driver() -> str:
    """The version of NVIDIA's driver; empty where there is none."""
    try:
        import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no package, no driver, no permission
        return ""


def _torch() -> Any:
    """The module if `engines` has found that it loads."""
    return sys.modules.get("torch")


def blame_gpus(section: Section, gpus: Sequence[VisibleGpu], driver: str, torch: Any) -> None:
    """Cards that cannot be used, or are full."""
    if driver and not gpus and os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        section.blame("CUDA_VISIBLE_DEVICES hides every GPU", "unset CUDA_VISIBLE_DEVICES")
    if gpus and torch is not None and not torch.cuda.is_available():
        if torch.version.cuda is None:
            section.blame("this torch is built for the CPU and uses no GPU", "install a build of torch for CUDA")
        else:
            needs = f"torch is built for CUDA {torch.version.cuda}, which the driver {driver} does not run"
            section.blame(needs, "update the driver, or install a build of torch for an older CUDA")
    for gpu in gpus:
        if gpu.free < _MOSTLY_TAKEN * gpu.total:
            free = f"GPU {gpu.id} has {human_bytes(gpu.free)} free of {human_bytes(gpu.total)}"
            section.blame(free, "nvidia-smi shows the programs that hold the rest")

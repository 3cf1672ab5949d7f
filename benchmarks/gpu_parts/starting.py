"""The parts that run the command: it starts and answers in little memory, and says what would fit in too little."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from gpu_parts.devices import Device
from gpu_parts.results import PartResult
from gpu_parts.sizes import Size

__all__ = ["starts", "too_little"]

_ENDED = re.compile(r"\d tokens?, .*; (?!FAILED)")
"""In the line that follows every answer."""
_FAILED = re.compile(r"^error: |; FAILED: ")
"""In the line of a model that does not start, and of one that cannot answer."""


def starts(device: Device, size: Size, model: Path, env: Mapping[str, str], seconds: float) -> PartResult:
    """`suffice infer --prompt` where `size.free` GiB are free."""
    result, (took, ran) = PartResult("start"), _infer(device, size.free, model, env, seconds)
    said = ran.stderr.strip().splitlines() or [""]
    cache = next((line for line in said if line.startswith("KV cache")), "")
    result.rows.append({"free_gib": size.free, "start_and_answer_s": took, "cache": cache})
    result.check(f"starts with {size.free} GiB free", ran.returncode == 0, said[-1])
    result.check("answers", _ENDED.search(said[-1]) is not None, said[-1])
    return result


def too_little(device: Device, size: Size, model: Path, env: Mapping[str, str], seconds: float) -> PartResult:
    """The same where the model cannot run: one line, that says what would fit."""
    result, (took, ran) = PartResult("too-little"), _infer(device, size.too_little, model, env, seconds)
    errors = [line for line in ran.stderr.splitlines() if _FAILED.search(line)]
    said = errors[0] if errors else ran.stderr[-300:]
    result.rows.append({"free_gib": size.too_little, "refused_after_s": took, "said": said})
    result.check(f"does not start with {size.too_little} GiB free", ran.returncode != 0, said)
    result.check("says so in one line", len(errors) == 1 and "Traceback" not in ran.stderr, said)
    result.check("says what would fit", "fit" in said, said)
    return result


def _infer(
    device: Device, free: float, model: Path, env: Mapping[str, str], seconds: float
) -> tuple[float, subprocess.CompletedProcess[str]]:
    asked = ("--prompt", "hi", "--max_new_tokens", "32", "--temperature", "0")
    command = device.command(free, "infer", "--model", str(model), "--engine", "transformers", *asked)
    if device.name == "cpu":
        command += ["--device", "cpu"]
    began = time.perf_counter()
    ran = subprocess.run(
        command, capture_output=True, text=True, env=dict(env), timeout=seconds, stdin=subprocess.DEVNULL
    )
    return time.perf_counter() - began, ran

"""A process that loads the model once and runs parts, one after the other; each is told as a line of JSON.

Run by `gpu.py`:  python -m gpu_parts.worker --size tiny --model FOLDER PART...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from gpu_parts.answering import (
    Run,
    continued_answers,
    measure_speed,
    memory_of_inference,
    recovery,
    speed_of_generate,
    speed_of_transformers,
)
from gpu_parts.devices import device_named
from gpu_parts.model import make_model
from gpu_parts.results import PartResult
from gpu_parts.sizes import SIZES, Size
from suffice.checkpoints.load_model import LoadedModel, load_model
from suffice.checkpoints.model_source import resolve_model
from suffice.errors import first_line


async def fine_tuning(run: Run) -> PartResult:
    """Imports what training needs only where it is run."""
    from gpu_parts import training

    return await training.fine_tuning(run)


PARTS: dict[str, Callable[[Run], Coroutine[Any, Any, PartResult]]] = {
    "generate": speed_of_generate,
    "speed": speed_of_transformers,
    "memory": memory_of_inference,
    "continuation": continued_answers,
    "recovery": recovery,
    "training": fine_tuning,
}


async def speed_of_vllm(size: Size, model: Path, python: str | None) -> PartResult:
    """vLLM as a child process, asked as every caller asks it."""
    from suffice.engines.managed.engine import VllmEngine

    began = time.perf_counter()
    async with VllmEngine(model, device=size.device, engine_python=python) as engine:
        started = time.perf_counter() - began
        rows = await measure_speed(engine, "vllm", size.speed)
    return PartResult("vllm", [row | {"start_s": started} for row in rows])


def load(size: Size, model: Path, *, weights: bool) -> Run:
    """The model, or for training, which loads it by itself, its tokenizer."""
    import transformers

    device, source = device_named(size.device), resolve_model(str(model))
    device.reset_peak()
    before = device.peak()
    if weights:
        return Run(size, device, load_model(source, device=size.device), before)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    return Run(size, device, LoadedModel(source, None, tokenizer), before)


def tell(part: str, work: Callable[[], PartResult]) -> None:
    """Run a part, and print its result; whatever goes wrong in it is its result, and the next one runs."""
    began = time.perf_counter()
    try:
        result = work()
    except Exception as error:
        result = PartResult.failed(part, f"{type(error).__name__}: {first_line(error)}")
    result.seconds = time.perf_counter() - began
    print(json.dumps(result.to_dict()), flush=True)


def main() -> None:
    """Run the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--size", choices=sorted(SIZES), required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--engine-python")
    args = parser.parse_args()
    size, run = SIZES[args.size], None
    for part in args.parts:
        if part == "make":
            tell(part, lambda: make_model(args.model, size))
        elif part == "vllm":
            tell(part, lambda: asyncio.run(speed_of_vllm(size, args.model, args.engine_python)))
        else:
            run = run or load(size, args.model, weights=part != "training")
            run.device.reset_peak()  # what the part before has left in caches
            tell(part, lambda part=part, run=run: asyncio.run(PARTS[part](run)))  # type: ignore[misc]


if __name__ == "__main__":
    main()

"""Does everything hold on one card, and how fast is it? Some minutes, no network, one command.

A random model of Qwen2.5-7B's shape (bf16) is made, another process holds the card's memory but for 22.5 GiB, so that
any card stands for one of 24 GB, and then:

    start         `suffice infer --prompt` starts and answers
    too-little    with 12 GiB, it says in one line what would fit
    generate      tokens/s of transformers' `generate`, and of the roofline
    speed, vllm   tokens/s and first token of each engine that is installed, at 1, 32 and 128 requests
    memory        forecast of inference against the peak, at three settings
    continuation  answers that were continued are byte-identical to those at once
    recovery      memory is eaten while requests run
    training      `sft`: step time and peak of the recipe, forecast against the peak at three settings

Run:  python benchmarks/gpu.py [--output results.json] [--engine transformers vllm] [--minutes 8] [--size tiny]

Each part has its share of the time, in a process that is ended when that is over; the others go on. The exit status is
1 when a check has failed: a part that did not come to its end, an engine slower than `generate`, a forecast more than
10 % below or 35 % above what was measured. `--size tiny` runs all of it on the CPU, where what is free is pretended,
and speed is not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_parts.devices import device_named
from gpu_parts.results import PartResult
from gpu_parts.sizes import SIZES, Size
from gpu_parts.starting import starts, too_little
from suffice.errors import first_line
from suffice.memory import human_bytes

HERE = Path(__file__).parent
SECONDS = {
    "make": 90,
    "start": 75,
    "too-little": 45,
    "generate": 75,
    "speed": 75,
    "memory": 75,
    "continuation": 45,
    "recovery": 45,
    "training": 150,
    "vllm": 180,
}
"""The most that each part may take; all together may take `--minutes`."""
LOADING = 60
"""Seconds more for the first part of a process."""


@dataclass
class Bench:
    """One run of the benchmark."""

    size_name: str
    model: Path
    engine_python: str | None
    ends: float
    """By `time.monotonic()`."""
    worker: Sequence[str] = ("-m", "gpu_parts.worker")
    """What Python runs for parts in a process of their own."""
    results: list[PartResult] = field(default_factory=list)

    @property
    def size(self) -> Size:
        return SIZES[self.size_name]

    @property
    def env(self) -> dict[str, str]:
        """Of child processes: the parts can be imported, and nothing is fetched."""
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

    def seconds(self, part: str) -> float:
        """That a part may still take."""
        return min(SECONDS[part], self.ends - time.monotonic())

    def add(self, result: PartResult) -> None:
        """Keep a result, and say how it went."""
        self.results.append(result)
        failed = sum(not each.ok for each in result.checks)
        state = f"{failed} of {len(result.checks)} checks failed" if failed else "ok"
        print(f"{result.part}: {state} ({result.seconds:.0f} s)", file=sys.stderr, flush=True)

    def here(self, part: str, work: Callable[[float], PartResult]) -> None:
        """A part of this process, which is given its seconds."""
        began = time.monotonic()
        try:
            result = work(max(1.0, self.seconds(part)))
        except Exception as error:  # a part that fails is said, and the others run
            result = PartResult.failed(part, f"{type(error).__name__}: {first_line(error)}")
        result.seconds = time.monotonic() - began
        self.add(result)

    async def there(self, parts: Sequence[str]) -> None:
        """Parts of one other process, and of another when it dies or one of them takes too long."""
        left = list(parts)
        while left:
            if self.seconds(left[0]) <= 0:
                self.add(PartResult.failed(left.pop(0), "no time was left"))
                continue
            done, why = await self._worker(left)
            left = left[done:]
            if left and why:
                self.add(PartResult.failed(left.pop(0), why))

    async def _worker(self, parts: Sequence[str]) -> tuple[int, str]:
        """How many parts a process reported, and why no more."""
        command = [*self.worker, "--size", self.size_name, "--model", str(self.model)]
        command += ["--engine-python", self.engine_python] if self.engine_python else []
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *parts,
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env=self.env,
            limit=2**24,
        )
        done, more = 0, LOADING
        try:
            while done < len(parts):
                patience = self.seconds(parts[done]) + min(more, max(0.0, self.ends - time.monotonic()))
                result = await asyncio.wait_for(_next_result(worker.stdout), max(1.0, patience))
                if result is None:
                    return done, f"its process ended, with status {await worker.wait()}"
                done, more = done + 1, 0
                self.add(result)
            return done, ""
        except TimeoutError:
            return done, f"it took more than its {patience:.0f} s"
        finally:
            if worker.returncode is None and done < len(parts):
                worker.kill()
            await worker.wait()


async def _next_result(lines: Any) -> PartResult | None:
    """None at the end; what libraries print goes on to the terminal."""
    while line := (await lines.readline()).decode():
        if line.startswith('{"part"'):
            return PartResult.from_dict(json.loads(line))
        print(line.rstrip(), file=sys.stderr)
    return None


def installed_engines(python: str | None) -> list[str]:
    """Those of `transformers` and `vllm` that can be started here."""
    from suffice.engines.managed.programs import find_program

    return ["transformers", *(["vllm"] if find_program("vllm", python) else [])]


def compare_speeds(bench: Bench) -> None:
    """Each engine beside `generate` and the roofline, in its rows; slower is a failure where it is judged."""
    rows = [row for result in bench.results for row in result.rows]
    plain = {row["requests"]: row for row in rows if row.get("engine") == "generate"}
    for result in bench.results:
        if result.part not in ("speed", "vllm"):
            continue
        for row in result.rows:
            if (other := plain.get(row["requests"])) is None:
                continue
            row["of_generate"] = row["tokens_per_s"] / other["tokens_per_s"]
            if other["roofline_tokens_per_s"]:
                row["of_roofline"] = row["tokens_per_s"] / other["roofline_tokens_per_s"]
            if bench.size.not_slower:
                what = f"{row['engine']} no slower than generate at {row['requests']}"
                result.check(what, row["of_generate"] >= 1, f"{row['of_generate']:.2f} times")


async def run_all(bench: Bench, engines: Sequence[str]) -> None:
    """Every part, in an order in which the most important are done if time runs out."""
    device = device_named(bench.size.device)
    model, size = bench.model, bench.size
    await bench.there(["make"])
    if not (model / "tokenizer.json").exists():
        return
    with closing(device.hold(size.free)):
        bench.here("start", lambda seconds: starts(device, size, model, bench.env, seconds))
        with closing(device.hold(size.too_little)):
            bench.here("too-little", lambda seconds: too_little(device, size, model, bench.env, seconds))
        with_model = ["generate", "speed"] if "transformers" in engines else ["generate"]
        await bench.there([*with_model, "continuation", "memory", "recovery"])
        await bench.there(["training"])
        if "vllm" in engines:
            await bench.there(["vllm"])
    compare_speeds(bench)


def table(results: Sequence[PartResult]) -> list[str]:
    """Every row and every failed check, part by part."""
    lines = []
    for result in results:
        lines.append(f"\n{result.part} ({result.seconds:.1f} s)")
        lines += [f"  {line}" for line in _columns(result.rows) if result.rows]
        lines += [f"  FAILED: {each.what}: {each.said}" for each in result.checks if not each.ok]
    return lines


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows under the names of their values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_shown(name, row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("bytes"):
        return human_bytes(value)
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
    return str(value)


def facts(size: Size) -> dict[str, Any]:
    """What the figures depend on."""
    import torch
    import transformers

    from suffice.memory.cards import card_here

    hardware = platform.processor() or platform.machine() if size.device == "cpu" else card_here().name
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    return {"device": hardware, **versions, "free_gib": size.free}


def _cuda_is_here() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def main() -> int:
    """Run, print a table, write JSON; 1 when a check has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SIZES), default="7b", help="tiny runs on the CPU [default: 7b]")
    parser.add_argument("--engine", nargs="+", choices=("transformers", "vllm"), help="[default: what is installed]")
    parser.add_argument("--engine-python", help="the Python or virtual environment that has vLLM")
    parser.add_argument("--minutes", type=float, default=8, help="for all of it [default: 8]")
    parser.add_argument("--output", type=Path, help="write the results there, as JSON")
    args = parser.parse_args()
    if SIZES[args.size].device == "cuda" and not _cuda_is_here():
        parser.error("torch finds no CUDA device here; --size tiny runs everything on the CPU")
    began = time.monotonic()
    engines = args.engine or (["transformers"] if args.size == "tiny" else installed_engines(args.engine_python))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.size, Path(folder), args.engine_python, began + 60 * args.minutes)
        try:
            asyncio.run(run_all(bench, engines))
        except RuntimeError as error:
            bench.add(PartResult.failed("hold", str(error)))
    report = {"size": args.size, **facts(bench.size), "seconds": round(time.monotonic() - began, 1)}
    print(*(f"{name} {value}" for name, value in report.items()), sep=", ")
    print("\n".join(table(bench.results)))
    failed = sum(not check.ok for result in bench.results for check in result.checks)
    checks = sum(len(result.checks) for result in bench.results)
    print(f"\n{checks - failed} of {checks} checks hold")
    if args.output:
        document = report | {"failed": failed, "parts": [each.to_dict() for each in bench.results]}
        args.output.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())

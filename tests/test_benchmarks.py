"""The benchmark for a card: its parts on the CPU, and what counts as a failure."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def a_bench(gpu: Any, size: str, **more: Any) -> Any:
    return gpu.Bench(size, Path("nowhere"), None, **{"ends": time.monotonic() + 600, **more})


@pytest.mark.parametrize(("size", "failed"), [("7b", ["transformers no slower than generate at 32"]), ("tiny", [])])
def test_an_engine_slower_than_generate_is_a_failure_on_a_card(gpu: Any, size: str, failed: list[str]) -> None:
    def row(engine: str, requests: int, speed: float, **more: Any) -> dict[str, Any]:
        return {"engine": engine, "requests": requests, "tokens_per_s": speed, **more}

    bench, best = a_bench(gpu, size), {"roofline_tokens_per_s": 1000.0}
    bench.results = [
        gpu.PartResult("generate", [row("generate", 1, 20.0, **best), row("generate", 32, 500.0, **best)]),
        gpu.PartResult("speed", [row("transformers", 1, 40.0), row("transformers", 32, 400.0)]),
    ]
    gpu.compare_speeds(bench)
    assert [check.what for check in bench.results[1].checks if not check.ok] == failed
    assert [each["of_generate"] for each in bench.results[1].rows] == [2.0, 0.8]


WORKER = """
import json, sys, time
for part in sys.argv[5:]:
    if part == "speed":
        sys.exit(3)
    if part == "memory":
        time.sleep(600)
    print("said by a library")
    print(json.dumps({"part": part, "rows": [], "checks": [], "seconds": 1}), flush=True)
"""


def test_a_part_that_dies_or_hangs_is_said_and_the_others_run(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.SECONDS, "memory", 0.2)
    monkeypatch.setattr(gpu, "LOADING", 0.2)
    bench = a_bench(gpu, "tiny", worker=("-c", WORKER))
    asyncio.run(bench.there(["generate", "speed", "memory", "recovery"]))
    assert [(each.part, [check.said for check in each.checks]) for each in bench.results] == [
        ("generate", []),
        ("speed", ["its process ended, with status 3"]),
        ("memory", ["it took more than its 0 s"]),
        ("recovery", []),
    ]


def test_parts_without_time_are_said(gpu: Any) -> None:
    bench = a_bench(gpu, "tiny", ends=time.monotonic())
    asyncio.run(bench.there(["generate", "speed"]))
    assert [(each.part, each.checks[0].said) for each in bench.results] == [
        ("generate", "no time was left"),
        ("speed", "no time was left"),
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_part_runs_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--size", "tiny", "--output", str(tmp_path / "out.json")]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {each["part"]: each for each in json.loads((tmp_path / "out.json").read_text())["parts"]}
    assert set(parts) == {
        *("make", "start", "too-little", "generate", "speed", "memory", "continuation", "recovery", "training")
    }
    assert all(each["rows"] for each in parts.values())
    assert all(row["steps_out_of_memory"] > 0 for row in parts["recovery"]["rows"])

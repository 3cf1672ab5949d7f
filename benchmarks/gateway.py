"""What a gateway costs: one trivial upstream, asked directly, through a minimal pass-through, and through Suffice.

    python benchmarks/gateway.py
    python benchmarks/gateway.py --litellm /path/to/venv/bin/litellm

Suffice runs with a key, limits, budgets, accounting, metrics and the access log on. The gateway under test has the
first core to itself, upstream and load share the second. All arms in turn in every round, medians of rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway_parts import MODEL, Load, measure

PARTS = str(Path(__file__).with_name("gateway_parts.py"))
TARGETS = "targets: requests/s and streams/s >= 0.5 x pass-through; <= 2 ms added; <= 150 MB; <= 1.5 s to start"


_LITELLM_OFFLINE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}  # it asks the net at start


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Arm:
    """One way to the upstream, and what was measured of it."""

    name: str
    command: list[str]
    port: int
    key: str = ""
    health: str = "/health"
    environment: Mapping[str, str] = field(default_factory=dict)
    """Set for it, beside what is set anyway."""
    start: float = 0.0
    start_cpu: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    alone: list[Load] = field(default_factory=list)
    requests: list[Load] = field(default_factory=list)
    streams: list[Load] = field(default_factory=list)

    def run(self, core: int, patience: float = 300.0) -> None:
        """Start it on one core, and wait until it answers."""
        started = time.perf_counter()
        self.process = subprocess.Popen(
            self.command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5):
                    break
            except OSError:
                if self.process.poll() is not None or time.perf_counter() - started > patience:
                    sys.exit(f"{self.name} did not start: {' '.join(self.command)}")
                time.sleep(0.02)
        self.start, self.start_cpu = time.perf_counter() - started, self.cpu_seconds()

    def megabytes(self) -> float:
        """Resident memory."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        assert self.process is not None
        values = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()


def suffice_arm(upstream: str, folder: Path) -> Arm:
    """Everything on: a key with limits that are counted and not reached, rows, metrics, log."""
    database = f"sqlite:///{folder}/serve.db"
    suffice = [sys.executable, "-m", "suffice.cli.main"]
    permits = ["--rpm", "100000000", "--tpm", "1000000000", "--tokens-per-day", "1000000000"]
    made = subprocess.run(
        [*suffice, "keys", "create", "load", "--database", database, *permits], capture_output=True, check=True
    )
    port = free_port()
    command = [*suffice, "serve", "--upstream", upstream, "--port", str(port), "--database", database]
    return Arm("suffice", command, port, key=made.stdout.decode().strip())


def litellm_arm(executable: str, upstream: str, folder: Path) -> Arm:
    """Its proxy, with one model, the master key without which it does not start, and nothing else on."""
    config, key = folder / "litellm.yaml", f"sk-{secrets.token_hex(32)}"
    config.write_text(
        f"model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n"
        f"      api_base: {upstream}/v1\n      api_key: none\ngeneral_settings:\n  master_key: {key}\n"
    )
    port = free_port()
    command = [executable, "--config", str(config), "--port", str(port), "--num_workers", "1"]
    return Arm("litellm", command, port, key=key, health="/health/liveliness", environment=_LITELLM_OFFLINE)


async def one_round(arm: Arm, seconds: float) -> None:
    for into, connections, stream in ((arm.alone, 1, False), (arm.requests, 32, False), (arm.streams, 32, True)):
        before = arm.cpu_seconds()
        load = await measure(arm.port, connections=connections, seconds=seconds, stream=stream, key=arm.key)
        load.cpu_seconds = arm.cpu_seconds() - before
        into.append(load)


def report(arms: list[Arm]) -> dict[str, dict[str, float]]:
    """Prints the table and returns its numbers."""
    found = {arm.name: numbers(arm) for arm in arms}
    names = list(found["upstream"])
    print(f"| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    for name, values in found.items():
        print(f"| {name} | {' | '.join(f'{value:,.2f}' for value in values.values())} |")
    return found


def numbers(arm: Arm) -> dict[str, float]:
    """What is told of an arm: medians of its rounds."""

    def median(of: Callable[[Load], float], loads: list[Load]) -> float:
        return statistics.median(map(of, loads))

    return {
        "alone p50 ms": median(lambda load: load.quantile(0.5), arm.alone),
        "p99 ms": median(lambda load: load.quantile(0.99), arm.alone),
        "requests/s": median(lambda load: load.per_second, arm.requests),
        "streams/s": median(lambda load: load.per_second, arm.streams),
        "CPU ms/request": median(lambda load: load.cpu_per_answer, arm.requests),
        "CPU ms/stream": median(lambda load: load.cpu_per_answer, arm.streams),
        "start s": arm.start,
        "start CPU s": arm.start_cpu,
        "RSS MB": arm.megabytes(),
        "errors": float(sum(load.errors for load in (*arm.alone, *arm.requests, *arm.streams))),
    }


def compare(found: dict[str, dict[str, float]]) -> None:
    """Prints ratios, by the clock and by processor time, which other programs on the machine disturb less."""
    ours, bare = found["suffice"], found["upstream"]
    print(f"\nadded p50: {ours['alone p50 ms'] - bare['alone p50 ms']:.2f} ms")
    for name, other in found.items():
        if name in ("suffice", "upstream"):
            continue
        clock = [ours[each] / other[each] for each in ("requests/s", "streams/s")]
        cpu = [other[each] / ours[each] for each in ("CPU ms/request", "CPU ms/stream")]
        print(f"against {name}: {clock[0]:.2f} x requests/s, {clock[1]:.2f} x streams/s; ", end="")
        print(f"by CPU time {cpu[0]:.2f} x and {cpu[1]:.2f} x")
    print(TARGETS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", help="LiteLLM's executable, in an environment of its own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    gateway, rest = cores[0], cores[-1]
    os.sched_setaffinity(0, {rest})
    port = free_port()
    bare = Arm("upstream", [sys.executable, PARTS, "upstream", str(port)], port)
    url = f"http://127.0.0.1:{port}"
    arms = [bare]
    with tempfile.TemporaryDirectory() as folder:
        try:
            bare.run(rest)
            passing = free_port()
            command = [sys.executable, PARTS, "pass-through", str(passing), url]
            arms += [Arm("pass-through", command, passing), suffice_arm(url, Path(folder))]
            if options.litellm:
                arms.append(litellm_arm(options.litellm, url, Path(folder)))
            for arm in arms[1:]:
                arm.run(gateway)
            for arm in arms:  # warm up
                asyncio.run(measure(arm.port, connections=4, seconds=0.5, stream=False, key=arm.key))
            for _ in range(options.rounds):
                for arm in arms:
                    asyncio.run(one_round(arm, options.seconds))
            compare(report(arms))
        finally:
            for arm in arms:
                arm.stop()


if __name__ == "__main__":
    main()

"""Clients that go away, databases that are not there, many streams at once, and memory over minutes."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import tempfile
import time
from pathlib import Path

import aiohttp

from reliability_parts.clients import Attempt, Clients, Story
from reliability_parts.house import House, Process, a_house, counts, free_port, replica, rows, until, upstream
from reliability_parts.scenarios import held, probe

__all__ = ["disconnects", "memory", "starts", "streams"]

_SAMPLE_SECONDS = 5.0


async def disconnects(house: House, clients: int = 50) -> str:
    """Clients that go away in the middle of an answer: a table of how soon upstream, slots and limits are free."""
    lines = [
        "| clients that go away | ended upstream | all of them after | held after | rows | limits count / rows say |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for stream in (True, False):
        before = sum(await probe(house, house.replicas[0]))
        gone = sum(counts(each)["abandoned"] for each in house.upstreams)
        name = f"gone-{stream}-{time.time():.0f}"
        await _leave(house, name, clients, stream)
        took = await until(lambda: not sum(counts(each)["running"] for each in house.upstreams), 10)
        ended = sum(counts(each)["abandoned"] for each in house.upstreams) - gone
        await until(lambda: not held(house), 5)
        left = sum(held(house).values())
        await asyncio.sleep(1.5)
        found = await asyncio.to_thread(rows, house.database, name)
        counted = (await probe(house, house.replicas[0]))[0] - before
        said = sum(row["prompt_tokens"] + row["answer_tokens"] for row in found)
        kind = "streaming" if stream else "not streaming"
        seconds = "never" if took is None else f"{took:.2f} s"
        rows_said = f"{len(found)}, {sum(row['status'] == 499 for row in found)} of them 499"
        lines.append(f"| {clients}, {kind} | {ended} | {seconds} | {left:g} | {rows_said} | {counted} / {said} |")
    return "\n".join(lines)


async def _leave(house: House, name: str, clients: int, stream: bool) -> None:
    """Ask, and close the connection when the answers are under way."""
    body = json.dumps({"messages": [{"role": "user", "content": "go on"}], "max_tokens": 100, "stream": stream})
    writers = []
    for number in range(clients):
        _, writer = await asyncio.open_connection("127.0.0.1", house.replicas[0].port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {house.key}\r\n"
        head += f"x-request-id: {name}-{number}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        writers.append(writer)
    await until(lambda: sum(counts(each)["running"] for each in house.upstreams) == clients, 10)
    await asyncio.sleep(0.3)
    for writer in writers:
        writer.close()


async def starts() -> str:
    """What a gateway does whose database is not there when it starts."""
    lines = ["| database at start | seconds until it ends | status | what it says |", "|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = upstream(folder, 1, 0.0)
        await one.start()
        deaf = socket.create_server(("127.0.0.1", 0))
        silent = deaf.getsockname()[1]
        (folder / "file").write_text("not a database, and long enough to be looked at: " + "x" * 200)
        for what, url in (
            ("PostgreSQL that is not running", f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"),
            (
                "PostgreSQL that takes connections and says nothing",
                f"postgresql://postgres@127.0.0.1:{silent}/postgres",
            ),
            ("a file that is not an SQLite database", f"sqlite:///{folder}/file"),
            ("SQLite in a folder that cannot be made", "sqlite:////proc/none/serve.db"),
        ):
            lines.append(await _start(what, replica(folder, url, [one])))
        await one.kill()
        deaf.close()
    return "\n".join(lines)


async def _start(what: str, gateway: Process) -> str:
    started = time.monotonic()
    program = await asyncio.create_subprocess_exec(
        *gateway.command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await asyncio.wait_for(program.communicate(), 60)
    except TimeoutError:
        program.kill()
        return f"| {what} | not within 60 | | |"
    lines = said.decode().strip().splitlines()
    return f"| {what} | {time.monotonic() - started:.1f} | {program.returncode} | `{lines[-1] if lines else ''}` |"


async def streams(number: int, pieces: int, pace: float) -> None:
    """Many streams at once, each to its end, and what they cost the gateway."""

    async def watch(house: House) -> None:
        gateway = house.replicas[0]
        warm = Clients([gateway.url], house.key, pieces, "warm")
        await warm.load(4, 1.0)
        idle, cpu, started = gateway.megabytes(), gateway.cpu_seconds(), time.monotonic()
        clients = Clients([gateway.url], house.key, pieces, "stream")
        watching = asyncio.create_task(_peaks(gateway))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            await asyncio.gather(*(_hold(http, clients, n, gateway) for n in range(number)))
        seconds = time.monotonic() - started
        watching.cancel()
        most, busy = await watching
        cpu = gateway.cpu_seconds() - cpu
        await until(lambda: not held(house), 15)
        await asyncio.sleep(1.5)
        found = await asyncio.to_thread(rows, house.database, "stream-")
        seen = dict(clients.last())
        print(f"- {number} streams of {pieces} pieces, one piece every {pace:g} s each: {seen}, in {seconds:.1f} s")
        print(f"- most at once, by the gateway's own gauge: {busy:.0f}; held afterwards: {sum(held(house).values()):g}")
        print(f"- rows: {len(found)}, of different requests: {len({row['request_id'] for row in found})}")
        print(f"- CPU of the gateway: {cpu:.1f} s, {100 * cpu / seconds:.0f} % of one core, ", end="")
        print(f"{1e6 * cpu / (number * pieces):.0f} µs a piece")
        print(
            f"- memory: {idle:.1f} MB before, {most:.1f} MB at most, {1024 * (most - idle) / number:.0f} kB a stream, ",
            end="",
        )
        print(f"{gateway.megabytes():.1f} MB after")

    async with a_house(pieces, pace, sqlite=True, replicas=1) as house:
        await watch(house)


async def _hold(http: aiohttp.ClientSession, clients: Clients, number: int, gateway: Process) -> None:
    story = Story(stream=True, attempts=[Attempt(f"stream-{number}", gateway.url)])
    clients.stories.append(story)
    await asyncio.sleep(number * 0.004)  # two cores take connections one after another
    await clients.attempt(http, story.attempts[0], stream=True, patience=600.0)


async def _peaks(gateway: Process) -> tuple[float, float]:
    """The most memory and the most running answers that were seen until this is cancelled."""
    most, busy = 0.0, 0.0
    try:
        while True:
            await asyncio.sleep(1.0)
            most = max(most, gateway.megabytes())
            samples = await asyncio.to_thread(gateway.metrics)
            busy = max(busy, samples.get("suffice_requests_running", 0.0))
    except asyncio.CancelledError:
        return most, busy


async def memory(minutes: float, clients: int, pieces: int, pace: float, plot: Path | None) -> None:
    """Memory of one gateway under constant load."""

    async def watch(house: House) -> None:
        gateway = house.replicas[0]
        asking = Clients([gateway.url], house.key, pieces, "memory")
        started = time.monotonic()
        samples: list[tuple[float, float]] = []

        async def sample() -> None:
            while time.monotonic() - started < 60 * minutes:
                samples.append(((time.monotonic() - started) / 60, gateway.megabytes()))
                await asyncio.sleep(_SAMPLE_SECONDS)

        await asyncio.gather(sample(), asking.load(clients, 60 * minutes))
        print(f"- {minutes:g} minutes, {clients} clients: {dict(asking.last())}, ", end="")
        print(f"held afterwards: {sum(held(house).values()):g}")
        print(f"- memory: {samples[0][1]:.1f} MB before, {samples[-1][1]:.1f} MB at the end; ", end="")
        print(
            f"{_slope(samples, minutes / 5, minutes / 2):+.2f} MB a minute from the first fifth to the middle, ", end=""
        )
        print(f"{_slope(samples, minutes / 2, minutes):+.2f} MB a minute in the second half")
        if plot is not None:
            _draw(samples, plot)

    async with a_house(pieces, pace, sqlite=True, replicas=1) as house:
        await watch(house)


def _slope(samples: list[tuple[float, float]], begin: float, end: float) -> float:
    """MB a minute by least squares."""
    return statistics.linear_regression(*zip(*(each for each in samples if begin <= each[0] <= end), strict=True)).slope


def _draw(samples: list[tuple[float, float]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*samples, strict=True), color="#2a6f97", linewidth=1.5)
    axes.set(xlabel="minutes under load", ylabel="resident memory, MB", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(file)

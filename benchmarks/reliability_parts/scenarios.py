"""What is done to a house of two replicas under load, and what is counted afterwards."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from reliability_parts.clients import LOST, REFUSED, Attempt, Clients
from reliability_parts.house import House, PostgreSQL, Process, counts, rows, until

__all__ = ["ON_POSTGRESQL", "ON_SQLITE", "Outcome", "Scenario", "held", "probe", "run_scenario"]


@dataclass
class Outcome:
    """What was seen and what is stored."""

    clients: Clients
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    killed: float | None = None
    """Seconds since 1970, where a replica was killed."""
    held: dict[str, float] = field(default_factory=dict)
    """Gauges that were not back at zero."""
    quota_taken: int = 0
    """Tokens that the limits of the key have counted, on replicas that lived through it."""
    quota_owed: int = 0
    """Tokens that the rows of those replicas say."""

    @property
    def owed(self) -> list[Attempt]:
        """Attempts that must have a row."""
        return [each for each in self.clients.attempts if each.owed]

    @property
    def by_id(self) -> Counter[str]:
        return Counter(row["request_id"] for row in self.rows)

    @property
    def missing(self) -> list[Attempt]:
        """Answered, and without a row."""
        have = self.by_id
        return [each for each in self.owed if not have[each.id]]

    @property
    def lost_without_row(self) -> int:
        have = self.by_id
        return sum(not have[each.id] for each in self.clients.attempts if each.seen == LOST)

    @property
    def duplicates(self) -> int:
        return sum(count - 1 for count in self.by_id.values())

    @property
    def reached(self) -> int:
        """Attempts that came to a server."""
        return sum(each.seen != REFUSED for each in self.clients.attempts)


Action = Callable[[House, Outcome], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One thing that happens under load."""

    name: str
    title: str
    action: Action
    seconds: float = 12.0


async def nothing(house: House, outcome: Outcome) -> None:
    """For comparison."""


async def upstream_killed(house: House, outcome: Outcome) -> None:
    """SIGKILL of one of two upstreams, back after four seconds."""
    await asyncio.sleep(3)
    victim = house.upstreams[0]
    await victim.kill()
    outcome.notes.append("circuit open after " + await _seconds(lambda: not _up(house, victim)))
    await asyncio.sleep(4)
    await victim.start()
    outcome.notes.append("used again after " + await _seconds(lambda: counts(victim).get("running")))


async def upstream_silent(house: House, outcome: Outcome) -> None:
    """SIGSTOP of one of two upstreams: connections stay, nothing comes."""
    await asyncio.sleep(3)
    victim = house.upstreams[0]
    victim.send(signal.SIGSTOP)
    outcome.notes.append("taken out after " + await _seconds(lambda: not _up(house, victim)))
    await asyncio.sleep(5)
    victim.send(signal.SIGCONT)
    outcome.notes.append("taken back after " + await _seconds(lambda: _up(house, victim)))


async def postgresql_killed(house: House, outcome: Outcome) -> None:
    """SIGKILL of PostgreSQL and all its processes, started again five seconds later."""
    await asyncio.sleep(3)
    _storage(house).signal_all(signal.SIGKILL)
    await asyncio.sleep(5)
    await _storage(house).start()


async def postgresql_silent(house: House, outcome: Outcome) -> None:
    """SIGSTOP of PostgreSQL: connections stay, nothing is answered for five seconds."""
    await asyncio.sleep(3)
    _storage(house).signal_all(signal.SIGSTOP)
    await asyncio.sleep(5)
    _storage(house).signal_all(signal.SIGCONT)


async def replica_killed(house: House, outcome: Outcome) -> None:
    """SIGKILL of one of two replicas, back after four seconds."""
    await asyncio.sleep(3)
    await house.replicas[0].kill()
    outcome.killed = time.time()
    others = house.replicas[1:]
    freed = await until(
        lambda: sum(counts(each)["running"] for each in house.upstreams) <= sum(map(_running, others)), 10
    )
    outcome.notes.append(
        f"its answers ended upstream after {freed:.1f} s" if freed is not None else "not ended upstream"
    )
    await asyncio.sleep(4)
    outcome.notes.append(f"ready {await house.replicas[0].start():.1f} s after its start")


async def replica_drained(house: House, outcome: Outcome) -> None:
    """SIGTERM of one of two replicas, started again when it has ended."""
    await asyncio.sleep(3)
    started = time.monotonic()
    house.replicas[0].send(signal.SIGTERM)
    status = await house.replicas[0].ended()
    outcome.notes.append(f"ended after {time.monotonic() - started:.1f} s with status {status}")
    await house.replicas[0].start()


async def replica_drained_without_postgresql(house: House, outcome: Outcome) -> None:
    """SIGTERM of one of two replicas while PostgreSQL is away for five seconds."""
    await asyncio.sleep(3)
    _storage(house).signal_all(signal.SIGKILL)
    house.replicas[0].send(signal.SIGTERM)
    await asyncio.sleep(5)
    await _storage(house).start()
    status = await house.replicas[0].ended()
    outcome.notes.append(f"ended with status {status}")
    await house.replicas[0].start()


async def disk_full(house: House, outcome: Outcome) -> None:
    """For five seconds no file of the gateway may grow: SQLite sees what a full disk says."""
    await asyncio.sleep(3)
    replica = house.replicas[0].running
    assert replica is not None
    before = resource.prlimit(replica.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    await asyncio.sleep(5)
    resource.prlimit(replica.pid, resource.RLIMIT_FSIZE, before)


ON_POSTGRESQL: Sequence[Scenario] = (
    Scenario("nothing", "nothing happens", nothing, 6.0),
    Scenario("upstream-kill", "SIGKILL of an upstream", upstream_killed, 18.0),
    Scenario("upstream-silent", "an upstream goes silent (SIGSTOP)", upstream_silent, 16.0),
    Scenario("postgresql-kill", "SIGKILL of PostgreSQL", postgresql_killed),
    Scenario("postgresql-silent", "PostgreSQL goes silent (SIGSTOP)", postgresql_silent),
    Scenario("replica-kill", "SIGKILL of a replica", replica_killed),
    Scenario("replica-term", "SIGTERM of a replica", replica_drained),
    Scenario("both", "SIGTERM of a replica while PostgreSQL is dead", replica_drained_without_postgresql, 14.0),
)
ON_SQLITE: Sequence[Scenario] = (
    Scenario("sqlite-kill", "SIGKILL of the only gateway, on SQLite", replica_killed),
    Scenario("disk-full", "the disk is full, on SQLite", disk_full),
)


async def run_scenario(scenario: Scenario, house: House, clients: int) -> Outcome:
    """Load, what happens meanwhile, and the count when all is quiet again."""
    urls = [each.url for each in house.replicas]
    outcome = Outcome(Clients(urls, house.key, house.pieces, f"{scenario.name}-{time.time():.0f}"))
    pids = [each.running.pid if each.running else 0 for each in house.replicas]
    logged = {each.url: each.log.stat().st_size for each in house.replicas}
    before = {each.url: sum(await probe(house, each)) for each in house.replicas}
    await asyncio.gather(outcome.clients.load(clients, scenario.seconds), scenario.action(house, outcome))
    lived = [each for each, pid in zip(house.replicas, pids, strict=True) if each.running and each.running.pid == pid]
    await until(lambda: not held(house), 15)
    outcome.held = held(house)
    await _written(house, outcome)
    outcome.quota_taken = sum([(await probe(house, each))[0] - before[each.url] for each in lived])
    outcome.quota_owed = _tokens(outcome, lived)
    lines = {line for each in house.replicas for line in each.log.read_text()[logged[each.url] :].splitlines()}
    outcome.notes += [f"a gateway said: {line}" for line in sorted(lines) if line.startswith(("warning", "error"))]
    return outcome


def held(house: House) -> dict[str, float]:
    """Gauges of replicas and upstreams that are not zero."""
    found = {}
    for each in house.replicas:
        for name, value in each.metrics().items():
            if value and name.startswith(("suffice_requests_", "suffice_upstream_requests_running")):
                found[f"{each.url} {name}"] = value
    return found | {each.url: running for each in house.upstreams if (running := counts(each)["running"])}


async def _written(house: House, outcome: Outcome) -> None:
    """Wait until the store has what it will have, and read it."""
    found = -1
    while found != len(outcome.rows):
        found = len(outcome.rows)
        await asyncio.sleep(1.5)
        outcome.rows = await asyncio.to_thread(rows, house.database, f"{outcome.clients.name}-")


async def probe(house: House, replica: Process) -> tuple[int, int]:
    """Tokens that this replica's limits have counted for the key, by the header of one more request; and what it took.

    The header is of the moment when the request has its reservation: prompt and 90 % quantile, as it says itself.
    """
    wanted = {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 1}
    headers = {"authorization": f"Bearer {house.key}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{replica.url}/v1/chat/completions", json=wanted, headers=headers) as response,
    ):
        answer = await response.json()
        taken = int(response.headers["x-ratelimit-limit-tokens"]) - int(
            response.headers["x-ratelimit-remaining-tokens"]
        )
    await asyncio.sleep(0.2)
    budget = answer["suffice"]["budget"]
    return taken - budget["prompt_tokens"] - budget["quantiles"]["p90"], answer["usage"]["total_tokens"]


def _tokens(outcome: Outcome, replicas: Sequence[Process]) -> int:
    """What the rows of requests to these replicas add up to."""
    servers = {each.id: each.server for each in outcome.clients.attempts}
    urls = {each.url for each in replicas}
    mine = [row for row in outcome.rows if servers[row["request_id"]] in urls]
    return sum(row["prompt_tokens"] + row["answer_tokens"] for row in mine)


def _running(replica: Process) -> float:
    return replica.metrics().get("suffice_requests_running", 0.0)


def _up(house: House, upstream: Process) -> bool:
    """Whether every replica that lives takes the upstream for a good one."""
    number = house.upstreams.index(upstream)
    samples = [
        value
        for each in house.replicas
        for name, value in each.metrics().items()
        if f"#{number}" in name and name.startswith("suffice_upstream_up")
    ]
    return all(samples)


def _storage(house: House) -> PostgreSQL:
    assert house.storage is not None
    return house.storage


async def _seconds(condition: Callable[[], object]) -> str:
    took = await until(condition)
    return "never" if took is None else f"{took:.1f} s"

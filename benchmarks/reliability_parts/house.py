"""What the reliability benchmark runs: upstreams, a PostgreSQL of its own, replicas; and what it reads of them."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "House",
    "PostgreSQL",
    "Process",
    "a_house",
    "counts",
    "free_port",
    "read",
    "replica",
    "rows",
    "until",
    "upstream",
]

_SUFFICE = [sys.executable, "-m", "suffice.cli.main"]
_PERMITS = ("--rpm", "100000000", "--tokens-per-day", "1000000000")
_UPSTREAM = str(Path(__file__).with_name("upstream.py"))


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def read(url: str, seconds: float = 5.0) -> str:
    """The text at a URL; '' without a good answer."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as response:
            return str(response.read().decode())
    except OSError:
        return ""


async def until(condition: Callable[[], object], seconds: float = 30.0) -> float | None:
    """Wait for a condition, asked in a thread; the seconds it took, or None when it did not come."""
    started = time.monotonic()
    while not await asyncio.to_thread(condition):
        if time.monotonic() - started > seconds:
            return None
        await asyncio.sleep(0.05)
    return time.monotonic() - started


@dataclass
class Process:
    """A server that can be killed and started again, and says on `ready` that it is there."""

    command: list[str]
    port: int
    log: Path
    ready: str = "/health"
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.poll() is None

    async def start(self) -> float:
        """Start it; the seconds until it was ready."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=log)  # noqa: ASYNC220
        took = await until(lambda: not self.alive or read(self.url + self.ready))
        if not took or not self.alive:
            raise SystemExit(f"{' '.join(self.command)} did not start:\n{self.log.read_text()[-2000:]}")
        return took

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it is there to get it."""
        if self.running is not None and self.alive:
            self.running.send_signal(number)

    async def ended(self, seconds: float = 60.0) -> int | None:
        """Wait for its end; its exit status, None if it did not end."""
        await until(lambda: not self.alive, seconds)
        return self.running.poll() if self.running else None

    async def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)
        await self.ended()

    def metrics(self) -> dict[str, float]:
        """Its Prometheus samples by name and labels."""
        lines = [line for line in read(self.url + "/metrics").splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def megabytes(self) -> float:
        """Resident memory."""
        assert self.running is not None
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        assert self.running is not None
        values = Path(f"/proc/{self.running.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def upstream(folder: Path, pieces: int, seconds: float) -> Process:
    """A trivial upstream whose answers have `pieces` pieces, one every `seconds`."""
    port = free_port()
    command = [sys.executable, _UPSTREAM, str(port), str(pieces), str(seconds)]
    return Process(command, port, folder / f"upstream-{port}.log")


def replica(folder: Path, database: str, upstreams: list[Process], *flags: str) -> Process:
    """A `suffice serve` in front of upstreams, not yet started."""
    port = free_port()
    where = [part for each in upstreams for part in ("--upstream", each.url)]
    command = [*_SUFFICE, "serve", "--port", str(port), "--database", database, *where, *flags]
    return Process(command, port, folder / f"replica-{port}.log", ready="/ready")


def create_key(database: str, name: str, *permits: str) -> str:
    """A key's text."""
    command = [*_SUFFICE, "keys", "create", name, "--database", database, *permits]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise SystemExit(made.stderr)
    return made.stdout.strip()


def rows(database: str, prefix: str) -> list[dict[str, Any]]:
    """The rows of requests whose id begins so, as the store has them."""
    import sqlalchemy as sa

    from suffice.serve.request_log.store import Store
    from suffice.serve.request_log.tables import request_rows

    store = Store(database)
    try:
        query = sa.select(request_rows).where(request_rows.c.request_id.startswith(prefix))
        with store._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
    finally:
        store.close()


class PostgreSQL:
    """A server of its own in a new folder, on loopback, as the user `postgres` when we are root.

    Raises:
        SystemExit: no PostgreSQL is installed.
    """

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        program = str(found[-1]) if found else shutil.which("postgres")
        if program is None:
            raise SystemExit("no PostgreSQL here: install Debian's package postgresql")
        self.folder, self.port = Path(tempfile.mkdtemp()), free_port()
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._as = {"user": "postgres", "group": owner.pw_gid, "extra_groups": []}
        initdb = [str(Path(program).with_name("initdb")), "--auth=trust", "-U", "postgres", "-D", f"{self.folder}/db"]
        subprocess.run(initdb, cwd=self.folder, check=True, capture_output=True, **self._as)
        where = ["-D", f"{self.folder}/db", "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        self._command = [program, *where]
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._running = subprocess.Popen(  # noqa: ASYNC220  # takes no time
            self._command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._as
        )
        if await until(self._answers, 60) is None:
            raise SystemExit("PostgreSQL did not start")

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its processes."""
        assert self._running is not None
        for pid in (self._running.pid, *_children(self._running.pid)):
            os.kill(pid, number)
        if number == signal.SIGKILL:
            self._running.wait()

    def close(self) -> None:
        """Kill it, and remove its folder."""
        if self._running is not None and self._running.poll() is None:
            self.signal_all(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def counts(process: Process) -> dict[str, int]:
    """What an upstream counted."""
    found: dict[str, int] = json.loads(read(process.url + "/counts") or "{}")
    return found


@dataclass
class House:
    """A running deployment. What a scenario ends is back when it returns."""

    database: str
    key: str
    upstreams: list[Process]
    replicas: list[Process]
    pieces: int
    storage: PostgreSQL | None = None
    """Behind `database`, where it is PostgreSQL."""


@asynccontextmanager
async def a_house(
    pieces: int, pace: float, *flags: str, sqlite: bool = False, replicas: int = 2
) -> AsyncIterator[House]:
    """Start everything, and end it whatever happens.

    Args:
        pieces: of an answer.
        pace: seconds between them.
        flags: of the gateways.
        sqlite: keep rows in SQLite, not in PostgreSQL.
        replicas: how many gateways.
    """
    storage = None if sqlite else PostgreSQL()
    processes: list[Process] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = storage.url if storage else f"sqlite:///{folder}/serve.db"
        try:
            if storage:
                await storage.start()
            upstreams = [upstream(folder, pieces, pace) for _ in range(2)]
            gateways = [replica(folder, database, upstreams, *flags) for _ in range(replicas)]
            key = create_key(database, "load", *_PERMITS)
            processes = [*upstreams, *gateways]
            for each in processes:
                await each.start()
            yield House(database, key, upstreams, gateways, pieces, storage)
        finally:
            for each in processes:
                await each.kill()
            if storage:
                storage.close()

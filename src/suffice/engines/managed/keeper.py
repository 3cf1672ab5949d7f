"""Keeps one server running: starts it, waits until it answers, and starts it again, with pauses, when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from suffice.engines.managed.command_line import LaunchCommand
from suffice.engines.managed.process import ServerProcess, free_port, listens_here
from suffice.engines.managed.startup_log import StartupLog
from suffice.engines.openai.engine import RemoteEngine
from suffice.errors import EngineError

__all__ = ["RunningServer", "ServerKeeper"]

_LOG = logging.getLogger(__name__)
_LOOK_EVERY = 0.2  # seconds between two looks at whether a server answers
_PORTS = 5  # that are tried
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a server is started again
_STEADY = 60.0  # seconds after which a server that dies is one that had been well
_DEAD = re.compile(r"\bHTTP 5\d\d\b|cannot connect|connection dropped")  # in what is said of a server's health
_NOTICE = 3.0  # seconds for a death to be noticed, once its connections have broken


@dataclass(eq=False, slots=True, kw_only=True)
class RunningServer:
    """One run of a server that answers."""

    process: ServerProcess
    remote: RemoteEngine
    log: StartupLog
    since: float
    """`time.monotonic()` of when it was ready."""


class ServerKeeper:
    """Keeps a server running while it is entered.

    Args:
        title: the server's name, for messages.
        command: how to start it on a port, with a key, and with the longest context that it said would fit, if it did.
        remote: speaks to it, at an address, with a key.
        start_timeout: seconds without a sign of progress after which a start has failed.
        tell: gets each step of a start, in words; it may be called from another thread.
        explain: what to say when a start fails for want of memory.
    """

    def __init__(
        self,
        *,
        title: str,
        command: Callable[[int, str, int | None], LaunchCommand],
        remote: Callable[[str, str], RemoteEngine],
        start_timeout: float,
        tell: Callable[[str], None],
        explain: Callable[[], str],
    ) -> None:
        self._title, self._command, self._remote = title, command, remote
        self._start_timeout, self._tell, self._explain = start_timeout, tell, explain
        self._current: RunningServer | None = None
        self._next: asyncio.Future[RunningServer] | None = None
        self._gone: RemoteEngine | None = None
        self._context: int | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why no server is running now."""

    async def open(self) -> RunningServer:
        """Start the server.

        Raises:
            EngineError: it did not start, with the end of its log.
        """
        self._current = await self._start()
        self._keeping = asyncio.create_task(self._keep(self._current))
        return self._current

    async def close(self) -> None:
        """Stop the server."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])
        self._fail_waiting(EngineError(f"{self._title} was stopped"))
        await self._leave(self._gone)
        current, self._current = self._current, None
        if current is not None:
            await self._leave(current.remote)
            await current.process.stop()

    async def _leave(self, remote: RemoteEngine | None) -> None:
        if remote is not None:
            await remote.__aexit__(None, None, None)

    async def running(self) -> RunningServer:
        """The server; waits while it is being started again.

        Raises:
            EngineError: it could not be started again, or was never started.
        """
        if self._current is not None:
            return self._current
        if self._keeping is None:
            raise EngineError("the engine is not started: use `async with engine:`")
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next)

    async def has_died(self, server: RunningServer) -> bool:
        """Whether a server that broke a connection, or failed, has died; waits a moment for that to be seen. One that
        says on /health that its engine is dead, or does not listen any more, is stopped: vLLM takes a while to end."""
        await asyncio.wait([server.process.ended], timeout=_NOTICE)
        if server.process.running and _DEAD.search((await server.remote.health()).detail):
            await server.process.stop()
        return not server.process.running

    async def _keep(self, server: RunningServer) -> None:
        """Start the server again each time it dies, after a pause that doubles while that happens soon."""
        pause = _FIRST_PAUSE
        while True:
            how = await asyncio.shield(server.process.ended)
            if time.monotonic() - server.since > _STEADY:
                pause = _FIRST_PAUSE
            self._current, self.trouble = None, f"{self._title} ended ({how}) and is being started again"
            _LOG.warning("%s ended (%s); it is started again in %g s\n%s", self._title, how, pause, server.log.end())
            self._gone = server.remote  # what it has sent is still read
            server = await self._start_again(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            await self._leave(self._gone)

    async def _start_again(self, pause: float) -> RunningServer:
        while True:
            await asyncio.sleep(pause)
            try:
                server = await self._start()
            except EngineError as error:
                pause = min(2 * pause, _LONGEST_PAUSE)
                _LOG.error("%s\nit is tried again in %g s", error, pause)
                self.trouble = f"{self._title} could not be started again"
                self._fail_waiting(EngineError(f"{self.trouble}: try again later", status=503))
                continue
            self._current, self.trouble = server, ""
            waiting, self._next = self._next, None
            if waiting is not None and not waiting.done():
                waiting.set_result(server)
            _LOG.warning("%s runs again", self._title)
            return server

    def _fail_waiting(self, error: EngineError) -> None:
        waiting, self._next = self._next, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
            waiting.exception()  # those who waited may have gone

    async def _start(self) -> RunningServer:
        """One start; again on another port where somebody was faster, or with the context that the server says fits."""
        began = time.monotonic()
        for _ in range(_PORTS):
            port, key, log = free_port(), secrets.token_urlsafe(32), StartupLog(self._tell)
            remote = self._remote(f"http://127.0.0.1:{port}", key)
            process = ServerProcess(self._command(port, key, self._context), log.add)
            try:
                if await self._until_ready(process, remote, log, port):
                    ready = time.monotonic()
                    self._tell(f"ready after {ready - began:.0f} s")
                    return RunningServer(process=process, remote=remote, log=log, since=ready)
            except BaseException:
                await process.stop()
                raise
            if log.port_taken:
                continue
            if log.longest_context is not None and self._context is None:
                self._context = log.longest_context
                self._tell(f"the context is shortened to the {self._context:,} tokens that fit")
                continue
            raise self._failure(await process.ended, log)
        raise EngineError(f"{self._title} found each of {_PORTS} ports taken when it wanted to listen")

    async def _until_ready(self, process: ServerProcess, remote: RemoteEngine, log: StartupLog, port: int) -> bool:
        """Whether the server answers; False when it has ended instead."""
        lines, quiet_since = 0, time.monotonic()
        while process.running:
            if await _accepts(port):
                if not listens_here(port):
                    log.port_taken = True
                    await process.stop()
                    return False
                if await _enter(remote):
                    return True
            if log.count > lines:
                lines, quiet_since = log.count, time.monotonic()
            if time.monotonic() - quiet_since > self._start_timeout:
                quiet = f"{self._title} said nothing for {self._start_timeout:g} s, so it was stopped"
                raise EngineError(f"{quiet}; the end of its log:\n{log.end()}")
            await asyncio.wait([process.ended], timeout=_LOOK_EVERY)
        return False

    def _failure(self, how: str, log: StartupLog) -> EngineError:
        cause = log.cause() or how
        said = self._explain() if log.no_memory else ""
        return EngineError(f"{self._title} did not start ({how}): {cause}{said}; the end of its log:\n{log.end()}")


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _enter(remote: RemoteEngine) -> bool:
    """Whether the server is ready; `remote` is entered then."""
    try:
        await remote.__aenter__()
    except EngineError:  # it listens and does not answer yet
        return False
    if (await remote.health()).ok:
        return True
    await remote.__aexit__(None, None, None)
    return False

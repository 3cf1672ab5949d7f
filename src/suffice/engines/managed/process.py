"""One run of a server: started under the supervisor, its log read, its end noticed. Knows nothing about engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from suffice.engines.managed.command_line import LaunchCommand
from suffice.errors import EngineError, UsageError

__all__ = ["ServerProcess", "free_port", "listens_here"]

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL: no child may be left 5 s after Suffice was killed
_STOP_PATIENCE = 10.0  # seconds for the supervisor itself
_MARK = "SUFFICE_ENGINE_RUN"  # a variable that everything inherits which a server starts
_LINE_ENDS = re.compile(rb"[\r\n]+")  # progress bars end their lines with a return alone
_LISTENS = "0A"  # the state TCP_LISTEN in /proc/net/tcp


class ServerProcess:
    """A server that was started, with everything that it starts itself. `stop` it; if this process dies, it is stopped.

    Args:
        command: how to start it.
        read: gets each line of its log, in a thread.

    Raises:
        UsageError: this system has no process groups.
        EngineError: it cannot be started at all.
    """

    def __init__(self, command: LaunchCommand, read: Callable[[str], None]) -> None:
        if os.name != "posix":
            raise UsageError("vLLM and SGLang are started on Linux and macOS alone: use --upstream on this system")
        self._read = read
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        """Done when no process of it is left: how it ended, in words."""
        self._folder = Path(tempfile.mkdtemp(prefix="engine-"))  # mode 0700
        # From a place without this program's name, `pkill -9 -f suffice` leaves it alive to end what it has started.
        supervisor = shutil.copy(_SUPERVISOR, self._folder)
        self._mark = f"{_MARK}={self._folder.name}"
        arguments = [self._secret(word, command) for word in command.arguments]
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", "-S", supervisor, str(_GRACE), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**command.environment, _MARK: self._folder.name},
                start_new_session=True,  # Ctrl-C in the terminal is for Suffice, which then stops this
            )
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise EngineError(f"cannot start {arguments[0]}: {error}") from None
        self._reader = threading.Thread(target=self._read_log, name="suffice-engine-log", daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, name="suffice-engine-wait", daemon=True).start()

    @property
    def pid(self) -> int:
        """Of the supervisor, whose child the server is; also their process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        return not self.ended.done()

    async def stop(self) -> None:
        """End the server and everything that it has started; returns when it is gone."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            await asyncio.wait_for(asyncio.shield(self.ended), _STOP_PATIENCE)
        except TimeoutError:
            self._kill_group()
            await self.ended

    def _wait(self) -> None:
        # Should somebody have killed the supervisor, its group is left. Its number is surely ours until we have waited.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self._kill_group()
        code = self._process.wait()
        if code < 0:  # it was killed itself, so nobody has looked for what left the group
            _kill_marked(self._mark)
        self._reader.join(_GRACE)
        shutil.rmtree(self._folder, ignore_errors=True)
        with contextlib.suppress(RuntimeError):  # the loop has been closed by somebody who did not stop the server
            self._loop.call_soon_threadsafe(self._note_end, _how_it_ended(code))

    def _note_end(self, how: str) -> None:
        if not self.ended.done():
            self.ended.set_result(how)

    def _read_log(self) -> None:
        stream, rest = self._process.stdout, b""
        assert stream is not None
        while block := os.read(stream.fileno(), 1 << 16):
            *lines, rest = _LINE_ENDS.split(rest + block)
            for line in lines:
                self._read(line.decode("utf-8", "replace"))
        if rest:
            self._read(rest.decode("utf-8", "replace"))
        stream.close()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _secret(self, word: str, command: LaunchCommand) -> str:
        """The argument, or the path of the file that it stands for, which only this user may read."""
        text = (command.secret_files or {}).get(word)
        if text is None:
            return word
        path = self._folder / word
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)


def _kill_marked(mark: str) -> None:
    """SIGKILL to every process that has inherited the mark, as /proc says (Linux)."""
    for each in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in each.read_bytes().split(b"\0"):
                os.kill(int(each.parent.name), signal.SIGKILL)


def free_port() -> int:
    """A port of loopback that nothing listens on now. Somebody else may take it before the server does, which then
    says so, and another is tried."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def listens_here(port: int) -> bool:
    """Whether nobody else's process listens on the port, so that no other user is told prompts and the key. Linux says
    whose it is; elsewhere it is assumed to be ours."""
    try:
        table = Path("/proc/net/tcp").read_text()
    except OSError:
        return True
    rows = (line.split() for line in table.splitlines()[1:])
    owners = {int(row[7]) for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == _LISTENS}
    return owners <= {os.getuid()}


def _how_it_ended(code: int) -> str:
    number = code - 128 if code > 128 else -code if code < 0 else 0
    if number:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit status {code}"

"""The process: uvicorn around the application, and how it reacts to signals."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from suffice.engines import Engine
from suffice.errors import UsageError
from suffice.serve.app import build_app, engines_of, open_service, with_engine
from suffice.serve.config import ServeSettings
from suffice.serve.http.protocol import Connection
from suffice.serve.service import Service

__all__ = ["run", "serve"]

_LOG = logging.getLogger(__name__)
_OTHER_FILES = 128  # the database, pages, the terminal, health checks
_LOOK_EVERY = 0.1  # seconds between two looks for a second Ctrl-C, as in uvicorn
_COLLECT_AFTER = 10_000  # new objects between two collections of garbage: Python's 700 are a few requests


class _Server(uvicorn.Server):
    """Tells balancers and running answers about the end before uvicorn closes the connections."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            host, port = each.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            name = self.service.model_name
            said = "serving %s on http://%s:%d (playground: /, API: /docs)"
            _LOG.info(said, name, shown, port, extra={"prefix": "", "models": name, "port": port})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.service.leaving = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """After `drain_delay` take no new requests; running ones may end until `drain_timeout` or a second Ctrl-C."""
        ends = time.monotonic() + self.service.settings.drain_delay
        while time.monotonic() < ends and not self.force_exit:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(_LOOK_EVERY)
        self.service.draining = True
        running = len(self.service.requests)
        if running and not self.force_exit:
            what = "1 answer is" if running == 1 else f"{running} answers are"
            seconds = self.service.settings.drain_timeout
            _LOG.info("%s running: waiting up to %g s; Ctrl-C ends at once", what, seconds, extra={"running": running})
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but the signal is not raised again afterwards: rows still have to be written then."""
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def listening_socket(settings: ServeSettings) -> socket.socket:
    """The socket, bound before anything slow is loaded. Raises `UsageError` where that is impossible."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((settings.host, settings.port))
    except OSError as error:
        bound.close()
        where = f"{settings.host}:{settings.port}"
        other = "choose another --port" if error.errno == errno.EADDRINUSE else "choose another --host or --port"
        raise UsageError(f"cannot listen on {where}: {error.strerror or error}; {other}") from None
    return bound


async def serve(settings: ServeSettings, engines: list[Engine] | None = None) -> None:
    """Run until a signal says stop; running answers get `drain_timeout` seconds to end in."""
    bound = listening_socket(settings)
    async with open_service(settings, engines or engines_of(settings)) as service:
        server = _Server(_config(settings, service), service)
        gc.freeze()  # what exists now stays: no collection has to look at it again
        gc.set_threshold(_COLLECT_AFTER)
        if hasattr(signal, "SIGHUP"):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, service)
        await server.serve([bound])


def _reload(service: Service) -> None:
    try:
        service.reload()
    except UsageError as error:
        _LOG.error("%s; the tiers stay as they were", error)
    else:
        _LOG.info("tiers read again: %s", ", ".join(service.tiers))


def _config(settings: ServeSettings, service: Service) -> uvicorn.Config:
    return uvicorn.Config(
        build_app(service),
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,  # whoever starts the server configures uvicorn's loggers too
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
    )


def allow_connections(settings: ServeSettings) -> None:
    """Raise this process's limit of open files as far as it may be: a request takes one here, and one upstream."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    needed = 2 * (settings.running_limit + settings.max_waiting) + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        said = "at most %d files may be open, and %d would be needed for max_running and max_waiting"
        _LOG.info(f"{said}: raise `ulimit -n`, or lower those", allowed, needed)


def run(settings: ServeSettings) -> None:
    """`serve` on an event loop of its own, with uvloop where there is one."""
    settings, said = with_engine(settings)
    if said:
        _LOG.info(said)
    allow_connections(settings)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))

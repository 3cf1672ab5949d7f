"""What the server uses of uvicorn beyond its documentation: each name is listed here, and is there in this version.

`.ci/run` runs this file with the oldest and the newest version that `pyproject.toml` allows.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
from operator import attrgetter
from textwrap import dedent
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from suffice.serve import server as server_module
from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.protocol import Connection

CONNECTION = {
    *("connection_lost", "data_received", "on_headers_complete", "on_message_begin", "on_message_complete"),
    *("flow.resume_reading", "pipeline", "scope"),
    *("transport.abort", "transport.close", "transport.is_closing", "transport.write"),  # asyncio's own
}
SERVER = {"capture_signals", "force_exit", "handle_exit", "server_state.tasks", "shutdown", "startup"}
CONFIG = {
    *("http", "ws", "lifespan", "log_config", "access_log", "server_header", "proxy_headers"),
    "timeout_graceful_shutdown",
}


def used(cls: type[Any], base: type[Any]) -> set[str]:
    """The names of `base` that a subclass overrides, or reads from itself: `flow.resume_reading`."""
    nodes = list(ast.walk(ast.parse(dedent(inspect.getsource(cls)))))
    set_here = {each.attr for each in nodes if isinstance(each, ast.Attribute) and isinstance(each.ctx, ast.Store)}
    theirs = made(base)
    own = {name for name in {*vars(cls), *set_here} if not hasattr(theirs, name)} | {"__init__"}
    chains = {".".join(chain) for node in nodes if (chain := chain_of(node)) and chain[0] not in own}
    longest = {each for each in chains if not any(other.startswith(each + ".") for other in chains)}
    return longest | {name for name in vars(cls) if hasattr(base, name) and not name.startswith("__")}


def chain_of(node: ast.AST) -> list[str]:
    """The names after `self` or `super()`; empty for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    is_self = isinstance(node, ast.Name) and node.id == "self"
    is_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return names if is_self or is_super else []


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application."""


def made(cls: type[Any]) -> Any:
    """A connection or a server of uvicorn's own, with what it has once it is connected."""

    async def make() -> Any:
        config = uvicorn.Config(nothing, log_config=None)
        if cls is uvicorn.Server:
            return uvicorn.Server(config)
        connection = HttpToolsProtocol(config, ServerState(), {})
        assert connection.flow is None
        connection.flow = FlowControl(connection.transport)
        connection.transport = asyncio.Transport()
        return connection

    return asyncio.run(make())


@pytest.mark.parametrize(
    ("cls", "base", "names"),
    [(Connection, HttpToolsProtocol, CONNECTION), (server_module._Server, uvicorn.Server, SERVER)],
)
def test_the_names_that_are_used_are_listed_and_are_there(cls: type[Any], base: type[Any], names: set[str]) -> None:
    assert used(cls, base) == names
    there = made(base)
    for name in names:
        attrgetter(name)(there)


def test_a_name_that_is_missing_or_not_listed_would_be_noticed() -> None:
    class Other(HttpToolsProtocol):
        mine = 0

        def eof_received(self) -> None:
            self.mine += len(self.parser.nothing)  # type: ignore[attr-defined]

    assert used(Other, HttpToolsProtocol) == {"eof_received", "parser.nothing"}
    with pytest.raises(AttributeError):
        attrgetter("parser.nothing")(made(HttpToolsProtocol))


def test_uvicorn_takes_every_setting_that_it_is_given() -> None:
    tree = ast.parse(inspect.getsource(server_module))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    [config] = [each for each in calls if isinstance(each.func, ast.Attribute) and each.func.attr == "Config"]
    assert {each.arg for each in config.keywords} == CONFIG
    assert inspect.signature(uvicorn.Config).parameters.keys() >= CONFIG


def test_uvicorn_finds_out_by_itself_that_the_application_is_asgi_3() -> None:
    """So that production runs the application as tests do, with no layer of ours around it."""
    from suffice.serve.http.middleware import ExchangeMiddleware

    app = ExchangeMiddleware(nothing, lambda *_: None, lambda _: False, lambda: False)
    config = uvicorn.Config(app, log_config=None)
    config.load()
    assert config.interface == "asgi3"

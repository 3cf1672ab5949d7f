"""Which handler answers a request: routes as data, and the application that looks them up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from suffice.serve.http.asgi import Receive, Scope, Send
from suffice.serve.http.errors import Problem
from suffice.serve.http.fields import RequestBody

__all__ = ["Handler", "Route", "Router"]

Handler = Callable[[Any, Scope, Receive, Send], Awaitable[None]]
"""An ASGI application that also gets what the routes share: the service."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path, as the router, the metrics and the OpenAPI document know it."""

    method: str
    path: str
    """May end with a parameter, as in Starlette: `/infer/{tier}` is any path with one more part, `/models/{name:path}`
    any path that continues there. The handler finds its value in `scope["path_params"]`."""
    handler: Handler
    summary: str = ""
    """For the OpenAPI document, which leaves out a route without one."""
    body: RequestBody | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    """Of the query, as the document has them."""
    content: str = "application/json"
    """The media type of an answer."""
    streams: bool = False
    errors: tuple[int, ...] = ()
    """The statuses of refusals."""

    @cached_property
    def template(self) -> str:
        """The path as the document writes it, which is also the route's label in metrics."""
        return self.path.replace(":path", "")

    @cached_property
    def parameter(self) -> str:
        """The name of the path's parameter; '' without one."""
        return self.template.partition("{")[2].rstrip("}")


class Router:
    """Hands each request to the handler of its path, with the matching route in `scope["route"]` and the `service`
    that the handlers share. What answers GET answers HEAD."""

    def __init__(self, routes: Iterable[Route], service: Any) -> None:
        self._service = service
        self._exact: dict[str, dict[str, Route]] = {}
        self._open: dict[str, dict[str, Route]] = {}
        """Routes with a parameter, by what stands before it."""
        for route in routes:
            prefix = route.path.partition("{")[0]
            table = self._open if route.parameter else self._exact
            table.setdefault(prefix, {})[route.method] = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises:
        Problem: 404 for a path that no route has, 405 for a method that its routes do not have.
        """
        methods = self._exact.get(scope["path"]) or self._with_parameter(scope)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = scope["route"] = methods.get(method) or next(iter(methods.values()), None)
        if route is None or route.method != method:
            status, code = (405, "method_not_allowed") if methods else (404, "not_found")
            message = f"no {scope['method']} {scope['path']} here; GET /openapi.json lists the routes"
            headers = {"allow": ", ".join(methods)} if methods else {}
            raise Problem(status, message, code=code, headers=headers)
        await route.handler(self._service, scope, receive, send)

    def _with_parameter(self, scope: Scope) -> Mapping[str, Route]:
        path = scope["path"]
        for prefix, methods in self._open.items():
            route = next(iter(methods.values()))
            value = path[len(prefix) :]
            if path.startswith(prefix) and value and ("/" not in value or ":path" in route.path):
                scope["path_params"] = {route.parameter: value}
                return methods
        return {}

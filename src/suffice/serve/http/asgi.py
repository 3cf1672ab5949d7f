"""What the server speaks with uvicorn: the words of ASGI (https://asgi.readthedocs.io), and which path is whose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from suffice.serve.http.errors import Problem

__all__ = ["Application", "Message", "Receive", "Router", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Router:
    """Hands each request to the application of its path.

    Args:
        routes: applications by method, by path. A path that ends with `/*` stands for all with one more part there,
            one that ends with `/**` for all that go on from there; the application finds that in `scope["part"]`. What
            answers GET answers HEAD.
    """

    def __init__(self, routes: Mapping[str, Mapping[str, Application]]) -> None:
        self._exact = {path: methods for path, methods in routes.items() if not path.endswith("*")}
        self._parents = {path[:-1]: methods for path, methods in routes.items() if path.endswith("/*")}
        self._roots = {path[:-2]: methods for path, methods in routes.items() if path.endswith("/**")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises:
        Problem: 404 for a path that nobody has, 405 for a method that it does not know.
        """
        methods = self._exact.get(scope["path"]) or self._below(scope)
        method = scope["method"]
        found = methods.get("GET" if method == "HEAD" else method)
        if found is None:
            status, code = (405, "method_not_allowed") if methods else (404, "not_found")
            message = f"no {method} {scope['path']} here; GET /openapi.json lists the routes"
            headers = {"allow": ", ".join(methods)} if methods else {}
            raise Problem(status, message, code=code, headers=headers)
        await found(scope, receive, send)

    def _below(self, scope: Scope) -> Mapping[str, Application]:
        path = scope["path"]
        parent, _, part = path.rpartition("/")
        methods = self._parents.get(f"{parent}/")
        if methods is None:
            root = next((each for each in self._roots if path.startswith(each)), path)
            methods, part = self._roots.get(root), path[len(root) :]
        if methods is None or not part:
            return {}
        scope["part"] = part
        return methods

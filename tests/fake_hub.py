"""A small Hugging Face hub on loopback, with one model: what `snapshot_download` asks for, and nothing else."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    model_id: str
    files: Mapping[str, bytes]
    gated: bool = False
    url: str = ""
    date: str | None = None
    """What it says of the time, in place of this machine's."""
    fetched: list[str] = field(default_factory=list)
    """Files whose bytes were sent."""

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        path = unquote(urlsplit(path).path)
        if path.startswith(f"/api/models/{self.model_id}"):
            return self._about(path.removeprefix(f"/api/models/{self.model_id}"))
        name = path.removeprefix(f"/{self.model_id}/resolve/").partition("/")[2]
        if not path.startswith(f"/{self.model_id}/resolve/") or name not in self.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if method == "GET":
            self.fetched.append(name)
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(self.files[name])}"'}, self.files[name]

    def _about(self, rest: str) -> tuple[int, dict[str, str], bytes]:
        if rest.startswith("/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in self.files.items()
            ]
            return 200, {}, json.dumps(entries).encode()
        siblings = [{"rfilename": name, "size": len(content)} for name, content in self.files.items()]
        return 200, {}, json.dumps({"id": self.model_id, "sha": COMMIT, "siblings": siblings}).encode()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def fake_hub(model_id: str, files: Mapping[str, bytes], *, gated: bool = False) -> Iterator[FakeHub]:
    """The hub in a thread, while the context lasts."""
    hub = FakeHub(model_id, files, gated)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._send()

        def do_GET(self) -> None:
            self._send()

        def _send(self) -> None:
            status, headers, body = hub.answer(self.command, self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return hub.date or super().date_time_string(timestamp)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()

"""What the server does when there is too much, too long, or too late; real processes and signals where it matters."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from random import Random

import pytest

from serving import serving
from suffice.engines.base import Chunk, Finish, GenerationRequest, Usage
from suffice.engines.openai.engine import RemoteEngine
from suffice.errors import EngineError
from suffice.serve.config import ServeSettings
from suffice.serve.limits.admission import Slot
from suffice.serve.server import allow_connections
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.fake_openai import Reply as Scripted
from suffice.testing.scripted_engine import ScriptedEngine


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_full_queue_answers_429_with_retry_after_and_leaks_nothing() -> None:
    with serving(ScriptedEngine("x" * 60, slow=True), max_running=2, max_waiting=1) as server:
        replies = []
        threads = [threading.Thread(target=lambda: replies.append(server.chat())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = sorted(reply.status for reply in replies)
        assert statuses.count(200) >= 3
        assert set(statuses) == {200, 429}
        for reply in replies:
            if reply.status == 429:
                assert 1 <= int(reply.headers["retry-after"]) <= 120
                assert reply.json["error"]["code"] == "queue_full"
        wait_for(lambda: not server.service.requests)
        wait_for(lambda: not server.service.admission.running)
        assert server.chat().status == 200


def test_a_wait_that_is_too_long_is_429_and_an_answer_that_is_too_long_504() -> None:
    with serving(
        ScriptedEngine("x" * 900, slow=True), max_running=1, queue_timeout=0.05, request_timeout=0.6
    ) as server:
        connection, _ = server.open("POST", "/infer/long", {"prompt": "go on", "stream": True})
        waiting = server.chat()
        assert (waiting.status, waiting.json["error"]["code"]) == (429, "queue_full")
        connection.close()
        wait_for(lambda: not server.service.requests)
        late = server.post("/infer/long", {"prompt": "go on"})
        assert (late.status, late.json["error"]["type"]) == (504, "timeout_error")
        *_, used, error = server.post("/infer/long", {"prompt": "go on", "stream": True}).events
        assert error["error"]["code"] == "timeout"
        assert used["usage"]["completion_tokens"] > 0
        wait_for(lambda: not server.service.admission.running)


def test_a_client_that_leaves_the_queue_leaves_nothing_behind() -> None:
    engine = ScriptedEngine("x" * 900, slow=True)
    with serving(engine, max_running=1) as server:
        running, _ = server.open("POST", "/infer/long", {"prompt": "go on", "stream": True})
        waiting = HTTPConnection("127.0.0.1", server.port)
        waiting.request("POST", "/infer/long", json.dumps({"prompt": "go on"}))
        wait_for(lambda: server.service.admission.waiting)
        waiting.close()
        wait_for(lambda: not server.service.admission.waiting)
        running.close()
        wait_for(lambda: not server.service.requests)
        assert len(engine.asked) == 1


def test_draining_refuses_new_requests_and_is_not_ready() -> None:
    with serving(ScriptedEngine()) as server:
        server.service.leaving = server.service.draining = True
        assert server.ask("GET", "/ready").status == 503
        assert server.ask("GET", "/health").status == 200
        refused = server.chat()
        assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")


def test_what_is_sent_while_draining_ends_its_connection() -> None:
    with serving(ScriptedEngine("x" * 30, slow=True)) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("POST", "/infer/long", json.dumps({"prompt": "go on"}))
        wait_for(lambda: server.service.admission.running)
        server.service.leaving = True
        response = connection.getresponse()
        assert (response.status, response.headers["connection"]) == (200, "close")
        connection.close()


def test_an_answer_of_which_nothing_was_sent_is_begun_again_on_another_upstream() -> None:
    broken, well = ScriptedEngine("abcdefgh", fail_after=5), ScriptedEngine("abcdefgh")
    broken.model_name, well.model_name = "broken", "well"  # type: ignore[misc]
    with serving([broken, well]) as server:
        server.service.pool.upstreams[1].running += 1  # so that the other is asked first
        reply = server.chat()
        assert reply.status == 200
        assert reply.json["choices"][0]["message"]["content"] == "abcdefgh"
        assert reply.json["usage"]["completion_tokens"] == 8
        assert len(broken.asked) == len(well.asked) == 1
        wait_for(lambda: not server.service.admission.running)


def test_an_answer_of_which_something_was_sent_ends_with_an_error_and_what_was_used() -> None:
    broken, well = ScriptedEngine("abcdefgh", fail_after=5), ScriptedEngine("abcdefgh")
    with serving([broken, well]) as server:
        server.service.pool.upstreams[1].running += 1
        *_, used, error = server.chat(stream=True).events
    assert used["usage"]["completion_tokens"] == 5
    assert error["error"]["code"] == "engine_error"
    assert not well.asked


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    resource, limits = pytest.importorskip("resource"), [256, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, found: limits.__setitem__(slice(None), found))
    allow_connections(ServeSettings(max_running=64, max_waiting=512))
    assert limits == [2 * 576 + 128, 4096]
    assert not caplog.text
    allow_connections(ServeSettings(max_running=2000, max_waiting=512))
    assert limits == [4096, 4096]
    assert "ulimit" in caplog.text


@contextmanager
def process(database: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`suffice serve` as people start it, and its port."""
    command = [sys.executable, "-m", "suffice.cli.main", "serve", "--port", "0", "--database", f"sqlite:///{database}"]
    log = database.with_suffix(".log")
    with log.open("w") as errors:
        running = subprocess.Popen([*command, *arguments], stderr=errors, stdout=subprocess.PIPE, text=True)

    def port() -> int:
        assert running.poll() is None, log.read_text()
        found = re.search(r"on http://[^:]+:(\d+)", log.read_text())
        return int(found[1]) if found else 0

    try:
        wait_for(port)
        yield running, port()
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def ask(port: int, **fields: object) -> tuple[HTTPConnection, HTTPResponse]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    messages = [{"role": "user", "content": "hi"}]
    connection.request("POST", "/v1/chat/completions", json.dumps({"messages": messages, **fields}))
    return connection, connection.getresponse()


def rows(database: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(database) as connection:
        return connection.execute("SELECT finish, answer_tokens FROM requests").fetchall()


def test_sigterm_finishes_what_runs_and_writes_it_down(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Scripted(pieces=["a "] * 30, piece_delay=0.03, usage=(7, 30)))
    with process(tmp_path / "serve.db", "--upstream", server.url) as (running, port):
        _, response = ask(port, stream=True)
        first = response.readline()
        running.send_signal(signal.SIGTERM)
        rest = response.read()
        assert first.startswith(b"data: ")
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"stop"' in rest
        assert running.wait(20) == 0
        assert rows(tmp_path / "serve.db") == [("stop", 30)]


def test_what_does_not_end_in_time_is_told_so_and_written_down(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Scripted(pieces=["a "] * 3, hang_after=2))
    with process(tmp_path / "serve.db", "--upstream", server.url, "--drain-timeout", "1") as (running, port):
        _, response = ask(port, stream=True)
        response.readline()
        running.send_signal(signal.SIGTERM)
        rest = response.read()
        assert b'"code":"shutting_down"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")
        assert running.wait(20) == 0
        assert rows(tmp_path / "serve.db") == [("error", 2)]
        wait_for(server.abandoned.is_set)


def test_an_answer_without_a_stream_that_does_not_end_in_time_is_told_so_too(
    server: FakeOpenAI, tmp_path: Path
) -> None:
    server.script(Scripted(pieces=["a "] * 3, hang_after=2))
    with process(tmp_path / "serve.db", "--upstream", server.url, "--drain-timeout", "1") as (running, port):
        begun = HTTPConnection("127.0.0.1", port, timeout=20)
        begun.request("POST", "/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "hi"}]}))
        half = HTTPConnection("127.0.0.1", port, timeout=20)  # its body never comes whole
        half.putrequest("POST", "/v1/chat/completions")
        half.putheader("content-length", "100")
        half.endheaders(b"{")
        wait_for(lambda: server.generations)
        running.send_signal(signal.SIGTERM)
        for connection in (begun, half):
            response = connection.getresponse()
            assert (response.status, response.headers["content-type"]) == (503, "application/json")
            assert json.load(response)["error"]["code"] == "shutting_down"
        assert running.wait(20) == 0
        assert rows(tmp_path / "serve.db") == [("error", 2)]
    log = (tmp_path / "serve.log").read_text()
    assert "1 answer is running: waiting up to 1 s" in log
    assert "Traceback" not in log


def test_a_second_ctrl_c_ends_what_runs_and_tells_it_so(server: FakeOpenAI, tmp_path: Path) -> None:
    server.script(Scripted(pieces=["a "] * 3, hang_after=2))
    with process(tmp_path / "serve.db", "--upstream", server.url) as (running, port):
        _, response = ask(port, stream=True)
        response.readline()
        running.send_signal(signal.SIGINT)
        wait_for(lambda: "Ctrl-C ends at once" in (tmp_path / "serve.log").read_text())
        running.send_signal(signal.SIGINT)
        assert b'"code":"shutting_down"' in response.read()
        assert running.wait(20) == 0
        assert rows(tmp_path / "serve.db") == [("error", 2)]


def test_with_a_drain_delay_balancers_are_told_before_requests_are_refused(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script(Scripted(pieces=["a "] * 3, usage=(7, 3)))
    monkeypatch.setenv("SUFFICE_SERVE_DRAIN_DELAY", "600")
    with process(tmp_path / "serve.db", "--upstream", server.url) as (running, port):
        running.send_signal(signal.SIGTERM)

        def ready() -> int:
            connection = HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/ready")
            with suppress(OSError):
                return connection.getresponse().status
            return 0

        wait_for(lambda: ready() == 503)
        _, response = ask(port)
        assert (response.status, response.headers["connection"]) == (200, "close")
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0
        assert rows(tmp_path / "serve.db") == [("stop", 3)]


def test_clients_do_not_learn_which_machine_failed_and_the_log_says_it(
    server: FakeOpenAI, capfd: pytest.CaptureFixture[str]
) -> None:
    host = server.url.removeprefix("http://").removesuffix("/v1")
    moved = Scripted(status=301, body="", headers={"Location": "http://10.0.0.7/v1"})
    with serving(RemoteEngine(server.url), upstreams=(server.url,), access_log=True) as gateway:
        for broken in (Scripted.refusal(500, "no luck"), Scripted(pieces=["a "] * 3, drop_after=2), moved):
            for stream in (False, True):
                server.script(broken)
                reply = gateway.chat(stream=stream)
                assert b"error" in reply.body
                assert host.encode() not in reply.body
                assert b"10.0.0.7" not in reply.body
                gateway.service.pool.upstreams[0].failures = 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(lines) == 6
    assert [line["failed_at"].startswith(host) for line in lines] == [True] * 6
    assert ["HTTP " in line["failed_at"] for line in lines] == [True, True, False, False, True, True]
    assert not any("no luck" in json.dumps(line) for line in lines)  # a server's words may repeat the prompt


def test_a_start_says_which_upstream_is_not_there(server: FakeOpenAI, caplog: pytest.LogCaptureFixture) -> None:
    dead = "http://127.0.0.1:9"
    with serving([RemoteEngine(dead), RemoteEngine(server.url)], upstreams=(dead, server.url)) as gateway:
        assert gateway.chat().status == 200
    [warning] = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "127.0.0.1:9" in warning.getMessage()


def test_without_a_healthy_upstream_it_is_worth_trying_again() -> None:
    with serving(ScriptedEngine()) as server:
        server.service.pool.upstreams[0].healthy = False
        for stream in (False, True):
            reply = server.chat(stream=stream)
            assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_busy")
            assert int(reply.headers["retry-after"]) > 0


def test_an_upstream_that_is_lost_while_a_request_waits_for_its_turn_is_worth_trying_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(ScriptedEngine()) as server:
        [upstream] = server.service.pool.upstreams
        enter = server.service.admission.enter

        async def enter_and_lose(slot: Slot, *, priority: int, patience: float) -> None:
            await enter(slot, priority=priority, patience=patience)
            upstream.healthy = False

        monkeypatch.setattr(server.service.admission, "enter", enter_and_lose)
        for stream, n in ((False, 1), (True, 1), (False, 2)):
            upstream.healthy = True
            reply = server.chat(stream=stream, n=n)
            assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_busy")
            assert int(reply.headers["retry-after"]) > 0


def test_an_error_is_that_of_the_answer_that_failed() -> None:
    class Second(ScriptedEngine):
        """The first answer is refused elsewhere and mended here, the second fails."""

        async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
            if request.id.endswith("/1"):
                raise EngineError("this one is wrong", status=400)
            async for chunk in super().submit(request):
                yield chunk

    with serving([ScriptedEngine(fail_after=0), Second(slow=True)]) as server:
        reply = server.chat(n=2)
        assert (reply.status, reply.json["error"]["message"]) == (400, "this one is wrong")


def test_a_request_for_several_answers_that_fails_is_one_failure_of_its_upstream() -> None:
    with serving(ScriptedEngine(fail_after=0)) as server:
        [upstream] = server.service.pool.upstreams
        for failures in (1, 2):
            assert server.chat(n=3).status == 502
            assert upstream.failures == failures


def test_sigkill_loses_at_most_the_last_second(server: FakeOpenAI, tmp_path: Path) -> None:
    with process(tmp_path / "serve.db", "--upstream", server.url) as (running, port):
        for _ in range(5):
            assert ask(port)[1].status == 200
        wait_for(lambda: len(rows(tmp_path / "serve.db")) == 5)
        os.kill(running.pid, signal.SIGKILL)
        running.wait(20)
    assert len(rows(tmp_path / "serve.db")) == 5


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_ends_its_generation_upstream_too(
    server: FakeOpenAI, tmp_path: Path, stream: bool
) -> None:
    server.script(Scripted(pieces=["a "] * 3, hang_after=2))
    with process(tmp_path / "serve.db", "--upstream", server.url) as (_, port):
        connection = HTTPConnection("127.0.0.1", port)
        messages = [{"role": "user", "content": "hi"}]
        connection.request("POST", "/v1/chat/completions", json.dumps({"messages": messages, "stream": stream}))
        wait_for(lambda: server.running)
        time.sleep(0.1)
        connection.close()
        wait_for(lambda: not server.running)
        assert server.abandoned.is_set()


class Talkative(ScriptedEngine):
    """Answers with ten thousand characters a token."""

    sent = 0

    async def submit(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        random = Random(3)
        for token in range(1000):
            await asyncio.sleep(0)
            self.sent += 1
            yield Chunk("".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=10_000)), (token,))
        yield Chunk(finish=Finish("stop"), usage=Usage(2, 1000))


def test_a_reader_that_does_not_read_holds_its_answer_up_and_not_in_memory() -> None:
    engine = Talkative()
    with serving(engine) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        body = json.dumps({"prompt": "go on", "stream": True})
        head = f"POST /infer/long HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        client.sendall((head + body).encode())
        wait_for(lambda: engine.sent)
        before = -1
        while engine.sent != before:  # the system's buffers fill, and then the generation waits
            before = engine.sent
            time.sleep(0.3)
        assert engine.sent < 900
        [state] = server.service.requests.values()
        assert state.writer is not None
        assert state.writer._size < 200_000
        client.settimeout(20)
        received = b""
        while block := client.recv(1 << 20):
            received += block
        assert len(received) > 10_000_000
        assert b"data: [DONE]" in received[-100:]


def test_a_reader_who_never_reads_is_dropped_without_a_word_of_mistakes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("suffice.serve.api.generate._LAST_WORDS", 0.2)
    engine = Talkative()
    with serving(engine) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        body = json.dumps({"prompt": "go on", "stream": True})
        client.sendall(f"POST /infer/long HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        wait_for(lambda: server.service.requests)
        [state] = server.service.requests.values()
        assert state.writer is not None
        before = -1
        while engine.sent != before or not state.writer.blocked:  # no clock: only a full buffer holds last words back
            before = engine.sent
            time.sleep(0.3)
        server.loop.call_soon_threadsafe(state.exchange.expire)
        wait_for(lambda: not server.service.requests)
        assert server.ask("GET", "/health").status == 200
        received = b""
        with suppress(ConnectionResetError):
            while block := client.recv(1 << 20):
                received += block
        assert b"[DONE]" not in received
    assert "ASGI" not in capfd.readouterr().err


def test_a_head_without_an_end_is_refused() -> None:
    with serving(ScriptedEngine()) as server, socket.socket() as client:
        client.connect(("127.0.0.1", server.port))
        client.settimeout(20)
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")
        sent = 0
        try:
            while sent < 100 << 20:
                client.sendall(b"x-more: %b\r\n" % (b"y" * 10_000))
                sent += 10_000
            said = b"nothing"
        except OSError:  # the server has closed the connection
            said = b""
        assert said == b""
        assert sent < 10 << 20
        assert server.ask("GET", "/health").status == 200

"""OpenTelemetry spans: what is in them, whose children they are, and that a collector cannot harm a request."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from serving import Server, serving
from suffice.engines import open_engine
from suffice.errors import UsageError
from suffice.serve.config import ServeSettings
from suffice.serve.observe.spans import Spans, spans_endpoint, trace_context
from suffice.testing.fake_openai import FakeOpenAI
from suffice.testing.scripted_engine import ScriptedEngine

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="suffice[otel] is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Recorder:
    """Spans of a server, kept in memory."""

    def __init__(self, server: Server) -> None:
        self.exporter = InMemorySpanExporter()
        self.spans = server.service.spans = Spans(self.exporter)

    def take(self) -> ReadableSpan:
        """The one span that has ended since the last call."""
        deadline = time.monotonic() + 20
        while not self.exporter.get_finished_spans():  # the client has its answer a moment before the request ends
            assert time.monotonic() < deadline
            self.spans._provider.force_flush()
            time.sleep(0.005)
        [span] = self.exporter.get_finished_spans()
        self.exporter.clear()
        return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_span_says_what_the_conventions_name_and_what_the_budget_was() -> None:
    with serving(ScriptedEngine("x" * 200)) as server:
        recorder = Recorder(server)
        said = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 3, "max_tokens": 50, "stop": "secret stop"}
        reply = server.chat("secret words", **said, traceparent=None)
        span = recorder.take()
    assert (span.name, span.kind, span.status.status_code) == ("chat scripted", SpanKind.SERVER, StatusCode.UNSET)
    assert span.resource.attributes["service.name"] == "suffice"
    found = attributes(span)
    assert "secret" not in str(found)
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "suffice",
        "gen_ai.request.model": "scripted",
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 7,
        "gen_ai.request.seed": 3,
        "gen_ai.response.model": "scripted",
        "gen_ai.response.id": reply.json["id"],
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 50,
        "suffice.request_id": reply.headers["x-request-id"],
        "suffice.tier": "short",
        "suffice.max_new_tokens": 50,
        "suffice.limited_by": "caller",
        "suffice.finish": "length",
        "suffice.finish_detail": "caller",
        "suffice.upstream": "scripted",
        "suffice.attempts": 1,
    }
    assert {name: found.get(name) for name in expected} == expected
    budget = reply.json["suffice"]["budget"]
    assert found["suffice.expected_tokens"] == budget["expected_tokens"]
    assert found["suffice.quantiles.p50"] <= found["suffice.quantiles.p99"] <= 50
    assert 0 <= found["suffice.queue_seconds"] <= found["suffice.time_to_first_token_seconds"]
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time > found["suffice.time_to_first_token_seconds"] * 1e9
    assert not {"gen_ai.response.time_to_first_chunk", "error.type", "suffice.error"} & found.keys()


def test_streams_completions_and_errors_have_their_own_words() -> None:
    with serving(ScriptedEngine("x" * 100, fail_after=20)) as server:
        recorder = Recorder(server)
        server.post("/v1/completions", {"prompt": "go on", "stream": True})
        broken = recorder.take()
        assert server.chat("x", max_tokens=10).status == 200
        good = attributes(recorder.take())
        assert server.chat(model="another").status == 404
        refused = recorder.take()
    found = attributes(broken)
    assert (broken.name, broken.status.status_code) == ("text_completion scripted", StatusCode.ERROR)
    assert (found["error.type"], found["suffice.finish"]) == ("engine_error", "error")
    assert found["http.response.status_code"] == 200  # the stream had begun
    assert found["gen_ai.response.time_to_first_chunk"] == found["suffice.time_to_first_token_seconds"]
    assert found["gen_ai.usage.output_tokens"] == 20
    assert good["gen_ai.response.finish_reasons"] == ("length",)
    found = attributes(refused)
    assert (refused.status.status_code, found["suffice.error"]) == (StatusCode.UNSET, "model_not_found")
    assert found["http.response.status_code"] == 404
    assert not {"error.type", "gen_ai.usage.input_tokens", "gen_ai.response.id"} & found.keys()


@pytest.mark.parametrize("traced", [True, False])
def test_an_upstream_takes_part_in_the_callers_trace(server: FakeOpenAI, traced: bool) -> None:
    with serving(open_engine(upstream=server.url), upstreams=(server.url,)) as gateway:
        recorder = Recorder(gateway) if traced else None
        sent = {"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7", "X_Request_Id": "mine-7"}
        assert gateway.post("/infer/short", {"prompt": "hi"}, **sent).status == 200
        received = CIMultiDict(server.generations[-1].headers)
        assert (received["tracestate"], received["x-request-id"]) == ("rojo=00f067aa0ba902b7", "mine-7")
        if recorder is None:
            assert received["traceparent"] == PARENT
            return
        span = recorder.take()
        assert span.parent is not None
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, "b7ad6b7169203331")
        assert received["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
        assert gateway.post("/infer/short", {"prompt": "hi"}).status == 200  # a caller without a trace begins one
        span = recorder.take()
        assert span.parent is None
        assert (
            CIMultiDict(server.generations[-1].headers)["traceparent"].split("-")[1] == f"{span.context.trace_id:032x}"
        )


def test_what_is_no_trace_context_is_not_passed_on() -> None:
    good = (b"traceparent", PARENT.encode())
    assert trace_context([good, (b"tracestate", b"a=1"), (b"baggage", b"b=2")]) == {
        "traceparent": PARENT,
        "tracestate": "a=1",
    }
    assert trace_context([good, (b"tracestate", b"\xff" * 10)]) == {"traceparent": PARENT}
    assert trace_context([good, (b"tracestate", b"a" * 513)]) == {"traceparent": PARENT}
    for headers in ([], [(b"tracestate", b"a=1")], [(b"traceparent", b"00-xyz")], [(b"traceparent", b"")]):
        assert trace_context(headers) == {}


def test_a_client_that_goes_away_is_no_error() -> None:
    with serving(ScriptedEngine("x" * 900, slow=True)) as server:
        recorder = Recorder(server)
        connection, response = server.open("POST", "/infer/long", {"prompt": "go on", "stream": True})
        response.readline()
        connection.close()
        span = recorder.take()
    assert (span.status.status_code, attributes(span)["suffice.finish_detail"]) == (StatusCode.UNSET, "client_gone")
    assert attributes(span)["http.response.status_code"] == 499


@contextmanager
def collector(received: list[Any], status: int = 200) -> Iterator[str]:
    """A receiver of OTLP over HTTP on loopback: its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def take(request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/x-protobuf"
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(status=status)

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/traces", take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("variable", ["", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_collector_gets_every_span_before_the_server_ends(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Any] = []
    with collector(received) as url:
        if variable:
            monkeypatch.setenv(variable, url)
        with serving(ScriptedEngine(), **({} if variable else {"otlp_endpoint": url})) as server:
            for _ in range(5):
                server.post("/infer/short", {"prompt": "hi"})
        spans = [
            span for batch in received for resource in batch.resource_spans for scope in resource.scope_spans
            for span in scope.spans
        ]  # fmt: skip
    assert [span.name for span in spans] == ["chat scripted"] * 5
    values = {each.key: each.value for each in spans[0].attributes}
    assert values["gen_ai.usage.output_tokens"].int_value == 5
    assert values["gen_ai.response.finish_reasons"].array_value.values[0].string_value == "stop"
    assert values["suffice.tier"].string_value == "short"


def test_a_collector_that_is_away_harms_nothing_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    with serving(ScriptedEngine(), otlp_endpoint="http://127.0.0.1:9") as server:
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: server.post("/infer/short", {"prompt": "hi"}), range(30)))
        assert [reply.status for reply in replies] == [200] * 30
    said = caplog.text
    assert said.count("cannot be sent to http://127.0.0.1:9/v1/traces") == 1
    assert "30 of 30 spans did not arrive" in said
    assert "Traceback" not in said + capfd.readouterr().err


def test_where_spans_go() -> None:
    def of(endpoint: str | None = None, **environment: str) -> str | None:
        return spans_endpoint(ServeSettings(otlp_endpoint=endpoint), environment)

    assert of() is None
    assert of("http://a:4318/") == "http://a:4318/v1/traces"
    assert of(OTEL_EXPORTER_OTLP_ENDPOINT="http://b") == "http://b/v1/traces"
    assert of(OTEL_EXPORTER_OTLP_ENDPOINT="http://b", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://c/x") == "http://c/x"
    assert of("http://a", OTEL_EXPORTER_OTLP_ENDPOINT="http://b") == "http://a/v1/traces"
    assert of("http://a", OTEL_SDK_DISABLED="true") is None
    assert of("http://a", OTEL_TRACES_EXPORTER="none") is None


def test_without_the_packages_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with (
        pytest.raises(UsageError, match=r"pip install 'suffice\[otel\]'"),
        serving(ScriptedEngine(), otlp_endpoint="http://127.0.0.1:9"),
    ):
        pass
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with serving(ScriptedEngine()) as server:
        assert server.chat().status == 200
    assert "continuing without spans" in caplog.text


def test_nothing_of_opentelemetry_is_imported_until_spans_are_wanted() -> None:
    code = "import suffice.serve.server, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

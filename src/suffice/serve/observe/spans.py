"""One OpenTelemetry span for each request that generates, with the attributes of the GenAI conventions and no text.

The names are those of the OpenTelemetry project (semantic-conventions-genai, docs/gen-ai/client-inference.md, and HTTP
server spans); what they do not cover is `suffice.*`. OpenTelemetry is only imported where spans are configured.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from suffice.errors import UsageError
from suffice.outage import Outage
from suffice.serve.config import ServeSettings
from suffice.serve.request.finish_reason import openai_finish_reason
from suffice.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span

    from suffice.serve.request.state import RequestState
    from suffice.serve.request_log.rows import RequestRow

__all__ = ["Spans", "open_spans", "spans_endpoint", "trace_context"]

_LOG = logging.getLogger(__name__)
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[ -~]*)?")  # W3C Trace Context, 3.2
_PRINTABLE = re.compile(rb"[ -~]{1,512}")
_FLUSH_SECONDS = 5.0  # that the end of the server waits for a collector


def trace_context(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The W3C trace context among the headers of a request: `traceparent`, and with it `tracestate`."""
    found = {name: value for name, value in headers if name in (b"traceparent", b"tracestate")}
    if not found or not _TRACEPARENT.fullmatch(found.get(b"traceparent", b"")):
        return {}
    return {name.decode(): value.decode() for name, value in found.items() if _PRINTABLE.fullmatch(value)}


def spans_endpoint(settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> str | None:
    """Where spans go, by the settings or OpenTelemetry's own variables; None where no collector is named."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if settings.otlp_endpoint:
        return f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    traces, base = (environment.get(name) for name in _ENDPOINTS)
    return traces or (f"{base.rstrip('/')}/v1/traces" if base else None)


def open_spans(settings: ServeSettings) -> Spans | None:
    """Spans to the collector that is configured, if one is.

    OpenTelemetry's own variables configure the rest: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER,
    OTEL_EXPORTER_OTLP_HEADERS and so on.

    Raises:
        UsageError: the packages are not installed, and the settings name a collector.
    """
    endpoint = spans_endpoint(settings)
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        message = f"spans for {endpoint} need the package {error.name}: pip install 'suffice[otel]'"
        if settings.otlp_endpoint:
            raise UsageError(message) from None
        _LOG.warning("%s; continuing without spans", message)  # the variable may be meant for others
        return None
    return Spans(OTLPSpanExporter(endpoint), endpoint)


class Spans:
    """Begins and ends the span of each request. `exporter` sends them in batches, from a thread, to `where`."""

    def __init__(self, exporter: SpanExporter, where: str = "") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `_Delivery` reports failures, in a line
        name = os.environ.get("OTEL_SERVICE_NAME", "suffice")
        resource = Resource.create({"service.name": name, "service.version": __version__})
        self._delivery = _Delivery(exporter, where)
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._delivery))  # type: ignore[arg-type]
        self._tracer = self._provider.get_tracer("suffice.serve", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._ended = 0

    def begin(self, state: RequestState) -> dict[str, str]:
        """Begin the request's span, a child of its caller's; returns the trace context of the span."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        parent = self._propagator.extract(state.api.request.trace_context)
        began = time.time_ns() - round(state.exchange.seconds * 1e9)
        state.span = self._tracer.start_span(_operation(state.route), parent, SpanKind.SERVER, start_time=began)
        trace_context: dict[str, str] = {}
        self._propagator.inject(trace_context, set_span_in_context(state.span))
        return trace_context

    def end(self, span: Span, state: RequestState, row: RequestRow) -> None:
        from opentelemetry.trace import Status, StatusCode

        if span.is_recording():
            self._ended += 1
            if row["model"]:
                span.update_name(f"{_operation(state.route)} {row['model']}")
            said = _of_request(state) | _of_answer(state, row) | _of_budget(state, row)
            span.set_attributes({name: value for name, value in said.items() if value is not None})
            if state.problem is not None and state.problem.status >= 500:  # a mistake of the caller is no error of ours
                span.set_attribute("error.type", row["error"])
                span.set_status(Status(StatusCode.ERROR, row["error"]))
        span.end()

    def close(self) -> None:
        """Send what is left, for a few seconds at most. Blocks."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_FLUSH_SECONDS)
        if lost := self._ended - self._delivery.sent:
            _LOG.warning("%d of %d spans did not arrive at %s", lost, self._ended, self._delivery.where)


class _Delivery:
    """An exporter whose log has a line when its collector is away, and one when it is back."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter, self.where = exporter, where
        self._outage = Outage(_LOG, "spans are sent again")
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result.name == "SUCCESS":
            self.sent += len(spans)
            self._outage.worked()
        else:
            self._outage.failed(f"spans cannot be sent to {self.where}; requests continue without them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _operation(route: str) -> str:
    return "text_completion" if route == "/v1/completions" else "chat"


def _of_request(state: RequestState) -> dict[str, Any]:
    request, extra = state.api.request, state.api.request.extra
    penalties = {
        f"gen_ai.request.{name}": float(extra[name])
        for name in ("frequency_penalty", "presence_penalty")
        if isinstance(extra.get(name), (int, float))
    }
    return {
        "http.request.method": "POST",
        "http.route": state.route,
        "gen_ai.operation.name": _operation(state.route),
        "gen_ai.provider.name": "suffice",
        "gen_ai.request.choice.count": state.api.n if state.api.n > 1 else None,
        "gen_ai.request.stream": state.api.stream,
        "gen_ai.request.max_tokens": request.max_new_tokens if request.max_new_tokens != "auto" else None,
        "gen_ai.request.temperature": request.sampling.temperature,
        "gen_ai.request.top_p": request.sampling.top_p,
        "gen_ai.request.top_k": request.sampling.top_k,
        "gen_ai.request.seed": request.sampling.seed,
        **penalties,
        "suffice.request_id": state.exchange.request_id,
        "suffice.key_id": state.caller.key_id or None,
    }


def _of_answer(state: RequestState, row: RequestRow) -> dict[str, Any]:
    choices, generated = state.choices, state.generated
    first = row["first_token_seconds"]
    reasons = [openai_finish_reason(each) for each in choices.answers] if choices and choices.finish else None
    return {
        "http.response.status_code": row["status"],
        "gen_ai.request.model": row["model"],
        "gen_ai.response.model": row["model"] if generated else None,
        "gen_ai.response.id": choices.id if choices and generated else None,
        "gen_ai.response.finish_reasons": reasons,
        "gen_ai.response.time_to_first_chunk": first if state.api.stream else None,
        "gen_ai.usage.input_tokens": row["prompt_tokens"] if generated else None,
        "gen_ai.usage.output_tokens": row["answer_tokens"] if generated else None,
        "gen_ai.usage.reasoning.output_tokens": row["thinking_tokens"] or None,
        "suffice.time_to_first_token_seconds": first,
        "suffice.queue_seconds": row["queue_seconds"],
        "suffice.finish": row["finish"],
        "suffice.finish_detail": row["finish_detail"] or None,
        "suffice.error": row["error"],
        "suffice.upstream": row["upstream"],
        "suffice.attempts": len(state.attempts) or None,
    }


def _of_budget(state: RequestState, row: RequestRow) -> dict[str, Any]:
    budget = state.choices.budget if state.choices else None
    return {
        "suffice.tier": row["tier"],
        "suffice.max_new_tokens": row["max_new_tokens"],
        "suffice.clamped_from": budget.clamped_from if budget else None,
        "suffice.expected_tokens": budget.expected_tokens if budget else None,
        "suffice.limited_by": row["limited_by"],
        **{f"suffice.quantiles.{name}": row[name] for name in ("p50", "p90", "p95", "p99")},
    }

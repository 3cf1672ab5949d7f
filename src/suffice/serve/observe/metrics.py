"""Metrics for Prometheus: our own, and the gauges that schedulers in Kubernetes look for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from suffice.engines.pool import Pool
from suffice.memory.meter import Metered
from suffice.serve.limits.admission import Admission
from suffice.serve.request.state import RequestState
from suffice.serve.request_log.rows import RequestRow

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
_RUNAWAYS = "Answers that repeat themselves: stopped, told only, closed (in thinking); advancing (many lines, no loop)."
_HISTOGRAMS = {
    "duration_seconds": ("From the request to the answer's end.", _SECONDS),
    "time_to_first_token_seconds": ("From the request to the first text.", _SECONDS),
    "queue_seconds": ("Waiting for a turn.", _SECONDS),
    "answer_tokens": ("Length of answers.", _TOKENS),
    "budget_tokens": ("Caps of answers.", _TOKENS),
}
"""By tier: what each measures, and its buckets."""


class Metrics:
    """Counters and histograms of one server, and a collector that reads its gauges (of the queue, the engines, and
    the answers that the learning left out) when it is asked."""

    def __init__(self, admission: Admission, pool: Pool, left_out: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        responses = Counter("suffice_http_responses", "Responses.", ("route", "status"), registry=registry)
        labels = ("tier", "reason", "detail")
        finish = Counter("suffice_request_finish", "Ends of answers, and what ended them.", labels, registry=registry)
        runaway = Counter("suffice_runaways", _RUNAWAYS, ("tier", "kind"), registry=registry)
        prompt = Counter("suffice_prompt_tokens", "Prompt tokens read.", ("tier",), registry=registry)
        answer = Counter("suffice_answer_tokens", "Answer tokens generated.", ("tier",), registry=registry)
        histograms = {
            name: Histogram(f"suffice_request_{name}", what, ("tier",), buckets=buckets, registry=registry)
            for name, (what, buckets) in _HISTOGRAMS.items()
        }
        registry.register(_Gauges(admission, pool, left_out))
        # looking up labels takes longer than counting
        self._response_of = cache(lambda route, status: responses.labels(route, str(status)))
        self._finish_of, self._runaway_of = cache(finish.labels), cache(runaway.labels)
        self._prompt_of, self._answer_of = cache(prompt.labels), cache(answer.labels)
        self._histograms_of = cache(lambda tier: {name: each.labels(tier) for name, each in histograms.items()})

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def response(self, route: str, status: int) -> None:
        """A response was sent (or, with status 0, none)."""
        self._response_of(route, status).inc()

    def request(self, state: RequestState, row: RequestRow) -> None:
        """A request for an answer has ended, in whatever way; `row` is what is written down of it."""
        choices = state.choices
        if choices is None or not state.generated:
            return
        histograms = self._histograms_of(choices.tier)
        for answer in choices.answers:
            self._finish_of(choices.tier, *answer.end).inc()
            for kind in answer.runaway_kinds:
                self._runaway_of(choices.tier, kind).inc()
            histograms["answer_tokens"].observe(answer.tokens)
            histograms["budget_tokens"].observe(answer.budget.max_new_tokens)
        self._prompt_of(choices.tier).inc(row["prompt_tokens"])
        self._answer_of(choices.tier).inc(row["answer_tokens"])
        histograms["duration_seconds"].observe(row["seconds"])
        histograms["queue_seconds"].observe(choices.waited)
        if row["first_token_seconds"] is not None:
            histograms["time_to_first_token_seconds"].observe(row["first_token_seconds"])


class _Gauges(Collector):
    """The state of queue and engines, read when the metrics are."""

    def __init__(self, admission: Admission, pool: Pool, left_out: Callable[[], int]) -> None:
        self._admission, self._pool, self._left_out = admission, pool, left_out

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        admission = self._admission
        rate = admission.throughput.tokens_per_second
        name = self._pool.model_name
        yield GaugeMetricFamily("suffice_requests_running", "Answers being generated.", len(admission.running))
        yield GaugeMetricFamily("suffice_requests_waiting", "Requests in the queue.", admission.waiting)
        yield GaugeMetricFamily("suffice_tokens_per_second", "Measured while busy, fading by the minute.", rate or 0)
        yield self._labelled("vllm:num_requests_running", "Answers being generated.", name, len(admission.running))
        yield self._labelled("vllm:num_requests_waiting", "Requests in the queue.", name, admission.waiting)
        if (usage := self._cache_usage()) is not None:
            yield self._labelled("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", name, usage)
        left_out = self._left_out()
        yield CounterMetricFamily("suffice_answers_not_learned", "Too many of their kind at once.", left_out)
        up = GaugeMetricFamily("suffice_upstream_up", "Whether it can take requests.", labels=("upstream",))
        running = GaugeMetricFamily("suffice_upstream_requests_running", "Answers there.", labels=("upstream",))
        for index, each in enumerate(self._pool.upstreams):
            label = [f"{each.name}#{index}"]
            up.add_metric(label, float(each.healthy and self._pool.is_available(each)))
            running.add_metric(label, each.running)
        yield up
        yield running
        yield self._memory()

    def _memory(self) -> GaugeMetricFamily:
        """Of the devices that engines in this process run on; servers elsewhere have metrics of their own."""
        family = GaugeMetricFamily(
            "suffice_memory_bytes",
            "Memory of the engine's device: allocated, reserved, free, total, kv_used, kv_total, others.",
            labels=("device", "kind"),
        )
        for each in self._pool.upstreams:
            if each.entered and isinstance(each.engine, Metered):
                figures = each.engine.memory_meter().read().to_dict()
                device = str(figures.pop("device"))
                for kind, value in figures.items():
                    if value is not None:
                        family.add_metric([device, kind], value)
        return family

    def _cache_usage(self) -> float | None:
        """From the tokens of running requests: pages that are only partly full are not seen."""
        total = self._pool.capabilities().kv_tokens
        return min(self._admission.tokens_held / total, 1.0) if total else None

    @staticmethod
    def _labelled(name: str, what: str, model: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, what, labels=("model_name",))
        family.add_metric([model], value)
        return family

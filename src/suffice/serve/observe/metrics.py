"""Metrics for Prometheus: our own, and the gauges that schedulers in Kubernetes look for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from suffice.engines.pool import Pool
from suffice.memory.meter import Metered
from suffice.serve.limits.admission import Admission
from suffice.serve.log.rows import RequestRow
from suffice.serve.request.state import RequestState

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """Counters and histograms of one server, and a collector that reads its gauges when it is asked.

    Args:
        admission: the queue.
        pools: the engines of each model.
        left_out: how many answers taught the length model nothing, because too many of their kind came at once.
    """

    def __init__(self, admission: Admission, pools: Mapping[str, Pool], left_out: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self._responses = Counter("suffice_http_responses", "Responses.", ("route", "status"), registry=registry)
        self._finish = Counter(
            "suffice_request_finish",
            "Ends of answers, and what ended them.",
            ("tier", "reason", "detail"),
            registry=registry,
        )
        self._prompt = Counter("suffice_prompt_tokens", "Prompt tokens read.", ("tier",), registry=registry)
        self._answer = Counter("suffice_answer_tokens", "Answer tokens generated.", ("tier",), registry=registry)

        def histogram(name: str, what: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"suffice_request_{name}", what, ("tier",), buckets=buckets, registry=registry)

        self._duration = histogram("duration_seconds", "From the request to the answer's end.", _SECONDS)
        self._first = histogram("time_to_first_token_seconds", "From the request to the first text.", _SECONDS)
        self._queue = histogram("queue_seconds", "Waiting for a turn.", _SECONDS)
        self._answer_tokens = histogram("answer_tokens", "Length of answers.", _TOKENS)
        self._budget_tokens = histogram("budget_tokens", "Caps of answers.", _TOKENS)
        registry.register(_Gauges(admission, pools, left_out))
        self._of_tier = cache(self._new_tier)
        self._response_of = cache(lambda route, status: self._responses.labels(route, str(status)))
        self._finish_of = cache(self._finish.labels)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)

    def response(self, route: str, status: int) -> None:
        """A response was sent (or, with status 0, none)."""
        self._response_of(route, status).inc()

    def request(self, state: RequestState, row: RequestRow) -> None:
        """A request for an answer has ended, in whatever way; `row` is what is written down of it."""
        choices = state.choices
        if choices is None or not state.generated:
            return
        of = self._of_tier(choices.tier)
        for answer in choices.answers:
            self._finish_of(choices.tier, *answer.end).inc()
            of.answer_tokens.observe(answer.tokens)
            of.budget_tokens.observe(answer.budget.max_new_tokens)
        of.prompt.inc(row["prompt_tokens"])
        of.answer.inc(row["answer_tokens"])
        of.duration.observe(row["seconds"])
        of.queue.observe(choices.waited)
        if row["first_token_seconds"] is not None:
            of.first.observe(row["first_token_seconds"])

    def _new_tier(self, tier: str) -> _OfTier:
        return _OfTier(
            prompt=self._prompt.labels(tier),
            answer=self._answer.labels(tier),
            duration=self._duration.labels(tier),
            first=self._first.labels(tier),
            queue=self._queue.labels(tier),
            answer_tokens=self._answer_tokens.labels(tier),
            budget_tokens=self._budget_tokens.labels(tier),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _OfTier:
    """The metrics of one tier, looked up once: looking up takes longer than counting."""

    prompt: Counter
    answer: Counter
    duration: Histogram
    first: Histogram
    queue: Histogram
    answer_tokens: Histogram
    budget_tokens: Histogram


class _Gauges(Collector):
    """The state of queue and engines, read when the metrics are."""

    def __init__(self, admission: Admission, pools: Mapping[str, Pool], left_out: Callable[[], int]) -> None:
        self._admission, self._pools, self._left_out = admission, pools, left_out

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        admission = self._admission
        rate = admission.throughput.tokens_per_second
        name = next(iter(self._pools))
        yield GaugeMetricFamily("suffice_requests_running", "Answers being generated.", len(admission.running))
        yield GaugeMetricFamily("suffice_requests_waiting", "Requests in the queue.", admission.waiting)
        yield GaugeMetricFamily("suffice_tokens_per_second", "Measured while busy, fading by the minute.", rate or 0)
        yield self._labelled("vllm:num_requests_running", "Answers being generated.", name, len(admission.running))
        yield self._labelled("vllm:num_requests_waiting", "Requests in the queue.", name, admission.waiting)
        if (usage := self._cache_usage()) is not None:
            yield self._labelled("vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1.", name, usage)
        untaught = self._left_out()
        yield CounterMetricFamily("suffice_answers_not_learned", "Too many of their kind at once.", untaught)
        up = GaugeMetricFamily("suffice_upstream_up", "Whether it can take requests.", labels=("upstream",))
        running = GaugeMetricFamily("suffice_upstream_requests_running", "Answers there.", labels=("upstream",))
        for pool in self._pools.values():
            for index, each in enumerate(pool.upstreams):
                label = [f"{each.name}#{index}"]
                up.add_metric(label, float(pool.is_available(each)))
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
        for pool in self._pools.values():
            for each in pool.upstreams:
                if each.entered and isinstance(each.engine, Metered):
                    figures = each.engine.memory_meter().read().to_dict()
                    device = str(figures.pop("device"))
                    for kind, value in figures.items():
                        if value is not None:
                            family.add_metric([device, kind], value)
        return family

    def _cache_usage(self) -> float | None:
        """From the tokens of running requests: pages that are only partly full are not seen."""
        total = next(iter(self._pools.values())).capabilities().kv_tokens
        return min(self._admission.tokens_held / total, 1.0) if total else None

    @staticmethod
    def _labelled(name: str, what: str, model: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, what, labels=("model_name",))
        family.add_metric([model], value)
        return family

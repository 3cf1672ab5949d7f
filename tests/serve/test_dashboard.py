"""The Grafana dashboard asks for nothing that /metrics does not offer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving import LONG, serving
from suffice.engines.base import Capabilities
from suffice.memory.meter import MemoryMeter
from suffice.testing.scripted_engine import ScriptedEngine

BOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "suffice.json"
WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "label_values", "or", "vector"}


class Measured(ScriptedEngine):
    """With what a local engine has beside a remote one: a KV cache of known size, and a device."""

    def capabilities(self) -> Capabilities:
        return Capabilities(context_tokens=self.context, kv_tokens=10_000)

    def memory_meter(self) -> MemoryMeter:
        return MemoryMeter("cpu", kv_use=lambda: (5, 10))


def expressions(board: Any) -> Iterator[str]:
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def metrics_of(expression: str) -> dict[str, set[str]]:
    """The metrics of a PromQL expression, each with the labels that it is selected by."""
    found: dict[str, set[str]] = {}
    grouped = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression))))
    for name, _, selector in re.findall(r"([a-z][a-z_:]*\w)(\{([^}]*)\})?(?![\w(])", expression):
        if name not in WORDS | grouped and not expression.startswith(name + "("):
            found.setdefault(name, set()).update(re.findall(r"(\w+)[=!]", selector), grouped)
    return found


@pytest.fixture(scope="module")
def offered() -> dict[str, set[str]]:
    """The samples of a server that has answered: name to labels."""
    with serving(Measured(LONG, context=3000)) as server:
        for stream in (False, True):
            server.post("/infer/short", {"prompt": "hi", "stream": stream})
        text = server.ask("GET", "/metrics").body.decode()
    samples: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, set()).update(sample.labels)
    return samples


def test_every_metric_and_label_of_the_dashboard_is_offered(offered: dict[str, set[str]]) -> None:
    board = json.loads(BOARD.read_text())
    asked: dict[str, set[str]] = {}
    for expression in expressions(board):
        text = re.sub(r"label_values\((\w+), (\w+)\)", r"\1", expression)
        selected = metrics_of(re.sub(r'"[^"]*"|\[[^\]]*\]', '""', text))
        assert selected, expression
        for name, labels in selected.items():
            asked.setdefault(name, set()).update(labels)
    for name, labels in asked.items():
        assert name in offered, f"the dashboard asks for {name}, which /metrics does not offer"
        assert labels - {"instance"} <= offered[name], name
    families = {name for name in offered if not name.endswith(("_created", "_count", "_sum", "_total", "_bucket"))}
    assert {"suffice_requests_running", "suffice_memory_bytes", "vllm:kv_cache_usage_perc"} <= families
    # and what it offers is shown, but for the gauges of Kubernetes' schedulers, which say the same
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    ours = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in offered if name.startswith("suffice_")}
    ours = {name for name in ours if name + "_total" not in ours}
    assert ours <= shown


def test_a_metric_that_is_not_there_would_be_noticed() -> None:
    found = metrics_of('sum by (tier) (rate(suffice_nothing_total{reason=""}[])) / vllm:other{kind=~""}')
    assert found == {"suffice_nothing_total": {"reason", "tier"}, "vllm:other": {"kind", "tier"}}


def test_panels_are_whole() -> None:
    board = json.loads(BOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or (panel["targets"] and panel["description"])

"""What a fixed cap cuts, and what it sets aside for nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from evidence_parts.data import (
    CHINESE_TASKS,
    ENGLISH_TASKS,
    NAMES,
    OTHER_TASKS,
    TRACES,
    Floats,
    Say,
    answers,
    mixed,
    percent,
    table,
    trace,
)

CAPS = (128, 256, 512, 1024, 2048, 4096)
_SOURCES = (*ENGLISH_TASKS, *CHINESE_TASKS, *OTHER_TASKS, "wildbench_outputs_noprompt_multi")


def lengths(data: Path) -> Mapping[str, Floats]:
    """Answer lengths by source and trace: answers that ended by themselves, as far as is known."""
    found = {NAMES[name]: np.array([one.tokens for one in answers(data, name) if one.ended]) for name in _SOURCES}
    found["all, 500 each"] = np.array([one.tokens for one in mixed(data)])
    found |= {name: trace(data, file).get("tokens", np.array([])) for file, name in TRACES.items()}
    return {name: np.asarray(tokens, np.float64) for name, tokens in found.items() if len(tokens)}


def cut(tokens: Floats, cap: int) -> float:
    """Share of the answers that are longer than the cap."""
    return float((tokens > cap).mean())


def waste(tokens: Floats, cap: int) -> float:
    """Tokens set aside for each that is used, where the whole cap is reserved."""
    return float(cap / np.minimum(tokens, cap).mean())


def tables(data: Path, say: Say) -> dict[str, str]:
    """The tables `caps-cut` and `caps-waste`."""
    say("fixed caps")
    found = lengths(data)
    head = ["answers of", "answers", "p50", "p90", "p99", *(f"{cap:,}" for cap in CAPS)]
    cuts, wastes = [], []
    for name, tokens in found.items():
        quantiles = [round(float(q)) for q in np.quantile(tokens, (0.5, 0.9, 0.99))]
        cuts.append([name, len(tokens), *quantiles, *(percent(cut(tokens, cap)) for cap in CAPS)])
        wastes.append([name, *(f"{waste(tokens, cap):.1f}" for cap in CAPS)])
    return {"caps-cut": table(head, cuts), "caps-waste": table([head[0], *head[5:]], wastes)}

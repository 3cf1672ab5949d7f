"""Computes how many requests run at once in a given number of bytes: at full length, or with real lengths.

At a random moment, a running request is more likely a long one, and somewhere in the middle of it. A request with a
prompt of P and an answer of L tokens runs for L steps and holds P + t tokens at step t, so what a running request
holds, over all moments, has the mean

    E[ bytes(P + 1) + ... + bytes(P + L) ] / E[L]

(renewal-reward: Cox 1962, "Renewal Theory"; Wolff 1989). N running requests, independent, hold N times that, with a
standard deviation that grows with the square root of N; the N that fits leaves room for 99 % of all moments.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

from suffice.memory.kv import KvLayout

__all__ = ["TrafficLengths", "concurrent_reserved", "concurrent_running"]

_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)  # exact for what is integrated here: cubic at most
_QUANTILE = 0.99  # of all moments in which the running requests fit without one being put off


@dataclass(frozen=True, slots=True)
class TrafficLengths:
    """Prompt and answer tokens of requests."""

    pairs: tuple[tuple[int, int, int], ...]
    """(prompt tokens, answer tokens, how many such requests)."""
    skipped: int = 0
    """Rows without the two numbers, or with no answer."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], skipped: int = 0) -> TrafficLengths:
        counted = Counter(pairs)
        return cls(tuple((prompt, answer, n) for (prompt, answer), n in sorted(counted.items())), skipped)

    @property
    def rows(self) -> int:
        return sum(n for _, _, n in self.pairs)

    def capped(self, max_new_tokens: int) -> TrafficLengths:
        """With answers cut at a limit."""
        return TrafficLengths(tuple((prompt, min(answer, max_new_tokens), n) for prompt, answer, n in self.pairs))

    def cut_share(self, max_new_tokens: int) -> float:
        """Share of the answers that a limit would cut (0-1)."""
        return sum(n for _, answer, n in self.pairs if answer > max_new_tokens) / self.rows

    def mean(self) -> tuple[float, float]:
        """Of prompts and of answers, in tokens."""
        rows = self.rows
        return sum(p * n for p, _, n in self.pairs) / rows, sum(a * n for _, a, n in self.pairs) / rows

    def quantile(self, share: float) -> tuple[int, int]:
        """The prompt and the answer length that this share of the requests does not exceed."""
        return _quantile(self.pairs, 0, share), _quantile(self.pairs, 1, share)


def concurrent_running(
    lengths: TrafficLengths, layout: KvLayout, room: int, bytes_per_value: float, page_size: int = 1
) -> int:
    """Requests that run at once in `room` bytes, 99 % of the time, where only what exists is stored (paged engines)."""
    lost = (page_size - 1) / 2  # of a page, on average
    return _fitting(*_running(lengths, lambda n: _bytes(layout, n + lost, bytes_per_value), layout.windows), room)


def concurrent_reserved(
    lengths: TrafficLengths, layout: KvLayout, room: int, bytes_per_value: float, max_new_tokens: int
) -> int:
    """Requests that run at once where prompt + `max_new_tokens` is reserved for each (static engines)."""
    weights = [
        (answer * n, _bytes(layout, prompt + max_new_tokens, bytes_per_value)) for prompt, answer, n in lengths.pairs
    ]
    total = sum(weight for weight, _ in weights)
    mean = sum(weight * size for weight, size in weights) / total
    variance = sum(weight * (size - mean) ** 2 for weight, size in weights) / total
    return _fitting(mean, variance, room)


def _running(lengths: TrafficLengths, size: Callable[[float], float], breaks: tuple[int, ...]) -> tuple[float, float]:
    """Mean and variance of what a running request holds; `breaks` are the lengths where `size` has a kink."""
    steps = first = second = 0.0
    for prompt, answer, n in lengths.pairs:
        edges = [prompt, *(edge for edge in breaks if prompt < edge < prompt + answer), prompt + answer]
        for start, end in pairwise(edges):
            for point in _GAUSS:
                held, weight = size(start + (end - start) * point), n * (end - start) / 2
                steps += weight
                first += weight * held
                second += weight * held * held
    mean = first / steps
    return mean, max(0.0, second / steps - mean * mean)


def _fitting(mean: float, variance: float, room: int) -> int:
    """The largest N with N mean + z sqrt(N variance) <= room."""
    if room < mean:
        return 0
    z = NormalDist().inv_cdf(_QUANTILE) * math.sqrt(variance)
    root = (math.sqrt(z * z + 4 * mean * room) - z) / (2 * mean)
    return max(1, int(root * root + 1e-9))


def _bytes(layout: KvLayout, tokens: float, bytes_per_value: float) -> float:
    kept = sum(
        layer.values * count * (tokens if layer.window is None else min(tokens, layer.window))
        for layer, count in layout.layers
    )
    return bytes_per_value * kept + max(2, bytes_per_value) * layout.state


def _quantile(pairs: tuple[tuple[int, int, int], ...], column: int, share: float) -> int:
    counted: Counter[int] = Counter()
    for pair in pairs:
        counted[pair[column]] += pair[2]
    left = share * sum(counted.values())
    for value in sorted(counted):
        left -= counted[value]
        if left <= 0:
            return value
    return max(counted)

"""How many requests run at once in a given number of bytes: at full length, or with the lengths that really come.

At a random moment, a running request is more likely a long one, and somewhere in the middle of it. A request with a
prompt of P and an answer of L tokens runs for L steps and holds P + t tokens at step t, so what a running request
holds, over all moments, has the mean

    E[ bytes(P + 1) + ... + bytes(P + L) ] / E[L]

(renewal-reward: Cox 1962, "Renewal Theory"; Wolff 1989). N running requests, independent, hold N times that, with a
standard deviation that grows with the square root of N; the N that fits leaves room for `quantile` of all moments.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import IO, Any

from suffice.errors import DataError
from suffice.memory.kv import KvLayout

__all__ = ["Lengths", "concurrent_reserved", "concurrent_running", "profile_lengths", "read_lengths"]

_PROMPT = ("prompt_tokens", "input_tokens", "request tokens", "contexttokens", "num_prefill_tokens", "input_length")
_OUTPUT = ("answer_tokens", "output_tokens", "completion_tokens", "response tokens", "generatedtokens")
_OUTPUT_MORE = ("num_decode_tokens", "output_length")
_GAUSS = (0.5 - math.sqrt(3) / 6, 0.5 + math.sqrt(3) / 6)  # exact for what is integrated here: cubic at most
_PROFILE_ROWS = 1000  # that stand for a profile
_QUANTILE = 0.99  # of all moments in which the running requests fit without one being put off


@dataclass(frozen=True, slots=True)
class Lengths:
    """Prompt and answer tokens of requests."""

    pairs: tuple[tuple[int, int, int], ...]
    """(prompt tokens, answer tokens, how many such requests)."""
    skipped: int = 0
    """Rows without the two numbers, or with no answer."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], skipped: int = 0) -> Lengths:
        """Count equal pairs."""
        counted = Counter(pairs)
        return cls(tuple((prompt, answer, n) for (prompt, answer), n in sorted(counted.items())), skipped)

    @property
    def rows(self) -> int:
        """Requests in all."""
        return sum(n for _, _, n in self.pairs)

    def capped(self, max_new_tokens: int) -> Lengths:
        """With answers cut at a limit."""
        return Lengths(tuple((prompt, min(answer, max_new_tokens), n) for prompt, answer, n in self.pairs))

    def cut_share(self, max_new_tokens: int) -> float:
        """Share of the answers that a limit would cut (0-1)."""
        return sum(n for _, answer, n in self.pairs if answer > max_new_tokens) / self.rows

    def mean(self) -> tuple[float, float]:
        """Mean prompt and mean answer, in tokens."""
        rows = self.rows
        return sum(p * n for p, _, n in self.pairs) / rows, sum(a * n for _, a, n in self.pairs) / rows

    def quantile(self, share: float) -> tuple[int, int]:
        """The prompt and the answer length that this share of the requests does not exceed."""
        return _quantile(self.pairs, 0, share), _quantile(self.pairs, 1, share)


def read_lengths(path: Path) -> Lengths:
    """Lengths from a CSV or JSONL file, `.gz` or not: a trace, a result file of `infer`, a log.

    Columns are found by the names that traces use (`prompt_tokens`, `input_tokens`, `ContextTokens` ... and
    `answer_tokens`, `output_tokens`, `completion_tokens`, `GeneratedTokens` ...), also inside `usage`.

    Raises:
        DataError: no such file, or no row has both lengths.
    """
    pairs: Counter[tuple[int, int]] = Counter()
    skipped = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for row in _rows(file, path.name.removesuffix(".gz")):
                prompt, answer = _number(row, _PROMPT), _number(row, (*_OUTPUT, *_OUTPUT_MORE))
                if prompt is None or not answer:
                    skipped += 1
                else:
                    pairs[prompt, answer] += 1
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None
    if not pairs:
        raise DataError(
            f"{path}: no row with both lengths ({skipped} without); columns such as prompt_tokens and output_tokens "
            "are needed"
        )
    return Lengths(tuple((prompt, answer, n) for (prompt, answer), n in sorted(pairs.items())), skipped)


def profile_lengths(path: Path, prompt_tokens: int) -> Lengths:
    """Lengths that follow a length profile: `length_profile.json` of an adapter, or the folder that it is in.

    A profile has the answers' quantiles; between them, and from 1 token up to the median, lengths are spread evenly.

    Args:
        path: the file or the folder.
        prompt_tokens: of every prompt, since a profile says nothing of them.

    Raises:
        DataError: no such file, or no profile in it.
    """
    path = path / "length_profile.json" if path.is_dir() else path
    try:
        found = json.loads(path.read_text("utf-8"))["overall"]
        marks = [(p / 100, float(found[f"p{p}"])) for p in (50, 90, 95, 99)] + [(1.0, float(found["longest"]))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"no length profile in {path}: {error}") from None
    answers, (low, start) = [], (0.0, 1.0)
    for high, end in marks:
        count = round((high - low) * _PROFILE_ROWS)
        answers += [round(start + (end - start) * (at + 0.5) / count) for at in range(count)]
        low, start = high, end
    return Lengths.of((prompt_tokens, max(1, answer)) for answer in answers)


def concurrent_running(
    lengths: Lengths, layout: KvLayout, room: int, bytes_per_value: float, page_size: int = 1
) -> int:
    """Requests that run at once where only what exists is stored (paged engines), for 99 % of all moments.

    Args:
        lengths: of the traffic.
        layout: of the model.
        room: bytes of KV cache.
        bytes_per_value: of the cache.
        page_size: half of a page is lost per request, on average.
    """
    lost = (page_size - 1) / 2
    return _fitting(*_running(lengths, lambda n: _bytes(layout, n + lost, bytes_per_value), layout.windows), room)


def concurrent_reserved(
    lengths: Lengths, layout: KvLayout, room: int, bytes_per_value: float, max_new_tokens: int
) -> int:
    """Requests that run at once where prompt + `max_new_tokens` is reserved for each (static engines)."""
    weights = [
        (answer * n, _bytes(layout, prompt + max_new_tokens, bytes_per_value)) for prompt, answer, n in lengths.pairs
    ]
    total = sum(weight for weight, _ in weights)
    mean = sum(weight * size for weight, size in weights) / total
    variance = sum(weight * (size - mean) ** 2 for weight, size in weights) / total
    return _fitting(mean, variance, room)


def _running(lengths: Lengths, size: Callable[[float], float], breaks: tuple[int, ...]) -> tuple[float, float]:
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
    return bytes_per_value * sum(
        layer.values * count * (tokens if layer.window is None else min(tokens, layer.window))
        for layer, count in layout.layers
    )


def _rows(file: IO[str], name: str) -> Iterator[Mapping[str, Any]]:
    if name.endswith(".csv"):
        yield from csv.DictReader(file)
        return
    for line in file:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        yield row if isinstance(row, dict) else {}


def _number(row: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    for source in (row, row.get("usage")):
        if isinstance(source, Mapping):
            for key, value in source.items():
                if isinstance(key, str) and key.strip().lower() in names:
                    try:
                        return max(0, round(float(value)))
                    except (TypeError, ValueError, OverflowError):
                        return None
    return None


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

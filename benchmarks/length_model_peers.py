"""The length model beside the same design in scikit-learn and LightGBM: loss, time of a prediction, size, import.

    python benchmarks/length_model_peers.py DATA      # where scikit-learn and lightgbm are installed, too

All arms read the same prompts: hashed character n-grams go into a ridge; its prediction, the numbers about the prompt's
form and the model's mean go into boosted trees, on the fourth root of the length. The peers fit one set of trees for
each quantile. Their time of a prediction leaves out the numbers about form, which they take ready-made.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from suffice.budget import LengthModel
from suffice.budget.length_model.evaluate import EVALUATED, pinball
from suffice.budget.length_model.features import conversation_features, features
from suffice.budget.length_model.sample import LengthSample

FILES = ("zeroeval_gsm", "zeroeval_crux", "zeroeval_mathl5", "ifeval", "ruozhiba", "gaokao", "mt_bench_zh")
EACH = 500  # answers of a file

Record = dict[str, Any]


def read(folder: Path) -> Iterator[Record]:
    """The first answers of each file, evenly spread."""
    for name in FILES:
        lines = gzip.decompress((folder / f"{name}.jsonl.gz").read_bytes()).splitlines()
        for line in lines[:: max(1, len(lines) // EACH)][:EACH]:
            yield json.loads(line)


def held_out(record: Record) -> bool:
    return zlib.crc32(str(record.get("prompt") or record["messages"]).encode()) % 5 == 0


class Ours:
    """The length model as it is, without history."""

    def __init__(self, rows: Sequence[Record]) -> None:
        self._model = LengthModel.fit(rows)

    def predict(self, row: Record) -> list[float]:
        prediction = self._model.predict({name: row.get(name) for name in ("prompt", "messages", "model")})
        return [prediction.quantile(level) for level in EVALUATED]

    def size(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            self._model.save(folder)
            return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


class Peer:
    """scikit-learn's hashing and ridge, and one regressor for each quantile on top."""

    def __init__(self, rows: Sequence[Record], regressor: Callable[[float], Any]) -> None:
        text = importlib.import_module("sklearn.feature_extraction.text")
        linear = importlib.import_module("sklearn.linear_model")
        selection = importlib.import_module("sklearn.model_selection")
        self._hashing = text.HashingVectorizer(
            analyzer="char", ngram_range=(1, 5), n_features=1 << 15, alternate_sign=False
        )
        target = np.array([row["output_tokens"] for row in rows]) ** 0.25
        cells = self._hashing.transform(text_of(row) for row in rows)
        self._ridge = linear.Ridge(alpha=1.0, solver="sparse_cg")
        said = selection.cross_val_predict(self._ridge, cells, target, cv=4)
        self._ridge.fit(cells, target)
        self._means = mean_of_models(rows, target)
        table = np.array([self._row(row, value) for row, value in zip(rows, said, strict=True)])
        self._fits = [regressor(level).fit(table, target) for level in EVALUATED]

    def predict(self, row: Record) -> list[float]:
        said = float(self._ridge.predict(self._hashing.transform([text_of(row)]))[0])
        table = np.array([self._row(row, said)])
        return [float(fit.predict(table)[0]) ** 4 for fit in self._fits]

    def size(self) -> int:
        return len(pickle.dumps((self._ridge, self._fits, self._means)))

    def _row(self, row: Record, said: float) -> list[float]:
        return [*form_of(row), self._means.get(row["model"], 0.0), said]


def text_of(row: Record) -> str:
    return str(row["prompt"] if "prompt" in row else row["messages"][-1]["content"])


def form_of(row: Record) -> list[float]:
    if "_form" not in row:
        query = LengthSample.of(row).query
        row["_form"] = features(query, conversation_features(query)).form.tolist()
    form: list[float] = row["_form"]
    return form


def mean_of_models(rows: Sequence[Record], target: Any) -> dict[str, float]:
    lengths = defaultdict(list)
    for row, value in zip(rows, target, strict=True):
        lengths[row["model"]].append(value)
    return {name: float(np.mean(values) - target.mean()) for name, values in lengths.items()}


def histogram_trees(level: float) -> Any:
    ensemble = importlib.import_module("sklearn.ensemble")
    return ensemble.HistGradientBoostingRegressor(
        loss="quantile", quantile=level, max_iter=150, max_depth=5, learning_rate=0.06
    )


def lightgbm_trees(level: float) -> Any:
    lightgbm = importlib.import_module("lightgbm")
    return lightgbm.LGBMRegressor(
        objective="quantile", alpha=level, n_estimators=150, max_depth=5, learning_rate=0.06, n_jobs=1, verbose=-1
    )


def import_seconds(statement: str) -> float:
    """The median of seven fresh processes, minus one that imports nothing."""

    def once(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    return median(once(statement) for _ in range(7)) - median(once("pass") for _ in range(7))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    rows = [row for row in read(parser.parse_args().data) if row["output_tokens"]]
    for row in rows:
        form_of(row)
    training, unseen = [row for row in rows if not held_out(row)], [row for row in rows if held_out(row)]
    tokens = np.array([row["output_tokens"] for row in unseen], float)
    constant = np.quantile([row["output_tokens"] for row in training], EVALUATED)
    base = pinball(tokens, np.tile(constant, (len(unseen), 1)))
    print(f"{len(training)} answers to learn from, {len(unseen)} held out")
    arms: dict[str, tuple[Callable[[Sequence[Record]], Ours | Peer], str]] = {
        "Suffice": (Ours, "import suffice.budget.length_model"),
        "scikit-learn": (
            lambda rows: Peer(rows, histogram_trees),
            "import sklearn.ensemble, sklearn.linear_model, sklearn.feature_extraction.text",
        ),
        "LightGBM": (
            lambda rows: Peer(rows, lightgbm_trees),
            "import lightgbm, sklearn.linear_model, sklearn.feature_extraction.text",
        ),
    }
    print("| arm | loss / constant | within 0.95 | prediction, µs of CPU time | fit, s | model, KB | import, s |")
    print("|---|---|---|---|---|---|---|")
    for name, (fit, imports) in arms.items():
        start = time.process_time()
        model = fit(training)
        fitted = time.process_time() - start
        start = time.process_time()
        quantiles = np.array([model.predict(row) for row in unseen])  # each prompt once: ours remembers the last ones
        micros = (time.process_time() - start) / len(unseen) * 1e6
        within = float((tokens <= quantiles[:, EVALUATED.index(0.95)]).mean())
        loss = pinball(tokens, quantiles) / base
        print(
            f"| {name} | {loss:.3f} | {within:.1%} | {micros:,.0f} | {fitted:.1f} | {model.size() / 1000:,.0f} "
            f"| {import_seconds(imports):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

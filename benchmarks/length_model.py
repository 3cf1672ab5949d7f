"""How well the length model predicts answers to prompts it has not seen, beside a constant and simple rules.

    python benchmarks/length_model.py FILE... [--model NAME] [--per-file N] [--leave-out] [--trace CSV...]

A FILE is a dataset with token counts, as `suffice fit` reads it (`prompt` or `messages`, `model`, `output_tokens`,
`finish`). Five folds, no prompt in two of them; answers that a limit ended are left out. The rows of the table:

- *constant*: the quantiles of all training answers;
- *model name*: the quantiles of the training answers of the same model;
- *prompt length*: those of the training answers to the tenth of the prompts that is nearest in length;
- *wishes and keywords*: what the budget expects without a length model;
- *length model*: `LengthModel`.

`--leave-out` trains on all files but one and predicts that one: what the quantiles are worth on a task never seen.
A CSV of `--trace` (gzipped) has `arrival_s, client, prompt_tokens, output_tokens`: its requests are predicted in order,
by who asks.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suffice.budget import Budgeter, LengthModel, estimate_tokens
from suffice.budget.model.evaluate import EVALUATED, Figures
from suffice.data import AnswerSummary, read_answers

_Record = dict[str, Any]
_Predict = Callable[[_Record], Sequence[float]]
_FOLDS = 5


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--model", default="", help="only models whose name contains this")
    parser.add_argument("--per-file", type=int, default=500)
    parser.add_argument("--leave-out", action="store_true")
    parser.add_argument("--trace", nargs="*", default=[], metavar="CSV")
    arguments = parser.parse_args()
    parts = {name: _read(name, arguments.model, arguments.per_file) for name in arguments.files}
    records = [record for part in parts.values() for record in part]
    if records:
        _folds(records)
    if arguments.leave_out:
        for name, part in parts.items():
            rest = [record for other, rows in parts.items() if other != name for record in rows]
            print(f"\ntrained on the other files, predicting {name}")
            _table({"constant": _constant(rest), "length model": _quantiles(LengthModel.fit(rest))}, part, part)
    for trace in arguments.trace:
        _trace(trace)


def _read(name: str, model: str, most: int) -> list[_Record]:
    records = [
        record
        for record in read_answers(name, estimate_tokens, AnswerSummary())
        if model.lower() in str(record["model"]).lower() and record["finish"] != "length" and "messages" in record
    ]
    random.Random(0).shuffle(records)
    return records[:most]


def _folds(records: list[_Record]) -> None:
    fold = [zlib.crc32(str(record["messages"]).encode("utf-8", "replace")) % _FOLDS for record in records]
    said: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros((len(records), len(EVALUATED))))
    fitting, predicting = 0.0, []
    for part in range(_FOLDS):
        train = [record for record, at in zip(records, fold, strict=True) if at != part]
        started = time.process_time()
        model = LengthModel.fit(train)
        fitting += time.process_time() - started
        methods = {
            "constant": _constant(train),
            "model name": _by_model(train),
            "prompt length": _by_prompt_length(train),
            "wishes and keywords": _rules(),
            "length model": _quantiles(model),
        }
        for at, record in enumerate(records):
            if fold[at] == part:
                for name, predict in methods.items():
                    started = time.process_time()
                    said[name][at] = predict(record)
                    if name == "length model":
                        predicting.append(time.process_time() - started)
    _print(dict(said), records)
    print(f"fit {fitting / _FOLDS:.1f} s, predict {1e6 * float(np.median(predicting)):.0f} us (median), CPU time")


def _table(methods: dict[str, _Predict], records: list[_Record], scored: list[_Record]) -> None:
    _print({name: np.array([predict(r) for r in scored], np.float64) for name, predict in methods.items()}, scored)


def _print(said: dict[str, NDArray[np.float64]], records: list[_Record]) -> None:
    truth = np.array([record["output_tokens"] for record in records], np.float64)
    print(f"{len(records)} answers            pinball  of constant   waste q0.95   coverage", *EVALUATED)
    for name, quantiles in said.items():
        figures = Figures.of(truth, quantiles, said["constant"])
        coverage = " ".join(f"{100 * share:5.1f}" for share in figures.coverage)
        print(f"{name:22} {figures.pinball:9.2f} {figures.ratio:10.3f} {figures.waste:12.2f}      {coverage}")


def _constant(train: list[_Record]) -> _Predict:
    quantiles = _of(train)
    return lambda record: quantiles


def _by_model(train: list[_Record]) -> _Predict:
    groups = defaultdict(list)
    for record in train:
        groups[record["model"]].append(record)
    by_model, everyone = {name: _of(rows) for name, rows in groups.items()}, _of(train)
    return lambda record: by_model.get(record["model"], everyone)


def _by_prompt_length(train: list[_Record]) -> _Predict:
    ordered = sorted(train, key=_prompt_length)
    edges = [_prompt_length(record) for record in ordered[:: max(1, len(ordered) // 10)]][1:10]
    parts = np.array_split(np.arange(len(ordered)), 10)
    quantiles = [_of([ordered[at] for at in part]) for part in parts]
    return lambda record: quantiles[int(np.searchsorted(edges, _prompt_length(record)))]


def _prompt_length(record: _Record) -> int:
    return len(str(record["messages"]))


def _rules() -> _Predict:
    budgeter = replace(Budgeter.load(), forecaster=None)
    levels = np.array(EVALUATED)

    def predict(record: _Record) -> Sequence[float]:
        known = budgeter.decide(record["messages"], max_new_tokens=1 << 20).quantiles
        # Log-normal around the median: 10 % and 25 % mirror 90 % and 75 %.
        logs = {p: float(np.log(tokens)) for p, tokens in known}
        spread = (logs[0.9] - logs[0.5]) / 1.2816
        z = np.interp(levels, EVALUATED, (-1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449, 2.3263))
        quantiles: list[float] = np.exp(logs[0.5] + spread * z).tolist()
        return quantiles

    return predict


def _quantiles(model: LengthModel) -> _Predict:
    def predict(record: _Record) -> Sequence[float]:
        prediction = model.predict({"messages": record["messages"], "model": record["model"]})
        return [prediction.quantile(p) for p in EVALUATED]

    return predict


def _of(records: list[_Record]) -> Sequence[float]:
    quantiles: list[float] = np.quantile([record["output_tokens"] for record in records], EVALUATED).tolist()
    return quantiles


def _trace(name: str, most: int = 20_000, warm_up: int = 2000) -> None:
    """Requests in order: the length model against one running quantile for everyone, and one for each client."""
    with gzip.open(name, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rows = sorted(rows[:: max(1, len(rows) // most)][:most], key=lambda row: float(row["arrival_s"]))
    model, everyone = LengthModel(), list[int]()
    clients: dict[str, list[int]] = defaultdict(list)
    said: dict[str, list[Any]] = defaultdict(list)
    spent = 0.0
    for number, row in enumerate(rows):
        who, tokens = {"client": row["client"]}, int(row["output_tokens"])
        started = time.process_time()
        prediction = model.predict(who)
        mine = [prediction.quantile(p) for p in EVALUATED]
        model.observe({**who, "output_tokens": tokens})
        spent += time.process_time() - started
        if number >= warm_up:
            own = clients[row["client"]][-500:]
            said["constant"].append(np.quantile(everyone[-5000:], EVALUATED))
            said["per client"].append(np.quantile(own, EVALUATED) if len(own) >= 30 else said["constant"][-1])
            said["length model"].append(mine)
        everyone.append(tokens)
        clients[row["client"]].append(tokens)
    print(f"\n{name}: {len(clients)} clients, a running constant; {1e6 * spent / len(rows):.0f} us a request, CPU time")
    records = [{"output_tokens": int(row["output_tokens"])} for row in rows[warm_up:]]
    _print({method: np.array(quantiles, np.float64) for method, quantiles in said.items()}, records)


if __name__ == "__main__":
    main()

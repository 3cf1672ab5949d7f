"""What prompt, history and both give on prompts not seen: in one task, in mixed traffic, between deployments."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from evidence_parts.data import (
    FOLDS,
    MEDIAN,
    NAMES,
    PER_SOURCE,
    Q95,
    Answer,
    Floats,
    HeldOut,
    Quantiles,
    Say,
    answers,
    chinese,
    constant,
    english,
    explained,
    mixed,
    percent,
    sample,
    table,
)
from evidence_parts.keywords import Written
from suffice.budget import LengthModel
from suffice.budget.length_model.evaluate import EVALUATED

_Predict = Callable[[Answer], Quantiles]
_DEPLOYMENTS = ("zeroeval_gsm_multi", "zeroeval_crux_multi", "zeroeval_mathl5_multi")
_MODELS = 12
_RULES = ("the model's name", "the prompt's length", "constraints and keywords")
_ORDER = ("constant", *_RULES, "the prompt", "history", "both")


def held_out(
    chosen: Sequence[Answer],
    *,
    prompt: Sequence[str] = ("prompt", "model"),
    history: Sequence[str] = ("route", "model"),
    rules: bool = True,
) -> HeldOut:
    """Five folds, no prompt in two of them. History sees the training answers first, then each held-out one after it
    was predicted.

    Args:
        chosen: the answers, in order of traffic.
        prompt: the fields of a record that say what was asked.
        history: those that say who asks.
        rules: also the plain rules.
    """
    said: dict[str, Floats] = defaultdict(lambda: np.zeros((len(chosen), len(EVALUATED))))
    for fold in range(FOLDS):
        train = [one for one in chosen if one.fold != fold]
        both = LengthModel.fit([one.learned(*prompt, *history) for one in train])
        past = LengthModel.fit([one.learned(*history) for one in train])
        methods: dict[str, _Predict] = {
            "constant": _always(constant(train)),
            "the prompt": _of(both.untaught(), prompt),
            "history": _of(past, history),
            "both": _of(both, (*prompt, *history)),
        }
        if rules:
            methods |= {"the model's name": _by_model(train), "the prompt's length": _by_prompt_length(train)}
        for at, one in enumerate(chosen):
            if one.fold == fold:
                for name, predict in methods.items():
                    said[name][at] = predict(one)
                past.observe(one.learned(*history))
                both.observe(one.learned(*prompt, *history))
    if rules:
        said["constraints and keywords"] = Written().quantiles(chosen)
    return HeldOut(chosen, dict(said))


def _always(quantiles: Quantiles) -> _Predict:
    return lambda one: quantiles


def _of(model: LengthModel, fields: Sequence[str]) -> _Predict:
    def predict(one: Answer) -> Quantiles:
        prediction = model.predict(one.record(*fields))
        return [prediction.quantile(p) for p in EVALUATED]

    return predict


def _by_model(train: Sequence[Answer]) -> _Predict:
    groups: dict[str, list[Answer]] = defaultdict(list)
    for one in train:
        groups[one.model].append(one)
    known, everyone = {name: constant(group) for name, group in groups.items()}, constant(train)
    return lambda one: known.get(one.model, everyone)


def _by_prompt_length(train: Sequence[Answer]) -> _Predict:
    ordered = sorted(train, key=lambda one: len(one.question))
    parts = np.array_split(np.arange(len(ordered)), 10)
    edges = [len(ordered[part[0]].question) for part in parts[1:]]
    quantiles = [constant([ordered[at] for at in part]) for part in parts]
    return lambda one: quantiles[int(np.searchsorted(edges, len(one.question), "right"))]


# --- in one task


def tasks_table(data: Path, say: Say) -> tuple[str, dict[str, float]]:
    """The table `tasks`, and the length model's pinball loss by task, of the constant's."""
    rows: list[Sequence[object]] = []
    ratios: dict[str, float] = {}
    sources = [*dict.fromkeys(one.source for one in mixed(data)), "qwen25math_8samples"]
    for source in sorted(sources, key=lambda name: NAMES[name]):
        say(f"in one task: {NAMES[source]}")
        chosen = sample(data, [source], _models_of(source))
        held = held_out(chosen)
        figures = held.figures("the prompt")
        ratios[NAMES[source]] = figures.ratio
        rows.append(
            [
                NAMES[source],
                len(chosen),
                len({one.model for one in chosen}),
                held.figures("the model's name").ratio,
                held.figures("the prompt's length").ratio,
                figures.ratio,
                held.explained("the prompt"),
                figures.waste / figures.waste_constant,
                percent(figures.coverage[Q95]),
            ]
        )
    head = ["one task", "answers", "models", "pinball / constant: model's name", "prompt's length", "length model"]
    head += ["R²", "waste / constant's", "within q0.95"]
    return table(head, rows), ratios


def _models_of(source: str) -> str:
    return {"zeroeval": "qwen", "ifeval": "qwen"}.get(source.partition("_")[0], "")


def repeated_runs(data: Path) -> str:
    """A sentence's figure: R² of log length by the other runs of the same model on the same prompt."""
    runs: dict[str, list[int]] = defaultdict(list)
    for one in answers(data, "qwen25math_8samples"):
        runs[one.question].append(one.tokens)
    truth, guess = [], []
    for tokens in runs.values():
        logs = np.log1p(tokens)
        for at, value in enumerate(tokens):
            others = np.delete(logs, at)
            truth.append(value)
            guess.append(np.expm1(others.mean()))
    return f"{explained(np.array(truth, np.float64), np.array(guess)):.2f}"


# --- mixed traffic


def mixed_tables(data: Path, everything: HeldOut, say: Say) -> dict[str, str]:
    """The tables `mixed`, `mixed-coverage` and `deployments`."""
    head = ["traffic", "predictor", "answers", "pinball", "/ constant", "R²", "waste at q0.95", "/ constant's"]
    sets = {"English tasks": english, "Chinese tasks": chinese}
    rows: list[Sequence[object]] = []
    coverage: list[Sequence[object]] = []
    for name, choose in sets.items():
        say(f"mixed traffic: {name}")
        held = held_out(_shuffled(choose(data)))
        rows += _rows(name, held)
        coverage += _coverage(name, held)
    rows += _rows("all ten", everything)
    coverage += _coverage("all ten", everything)
    say("deployments whose name the predictor is not told")
    apart = held_out(deployments(data), prompt=("prompt",), history=("client",), rules=False)
    return {
        "mixed": table(head, rows),
        "mixed-coverage": table(["traffic", "predictor", *(f"q{p:g}" for p in EVALUATED)], coverage),
        "deployments": table(head, _rows("twelve models, three tasks", apart)),
    }


def _shuffled(chosen: Sequence[Answer]) -> list[Answer]:
    order = np.random.default_rng(2).permutation(len(chosen))
    return [chosen[at] for at in order]


def _rows(name: str, held: HeldOut) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for method in (each for each in _ORDER if each in held.said):
        f = held.figures(method)
        share = f.waste / f.waste_constant
        cells = (f"{f.pinball:.1f}", f"{f.ratio:.3f}", held.explained(method), f.waste, share)
        rows.append([name, method, len(held.answers), *cells])
    return rows


def _coverage(name: str, held: HeldOut) -> list[Sequence[object]]:
    methods = [method for method in ("the prompt", "history", "both") if method in held.said]
    return [[name, method, *(percent(share) for share in held.figures(method).coverage)] for method in methods]


def deployments(data: Path) -> list[Answer]:
    """Answers of twelve models to three tasks, as if each were a deployment that one gateway serves."""
    files = {name: answers(data, name) for name in _DEPLOYMENTS}
    common = sorted(set.intersection(*({one.model for one in found} for found in files.values())))
    models = {common[round(at)] for at in np.linspace(0, len(common) - 1, min(_MODELS, len(common)))}
    chosen: list[Answer] = []
    for found in files.values():
        fitting = [one for one in found if one.model in models]
        chosen += _shuffled(fitting)[: 2 * PER_SOURCE]
    return _shuffled(chosen)


# --- transfer


def transfer_tables(data: Path, say: Say) -> tuple[dict[str, str], dict[str, list[float]]]:
    """The tables `transfer-tasks`, `transfer-models` and `transfer-languages`, and what traffic repairs, by task."""
    everything = mixed(data)
    repaired: dict[str, list[float]] = {}
    rows: list[Sequence[object]] = []
    for source in sorted({one.source for one in everything}, key=lambda name: NAMES[name]):
        say(f"left out: {NAMES[source]}")
        row, steps = _left_out(NAMES[source], everything, "source", source)
        rows.append(row)
        repaired[NAMES[source]] = steps
    found = {"transfer-tasks": table([*_HEAD, *_STEPS], rows)}
    chosen = deployments(data)
    rows = []
    for model, _ in sorted(Counter(one.model for one in chosen).items()):
        say(f"left out: {model}")
        rows.append(_left_out(model, chosen, "model", model)[0])
    found["transfer-models"] = table([*_HEAD, *_STEPS], rows)
    chosen = sample(data, ["ifeval"], "qwen", 4 * PER_SOURCE)
    rows = []
    for lang in ("en", "fr", "es", "ja"):
        say(f"left out: IFEval in {lang}")
        rows.append(_left_out(f"IFEval, {lang}", chosen, "lang", lang)[0])
    found["transfer-languages"] = table([*_HEAD, *_STEPS], rows)
    return found, repaired


_HEAD = ["never seen", "answers", "others' constant", "length model", "R²", "within q0.95", "q0.95 / q0.5"]
_BOUNDS = (0, 25, 100, 500)
_STEPS = [f"answers {low + 1}–{high}" for low, high in pairwise(_BOUNDS)]


def _left_out(name: str, chosen: Sequence[Answer], field: str, value: str) -> tuple[Sequence[object], list[float]]:
    """Answers whose `field` has a value are left out of training.

    Returns:
        A row with pinball losses relative to the constant of the answers that were left out, and what traffic repairs.
    """
    rest = [one for one in chosen if getattr(one, field) != value]
    out = [one for one in chosen if getattr(one, field) == value][:PER_SOURCE]
    model = LengthModel.fit([one.learned("prompt", "model") for one in rest])
    fields = ("prompt", "model", "route", "client")
    taught = model.untaught()
    silent, learning = _of(model, ("prompt", "model")), _of(taught, fields)
    said: dict[str, list[Quantiles]] = {"constant": [constant(out)] * len(out), "others": [constant(rest)] * len(out)}
    said |= {"model": [], "taught": []}
    for one in out:
        said["model"].append(silent(one))
        said["taught"].append(learning(one))
        taught.observe(one.learned(*fields))
    held = HeldOut(out, {method: np.array(quantiles, np.float64) for method, quantiles in said.items()})
    figures, quantiles = held.figures("model"), held.said["model"]
    number = np.arange(len(out))
    parts = [(number >= low) & (number < high) for low, high in pairwise(_BOUNDS)]
    steps = [held.figures("taught", part).ratio if part.sum() >= 20 else float("nan") for part in parts]
    cells: list[object] = [name, len(out), held.figures("others").ratio, figures.ratio, held.explained("model")]
    cells += [percent(figures.coverage[Q95]), float(np.median(quantiles[:, Q95] / np.maximum(1, quantiles[:, MEDIAN])))]
    return [*cells, *steps], steps

"""What keyword rules do: how often they fire, what their caps would cut, and what they are worth as predictors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evidence_parts.data import (
    CHINESE_TASKS,
    FOLDS,
    NAMES,
    Answer,
    HeldOut,
    Quantiles,
    Say,
    answers,
    constant,
    mixed,
    percent,
    table,
)
from suffice.budget import Budgeter
from suffice.budget.estimators import KeywordClass
from suffice.budget.length_constraints.find import find_constraints
from suffice.budget.length_model.evaluate import EVALUATED
from suffice.budget.settings import load_settings
from suffice.prompt import instructions

# What such tables usually hold, with the caps that they usually set.
USUAL = (
    KeywordClass(
        "short",
        70,
        128,
        (
            *("briefly", "in short", "one sentence", "yes or no", "define", "what is", "who is", "when", "how many"),
            *("简单", "简短", "简要", "一句话", "是什么", "什么是", "是谁", "多少", "哪个"),
        ),
    ),
    KeywordClass(
        "medium",
        260,
        512,
        (
            *("explain", "describe", "how to", "how do", "why", "compare", "summarize", "difference"),
            *("解释", "说明", "介绍", "如何", "怎么", "怎样", "为什么", "为啥", "总结", "区别"),
        ),
    ),
    KeywordClass(
        "long",
        600,
        1024,
        (
            *("in detail", "detailed", "comprehensive", "essay", "article", "story", "report", "tutorial"),
            *("step by step", "详细", "深入", "全面", "文章", "论文", "作文", "故事", "报告", "教程", "一步一步"),
        ),
    ),
)


def keyword_class(table_: Sequence[KeywordClass], answer: Answer) -> KeywordClass | None:
    """The class that a prompt falls in, or None; where several fire, the longest wins."""
    asked = instructions(answer.question)
    fired = [one for one in table_ if one.find(asked) is not None]
    return max(fired, key=lambda one: one.max_new_tokens, default=None)


def tables(data: Path, held: HeldOut, say: Say) -> dict[str, str]:
    """The tables `keywords-caps` and `keywords-worth`; `held` has the mixed answers with what a length model says."""
    say("keyword rules")
    rules = {"usual": USUAL, "packaged": load_settings(None).keywords}
    return {"keywords-caps": _caps(data, rules), "keywords-worth": _worth(held, rules)}


def _caps(data: Path, rules: Mapping[str, Sequence[KeywordClass]]) -> str:
    rows: list[Sequence[object]] = []
    for source in dict.fromkeys(one.source for one in mixed(data)):
        found = [one for one in answers(data, source) if one.ended]
        cells: list[object] = [NAMES[source], len({one.question for one in found}), len(found)]
        for classes in rules.values():
            fired = [(one, rule) for one in found if (rule := keyword_class(classes, one)) is not None]
            cells += [percent(len(fired) / len(found)), _cut(fired)]
            short = [pair for pair in fired if pair[1].name == "short"]
            if classes is USUAL:
                cells += [percent(len(short) / len(found)), _cut(short)]
        rows.append(cells)
    head = ["answers of", "prompts", "answers", "usual table: fires", "cut", "its 128: fires", "cut"]
    head += ["packaged table: fires", "cut"]
    return table(head, sorted(rows, key=lambda row: str(row[0])))


def _cut(fired: Sequence[tuple[Answer, KeywordClass]]) -> str:
    return percent(sum(one.tokens > rule.max_new_tokens for one, rule in fired) / len(fired)) if fired else "—"


def _worth(held: HeldOut, rules: Mapping[str, Sequence[KeywordClass]]) -> str:
    in_chinese = np.array([one.source in CHINESE_TASKS for one in held.answers])
    wished = np.array([bool(find_constraints(instructions(one.question))) for one in held.answers])
    rows: list[Sequence[object]] = []
    for title, part in (("Chinese", in_chinese), ("English", ~in_chinese), ("with a constraint", wished)):
        chosen = [one for one, use in zip(held.answers, part, strict=True) if use]
        learned = {name: _learned(chosen, classes) for name, classes in rules.items()}
        said = {"constant": learned["usual"]["constant"], **{name: each["classes"] for name, each in learned.items()}}
        said |= {name: held.said[name][part] for name in ("constraints and keywords", "the prompt")}
        here = HeldOut(chosen, said)
        for method, name in _PREDICTORS.items():
            left = percent(_explained_of_rest(held, part, rules[method]), 2) if method in rules else "—"
            rows.append([title, name, len(chosen), here.figures(method).ratio, here.explained(method), left])
    head = ["prompts", "predictor", "answers", "pinball / constant", "R² of log length"]
    return table([*head, "of what the length model leaves"], rows)


_PREDICTORS = {
    "usual": "classes of the usual table",
    "packaged": "classes of the packaged table",
    "constraints and keywords": "constraints and the packaged table as written",
    "the prompt": "length model",
}


def _learned(chosen: Sequence[Answer], classes: Sequence[KeywordClass]) -> dict[str, np.ndarray]:
    """Quantiles of the training answers to prompts of the same class, and of all."""
    kinds = [getattr(keyword_class(classes, one), "name", "none") for one in chosen]
    said = {name: np.zeros((len(chosen), len(EVALUATED))) for name in ("constant", "classes")}
    for fold in range(FOLDS):
        groups: dict[str, list[Answer]] = defaultdict(list)
        for one, kind in zip(chosen, kinds, strict=True):
            if one.fold != fold:
                groups[kind].append(one)
        everyone = constant([one for group in groups.values() for one in group])
        known: dict[str, Quantiles] = {kind: constant(group) for kind, group in groups.items() if len(group) >= 20}
        for at, (one, kind) in enumerate(zip(chosen, kinds, strict=True)):
            if one.fold == fold:
                said["constant"][at], said["classes"][at] = everyone, known.get(kind, everyone)
    return said


def _explained_of_rest(held: HeldOut, part: np.ndarray, classes: Sequence[KeywordClass]) -> float:
    """R² by keyword class of what the length model's median leaves of log length; no answer is in its own mean."""
    rest = np.log1p(held.truth) - np.log1p(held.said["the prompt"][:, EVALUATED.index(0.5)])
    groups: dict[str, list[float]] = defaultdict(list)
    for one, use, value in zip(held.answers, part, rest, strict=True):
        if use:
            groups[getattr(keyword_class(classes, one), "name", "none")].append(float(value))
    rest = rest[part]
    squares = 0.0
    for values in (np.array(group) for group in groups.values()):
        others = (values.sum() - values) / max(1, len(values) - 1)
        squares += float(((values - others) ** 2).sum())
    return 1 - squares / float(((rest - rest.mean()) ** 2).sum())


class Written:
    """What the budget expects without a length model: constraints, texts to transform, keywords as written."""

    def __init__(self) -> None:
        self._budgeter = Budgeter.load().with_length_model(None)

    def quantiles(self, chosen: Sequence[Answer]) -> np.ndarray:
        """At `EVALUATED`, shape (answers, len(EVALUATED))."""
        return np.array([self._one(one) for one in chosen])

    def _one(self, answer: Answer) -> Quantiles:
        known = dict(self._budgeter.decide(answer.prompt, max_new_tokens=1 << 20).quantiles)
        median, spread = np.log(known[0.5]), (np.log(known[0.9]) - np.log(known[0.5])) / 1.2816
        # Log-normal around the median: what is below it mirrors what is above.
        z = np.array((-1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.6449, 2.3263))
        quantiles: list[float] = np.exp(median + spread * z).tolist()
        return quantiles

"""How many real answers outgrow what `--max_new_tokens auto` reserves at first, and how many its cap would end.

    python benchmarks/budget_cuts.py DATA [--multi] [--models REGEX]

DATA holds gzipped JSON lines, one row an answer: `NAME.jsonl.gz` with `source`, `id`, `lang`, `category`, `prompt` (or
`messages`), `model`, `output_tokens`, `finish` ("length" where the answer ran into the generator's limit) and
`gen_limit` in tokens where it is known. In `NAME_multi.jsonl.gz` a row is a prompt, `output_tokens` is {model: tokens},
and nothing says how the answers ended; they are read where there is no plain file of that name, or with --multi.

Every prompt is decided once, without tier, context or tokenizer. Only answers that ended by themselves count, those
without `finish` among them. Columns: longer than the first reservation (those go on, unnoticed); longer than the room
that was guessed, which would end them if a guess were a cap; longer than the cap, which is a default or a larger room.
One that was generated under a limit no higher than its cap can never be longer than the cap: "cannot be" says how many.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from suffice.budget import Budget, Budgeter, Expectation, LengthEstimator, LengthQuery, TextRatios
from suffice.budget.answer_language import answer_language
from suffice.budget.expectation import Room
from suffice.budget.length_constraints.constraint import Unit
from suffice.budget.length_constraints.find import find_constraints
from suffice.prompt import instructions

# The answers on which the room and the keyword table were chosen: source, and language where not all of it.
CHOSEN_ON = {
    ("ifeval", "en"),
    ("arena_hard_v0_1", None),
    ("arena_hard_v2_0", None),
    ("mt_bench_zh", None),
    ("gaokao", None),
    ("ruozhiba", None),
    ("gpteacher_codegen", None),
}
DEFAULT = 2048
DECIDERS = {
    "ExplicitLength": "explicit lengths",
    "TextTransform": "text to transform",
    "Keywords": "keywords",
    "UsualLength": "neither",
    "LearnedLength": "neither",
}
UNITS: Mapping[Unit, str] = {
    "word": "words, characters, pages",
    "hanzi": "words, characters, pages",
    "character": "words, characters, pages",
    "page": "words, characters, pages",
    "sentence": "sentences, lines",
    "line": "sentences, lines",
    "paragraph": "paragraphs",
    "item": "list entries",
    "piece": "whole texts",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of one model."""

    source: str
    lang: str
    prompt: str | Sequence[Mapping[str, Any]]
    model: str
    tokens: int
    ended: bool
    """It did not run into the generator's limit, as far as is known."""
    limit: float
    """The generator's limit in tokens; infinite where it is not known."""

    @property
    def chosen_on(self) -> bool:
        """Whether the room was chosen on answers to this prompt."""
        return not CHOSEN_ON.isdisjoint({(self.source, self.lang), (self.source, None)})


@dataclass(frozen=True, slots=True)
class Decided:
    """An answer, and the budget of its prompt."""

    answer: Answer
    decider: str
    room: int
    """What was guessed that a long answer needs; 0 where nothing was."""
    budget: Budget

    @property
    def outgrown(self) -> bool:
        """The answer is longer than its first reservation."""
        return self.answer.tokens > self.budget.reservation

    @property
    def longer_than_room(self) -> bool:
        """The guess would have ended the answer, if it were a cap."""
        return 0 < self.room < self.answer.tokens

    @property
    def cut(self) -> bool:
        """The answer is longer than the cap."""
        return self.answer.tokens > self.budget.max_new_tokens

    @property
    def cannot_be_cut(self) -> bool:
        """The generator's limit was no higher than the cap."""
        return self.answer.limit <= self.budget.max_new_tokens

    @property
    def cut_by_a_guess(self) -> bool:
        """A cap ends the answer that is lower than the default would be."""
        return self.cut and self.budget.max_new_tokens < DEFAULT


@dataclass(frozen=True, slots=True)
class Noting:
    """An estimator that writes its name and its room into `log` whenever it has an answer."""

    estimator: LengthEstimator
    log: list[tuple[str, int]]

    def estimate(self, query: LengthQuery) -> Expectation | None:
        """What the estimator says."""
        expectation = self.estimator.estimate(query)
        if expectation is not None:
            self.log.append((DECIDERS[type(self.estimator).__name__], expectation.room or 0))
        return expectation

    def room(self, query: LengthQuery) -> Room | None:
        """What the estimator says, where the length model has said what to expect."""
        room: Room | None = self.estimator.room(query) if hasattr(self.estimator, "room") else None
        if room is not None:
            self.log.append((DECIDERS[type(self.estimator).__name__], room.tokens))
        return room


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `path` that have a prompt and an answer."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row.get("output_tokens") and (row.get("messages") or row.get("prompt")):
                yield row


def answers(data: Path, with_multi: bool) -> Iterator[Answer]:
    """Every answer in `data` once; the plain file of a name goes before its `_multi`, because it knows the ends."""
    paths = {path.name.removesuffix(".jsonl.gz"): path for path in sorted(data.glob("*.jsonl.gz"))}
    for name in sorted({name.removesuffix("_multi") for name in paths if not name.endswith("_full")}):
        files = [paths[key] for key in (name, f"{name}_multi") if key in paths]
        seen: set[Hashable] = set()
        for path in files if with_multi else files[:1]:
            for row in rows(path):
                tokens = row["output_tokens"]
                for model, count in tokens.items() if isinstance(tokens, dict) else [(row["model"], tokens)]:
                    key = (row["category"], row["lang"], row["id"], model)
                    if key not in seen:
                        seen.add(key)
                        yield Answer(
                            source=row["source"],
                            lang=row["lang"],
                            prompt=row.get("messages") or row["prompt"],
                            model=model,
                            tokens=count,
                            ended=row.get("finish") != "length",
                            limit=row.get("gen_limit") or math.inf,
                        )


def decide(found: Iterable[Answer]) -> Iterator[Decided]:
    """The budget of every answer's prompt, each prompt decided once."""
    log: list[tuple[str, int]] = []
    plain = Budgeter.load()
    budgeter = replace(plain, estimators=tuple(Noting(estimator, log) for estimator in plain.estimators))
    known: dict[str, tuple[str, int, Budget]] = {}
    for answer in found:
        key = answer.prompt if isinstance(answer.prompt, str) else json.dumps(answer.prompt)
        if key not in known:
            budget = budgeter.decide(answer.prompt)
            known[key] = (*log[-1], budget)
            log.clear()
        yield Decided(answer, *known[key])


def share(count: int, of: int) -> str:
    """`3 (0.25 %)`."""
    return f"{count:,} ({count / of:.2%})".replace("%", " %") if count else "0"


def print_cuts(title: str, decided: Sequence[Decided], label: Callable[[Decided], str], labels: Sequence[str]) -> None:
    """A table with one row for each label, and one for all."""
    columns = (
        "longer than the reservation | than the room | than the cap | cannot be | median reservation | typical error"
    )
    print(f"\n| {title} | answers | {columns} |")
    print("|---|---|---|---|---|---|---|---|")
    for name in (*labels, "all"):
        group = [one for one in decided if name in (label(one), "all")]
        if not group:
            continue
        errors = [abs(math.log(max(1, one.answer.tokens) / one.budget.expected_tokens)) for one in group]
        cells = (
            name,
            f"{len(group):,}",
            share(sum(one.outgrown for one in group), len(group)),
            share(sum(one.longer_than_room for one in group), len(group)),
            share(sum(one.cut for one in group), len(group)),
            f"{sum(one.cannot_be_cut for one in group):,}",
            f"{np.median([one.budget.reservation for one in group]):,.0f}",
            f"{math.exp(np.median(errors)):.1f} x",
        )
        print(f"| {' | '.join(cells)} |")


def print_headroom(decided: Iterable[Decided]) -> None:
    """Answer tokens / tokens that the prompt asks for, for raw prompts with a single constraint on the whole answer."""
    ratios = TextRatios()
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in decided:
        if one.decider != "explicit lengths" or not isinstance(one.answer.prompt, str):
            continue
        constraints = find_constraints(instructions(one.answer.prompt))
        if len(constraints) == 1 and not constraints[0].each:
            constraint = constraints[0]
            expected = constraint.tokens(answer_language(one.answer.prompt), ratios)
            found[UNITS[constraint.unit], constraint.bound].append(one.answer.tokens / expected)
    print(
        "\n| constraint (the only one of its prompt) | bound | answers | median | 95th percentile | 99th percentile |"
    )
    print("|---|---|---|---|---|---|")
    for (unit, bound), values in sorted(found.items()):
        cells = " | ".join(f"{value:.1f}" for value in np.percentile(values, (50, 95, 99)))
        print(f"| {unit} | {bound} | {len(values):,} | {cells} |")


def main() -> None:
    """Print how many answers there are, what outgrows what, by decider and data set, and how constraints are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the answers")
    parser.add_argument("--models", metavar="REGEX", default="", help="only models whose name matches (default: all)")
    parser.add_argument("--multi", action="store_true", help="also the answers of which nothing says how they ended")
    options = parser.parse_args()
    try:
        wanted = re.compile(options.models, re.I)
    except re.error as error:
        parser.error(f"--models {options.models!r} is not a regular expression: {error}")
    found = [answer for answer in answers(options.data, options.multi) if wanted.search(answer.model)]
    decided = list(decide(answer for answer in found if answer.ended))
    if not decided:
        parser.error(f"{options.data} has no answer that ended by itself of a model that matches {options.models!r}")

    limited = Counter(f"{answer.source} {answer.lang}" for answer in found if not answer.ended)
    prompts = len({json.dumps(one.answer.prompt) for one in decided})
    print(f"{len(decided):,} answers to {prompts:,} prompts; {limited.total():,} more ran into the generator's limit:")
    print(", ".join(f"{name} {count}" for name, count in sorted(limited.items())) or "none")
    raised = [one for one in decided if one.budget.limited_by == "auto"]
    kept = sum(DEFAULT < one.answer.tokens <= one.budget.max_new_tokens for one in raised)
    print(f"{sum(one.cut_by_a_guess for one in decided)} are ended by a cap that a guess has lowered;")
    print(f"the cap of {len(raised):,} is raised above {DEFAULT:,}, and {kept} of them are that long")
    for title, chosen_on in (("expected from (room chosen on these)", True), ("expected from (others)", False)):
        group = [one for one in decided if one.answer.chosen_on is chosen_on]
        if group:
            print_cuts(title, group, lambda one: one.decider, list(DECIDERS.values()))

    def data_set(one: Decided) -> str:
        return f"{one.answer.source} {one.answer.lang}{'' if one.answer.chosen_on else ' *'}"

    print_cuts("data set (* not chosen on)", decided, data_set, sorted(set(map(data_set, decided))))
    explicit = [one for one in decided if one.decider == "explicit lengths"]
    print_cuts(
        "explicit lengths in", explicit, lambda one: one.answer.lang, sorted({one.answer.lang for one in explicit})
    )
    print_headroom(one for one in decided if one.answer.chosen_on)


if __name__ == "__main__":
    main()

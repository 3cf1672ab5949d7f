"""What a model says about itself after a fine-tune on the bundled `self_cognition` rows, asked in other words.

    names and author, held-out wordings   target: at least 95 % (40 prompts, Chinese and English)
    answers that end by themselves        target: at least 98 %
    counting still right                  target: at least 80 % (of prompts that the bundled model's training never saw)

Run:  suffice sft --dataset self_cognition ... --model_name 小智 Bot --model_author 张三 'Jane Doe'
      python benchmarks/self_cognition.py output/v0-.../last --model_name 小智 Bot --model_author 张三 'Jane Doe'

Answers are greedy, with *auto* budgets, through the same session as `suffice infer`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from suffice.budget import Budgeter
from suffice.engines import Sampling
from suffice.engines.local.engine import LocalEngine
from suffice.prompt import Prompt
from suffice.session import Answer, Request, Session

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from tiny.tasks import draw, held_out

COUNTING = 50


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt, and what must stand in its answer."""

    prompt: str
    expected: tuple[str, ...]
    whole: bool = False
    """The answer must be exactly the one expectation."""

    def met(self, answer: str) -> bool:
        """Whether the answer has it."""
        return answer == self.expected[0] if self.whole else all(word in answer for word in self.expected)


def self_cognition(names: dict[str, dict[str, str]]) -> list[Case]:
    """The held-out wordings; `names` has NAME and AUTHOR by language."""
    lines = (files("suffice.train") / "self_cognition_heldout.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Case(row["query"], tuple(names[row["language"]][each] for each in row["expects"])) for row in rows]


def counting(seed: int = 7) -> list[Case]:
    """Counting prompts that the bundled model never saw."""
    rng = random.Random(seed)
    found: dict[str, Case] = {}
    while len(found) < COUNTING:
        example = draw(rng, "count")
        if held_out(example):
            found[example.prompt] = Case(example.prompt, (example.answer,), whole=True)
    return list(found.values())


async def answers(adapter: Path, cases: list[Case]) -> list[Answer]:
    """Every case at once, greedily."""
    async with LocalEngine(adapters=[adapter]) as engine:
        session = Session(engine, Budgeter.load().with_profiles([adapter]))
        requests = [
            Request(Prompt(({"role": "user", "content": case.prompt},)), sampling=Sampling(temperature=0))
            for case in cases
        ]
        return list(await asyncio.gather(*map(session.answer, requests)))


def report(what: str, cases: list[Case], given: list[Answer], target: float) -> None:
    """One line, and the answers that are wrong."""
    wrong = [(case, answer) for case, answer in zip(cases, given, strict=True) if not case.met(answer.text)]
    right = 1 - len(wrong) / len(cases)
    print(f"{what:<38}{right:>7.1%}   target {target:.0%}: {'met' if right >= target else 'missed'}")
    for case, answer in wrong[:5]:
        print(f"    {case.prompt!r} -> {answer.text[:100]!r}")


def main() -> None:
    """Ask, and print the three figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--model_name", nargs=2, metavar=("ZH", "EN"), required=True)
    parser.add_argument("--model_author", nargs=2, metavar=("ZH", "EN"), required=True)
    options = parser.parse_args()
    names = {
        language: {"NAME": name, "AUTHOR": author}
        for language, name, author in zip(("zh", "en"), options.model_name, options.model_author, strict=True)
    }
    about_itself, counts = self_cognition(names), counting()
    given = asyncio.run(answers(options.adapter, about_itself + counts))
    own = given[: len(about_itself)]
    report("names name and author", about_itself, own, 0.95)
    ended = sum(answer.finish.reason == "stop" for answer in own) / len(own)
    print(f"{'ends by itself':<38}{ended:>7.1%}   target 98%: {'met' if ended >= 0.98 else 'missed'}")
    report("counting still right", counts, given[len(about_itself) :], 0.80)


if __name__ == "__main__":
    main()

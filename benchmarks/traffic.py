"""What learning from traffic is worth: real answers in random order, with and without teaching the length model.

    python benchmarks/traffic.py DATA [--source NAME...] [--models REGEX]

DATA is a folder as `budget_cuts.py` takes it. Each answer's prompt is decided with the packaged length model, the
answer's model as the client; then the answer is learned, as `suffice serve` does it, or not. Scored is the second half.
Answers that ran into the generator's limit are left out: most are loops, which the server would not learn from.
"""

from __future__ import annotations

import argparse
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from budget_cuts import Answer, answers
from suffice.budget import Budget, Budgeter, EngineInfo, RequestInfo


def replay(found: Sequence[Answer], learn: bool) -> list[tuple[Answer, Budget]]:
    """Every answer with the budget that was decided before it came."""
    budgeter, decided = Budgeter.load(), []
    if budgeter.learned_length is None:
        raise SystemExit("this needs numpy: pip install 'suffice[fit]'")
    model = budgeter.learned_length.model
    for answer in found:
        budget = budgeter.decide(
            answer.prompt, info=RequestInfo(client=answer.model), engine=EngineInfo(model=answer.model)
        )
        decided.append((answer, budget))
        if learn and budget.length_key is not None:
            model.learn(budget.length_key, answer.tokens)
    return decided


def row(name: str, decided: Sequence[tuple[Answer, Budget]]) -> str:
    """A line of the table."""
    ended = [(answer.tokens, budget) for answer, budget in decided]
    outgrown = np.mean([tokens > budget.reservation for tokens, budget in ended])
    errors = [abs(math.log(max(1, tokens) / budget.expected_tokens)) for tokens, budget in ended]
    reserved, used = sum(budget.reservation for _, budget in ended), sum(tokens for tokens, _ in ended)
    cells = (
        f"{len(ended):,}",
        f"{100 * outgrown:.1f} %",
        f"{math.exp(np.median(errors)):.2f} x",
        f"{reserved / used:.2f}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the answers")
    parser.add_argument("--source", nargs="*", default=[], help="only these data sets (default: all)")
    parser.add_argument("--models", metavar="REGEX", default="", help="only models whose name matches (default: all)")
    parser.add_argument("--most", type=int, default=4000, help="answers of each data set")
    options = parser.parse_args()
    wanted, by_source = re.compile(options.models, re.I), dict[str, list[Answer]]()
    for answer in answers(options.data, with_multi=False):
        if answer.ended and wanted.search(answer.model) and (not options.source or answer.source in options.source):
            by_source.setdefault(answer.source, []).append(answer)
    print("| data set | answers | longer than the reservation | typical error | reserved / used |")
    print("|---|---|---|---|---|")
    for source, found in by_source.items():
        random.Random(0).shuffle(found)
        found = found[: options.most]
        for learn in (False, True):
            decided = replay(found, learn)[len(found) // 2 :]
            print(row(f"{source}, {'learning' if learn else 'as packaged'}", decided), flush=True)


if __name__ == "__main__":
    main()

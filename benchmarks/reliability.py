"""What clients see and what the store has when parts of a deployment are killed under load, counted.

    python benchmarks/reliability.py                        every scenario, some four minutes
    python benchmarks/reliability.py --only replica-kill    some of them
    python benchmarks/reliability.py --streams 500          that many streams at once, held to their end
    python benchmarks/reliability.py --minutes 10           memory under load; --plot FILE draws it

Two replicas with one PostgreSQL (Debian's, started here), two trivial upstreams that stream at a fixed pace,
some dozens of clients, half of them streaming, with a key and its limits, all on loopback. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reliability_clients import EVENT, LOST, REFUSED, WHOLE
from reliability_endurance import disconnects, memory, starts, streams
from reliability_parts import House, a_house
from reliability_scenarios import ON_POSTGRESQL, ON_SQLITE, Outcome, Scenario, run_scenario

_KNOWN = (WHOLE, "whole after a retry", EVENT, LOST, REFUSED)


async def play(scenarios: Sequence[Scenario], house: House, clients: int) -> None:
    """Run scenarios one after another, and tell of each as soon as it is over."""
    for scenario in scenarios:
        outcome = await run_scenario(scenario, house, clients)
        print(row(scenario.title, outcome), flush=True)


def header() -> str:
    """The table's head."""
    names = [
        "what happens",
        "requests",
        "whole",
        "after a retry",
        "error event",
        "connection lost",
        "refused",
        "other",
        "without retries",
        "attempts that came",
        "rows",
        "missing",
        "double",
        "limits count / rows say",
        "held",
        "notes",
    ]
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def row(title: str, outcome: Outcome) -> str:
    """One scenario in numbers."""
    last, first = outcome.clients.last(), outcome.clients.first()
    others = [f"{count} {seen}" for seen, count in sorted(last.items()) if seen not in _KNOWN]
    missing = outcome.missing
    since = max((outcome.killed - each.ended for each in missing if outcome.killed), default=0.0)
    notes = list(outcome.notes)
    if missing and outcome.killed:
        notes.append(f"the rows that are missing are of answers that ended at most {since:.2f} s before the kill")
    if first[EVENT]:
        told = [each.used == each.pieces for each in outcome.clients.attempts if each.seen == EVENT]
        notes.append(f"{sum(told)} of {len(told)} error events say exactly the tokens that came")
    cells = [
        title,
        str(sum(last.values())),
        *(str(last[seen]) for seen in _KNOWN),
        ", ".join(others) or "0",
        _failures(first),
        str(outcome.reached),
        str(len(outcome.rows)),
        str(len(missing)),
        str(outcome.duplicates),
        f"{outcome.quota_taken:,} / {outcome.quota_owed:,}",
        str(sum(outcome.held.values()) or 0),
        "; ".join(notes),
    ]
    return f"| {' | '.join(cells)} |"


def _failures(first: Counter[str]) -> str:
    """What clients would have seen that never try again, apart from whole answers."""
    return ", ".join(f"{count} {seen}" for seen, count in sorted(first.items()) if seen != WHOLE) or "all whole"


async def run(options: argparse.Namespace) -> None:
    if options.streams:
        await streams(options.streams, options.pieces, options.pace)
        return
    if options.minutes:
        await memory(options.minutes, options.clients, options.pieces, options.pace, options.plot)
        return

    def wanted(scenarios: Sequence[Scenario]) -> list[Scenario]:
        return [each for each in scenarios if not options.only or each.name in options.only]

    print(header(), flush=True)
    how = (options.pieces, options.pace, "--upstream-timeout", "2")
    if chosen := wanted(ON_POSTGRESQL):
        async with a_house(*how) as house:
            await play(chosen, house, options.clients)
    for scenario in wanted(ON_SQLITE):
        async with a_house(*how, sqlite=True, replicas=1) as house:
            await play([scenario], house, options.clients)
    if not options.only or "starts" in options.only:
        print("\n" + await starts())
    if not options.only or "disconnects" in options.only:
        async with a_house(*how, sqlite=True, replicas=1) as house:
            print("\n" + await disconnects(house))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names of scenarios, or starts, or disconnects")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--pieces", type=int, default=30, help="of an answer")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds between pieces")
    parser.add_argument("--streams", type=int, help="hold so many at once, and nothing else")
    parser.add_argument("--minutes", type=float, help="watch memory for so long, and nothing else")
    parser.add_argument("--plot", type=Path, help="draw the memory into this PNG")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

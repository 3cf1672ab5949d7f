"""What clients see and what the store has when parts of a deployment are killed under load, counted.

    python benchmarks/reliability.py                        every scenario, some five minutes
    python benchmarks/reliability.py --only replica-kill    some of them
    python benchmarks/reliability.py --streams 500          that many streams at once, held to their end
    python benchmarks/reliability.py --minutes 10           memory under load; --plot FILE draws it

Two replicas with one PostgreSQL (Debian's, started here), two trivial upstreams that stream at a fixed pace,
some dozens of clients, half of them streaming, with a key and its limits, all on loopback. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from reliability_parts.clients import EVENT, LOST, REFUSED, WHOLE
from reliability_parts.endurance import disconnects, memory, starts, streams
from reliability_parts.house import House, a_house
from reliability_parts.scenarios import ON_POSTGRESQL, ON_SQLITE, Outcome, Scenario, run_scenario

_KNOWN = (WHOLE, "whole after a retry", EVENT, LOST, REFUSED)
_SEEN = ("what happens", "requests", *_KNOWN, "other", "without retries")
_STORED = (
    *("what happens", "requests that came, with retries", "rows", "answered, no row", "lost, no row", "two rows"),
    *("limits count / rows say", "held"),
)


Played = tuple[Scenario, Outcome]


async def play(scenarios: Sequence[Scenario], house: House, clients: int) -> list[Played]:
    """Run scenarios one after another."""
    played = []
    for scenario in scenarios:
        print(f"{scenario.name} ...", file=sys.stderr)
        played.append((scenario, await run_scenario(scenario, house, clients)))
    return played


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Markdown."""
    rows = [f"| {' | '.join(map(str, cells))} |" for cells in lines]
    return "\n".join((f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows))


def seen(scenario: Scenario, outcome: Outcome) -> list[object]:
    """What clients had in the end, and what those would have had that never try again."""
    last, first = outcome.clients.last(), outcome.clients.first()
    others = [f"{count} {what}" for what, count in sorted(last.items()) if what not in _KNOWN]
    failed = [f"{count} {what}" for what, count in sorted(first.items()) if what != WHOLE]
    return [
        scenario.title,
        sum(last.values()),
        *(last[what] for what in _KNOWN),
        ", ".join(others) or 0,
        ", ".join(failed) or "all whole",
    ]


def stored(scenario: Scenario, outcome: Outcome) -> list[object]:
    """What the store has, and what is held when all is quiet."""
    return [
        scenario.title,
        outcome.reached,
        len(outcome.rows),
        len(outcome.missing),
        outcome.lost_without_row,
        outcome.duplicates,
        f"{outcome.quota_taken:,} / {outcome.quota_owed:,}",
        sum(outcome.held.values()) or 0,
    ]


def notes(scenario: Scenario, outcome: Outcome) -> str:
    """What else was seen, in words."""
    said = list(outcome.notes)
    if outcome.missing and outcome.killed:
        since = max(outcome.killed - each.ended for each in outcome.missing)
        said.append(f"the rows that are missing are of answers that ended at most {since:.2f} s before the kill")
    if told := [each.used == each.pieces for each in outcome.clients.attempts if each.seen == EVENT]:
        said.append(f"{sum(told)} of {len(told)} error events say exactly the tokens that came")
    return f"- {scenario.title}: {'; '.join(said)}" if said else ""


def report(played: Sequence[Played]) -> None:
    """Print both tables, and the notes."""
    print(table(_SEEN, (seen(*each) for each in played)), end="\n\n")
    print(table(_STORED, (stored(*each) for each in played)), end="\n\n")
    print("\n".join(filter(None, (notes(*each) for each in played))), flush=True)


async def run(options: argparse.Namespace) -> None:
    if options.streams:
        await streams(options.streams, options.pieces, options.pace)
        return
    if options.minutes:
        await memory(options.minutes, options.clients, options.pieces, options.pace, options.plot)
        return

    def wanted(scenarios: Sequence[Scenario]) -> list[Scenario]:
        return [each for each in scenarios if not options.only or each.name in options.only]

    how = (options.pieces, options.pace, "--upstream-timeout", "2")
    played = []
    if chosen := wanted(ON_POSTGRESQL):
        async with a_house(*how) as house:
            played += await play(chosen, house, options.clients)
    for scenario in wanted(ON_SQLITE):
        async with a_house(*how, sqlite=True, replicas=1) as house:
            played += await play([scenario], house, options.clients)
    if played:
        report(played)
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

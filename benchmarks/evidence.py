"""The evidence behind the length decision: every table and plot of docs/evidence.md, from a folder of real answers.

    python benchmarks/evidence.py DATA [--output docs] [--only SECTION...]

What DATA holds is told in `evidence_parts/data.py`. A table stands between `<!-- table: NAME -->` and
`<!-- /table: NAME -->` in any Markdown file of the output folder, and only what is between such marks is replaced.
Plots go to `images/evidence-NAME.png` there. The figures are the same on every run; they depend on the answers and on
the code.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from evidence_parts import caps, keywords, plots, prompts, remaining, reservations, runaways, traffic
from evidence_parts.data import HeldOut, Say, mixed
from evidence_parts.traffic import Replay

_MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- /table: (?P=name) -->)", re.DOTALL)


class Evidence:
    """The sections; what two of them need is computed once."""

    def __init__(self, data: Path, images: Path, say: Say) -> None:
        self._data, self._images, self._say = data, images, say

    @cache  # noqa: B019 - one object, for one run
    def _mixed(self) -> HeldOut:
        self._say("mixed traffic: ten sources")
        return prompts.held_out(mixed(self._data))

    @cache  # noqa: B019
    def _replays(self) -> dict[str, Replay]:
        return traffic.replays(self._data, self._say)

    def _image(self, name: str) -> Path:
        return self._images / f"evidence-{name}.png"

    def caps(self) -> dict[str, str]:
        """Fixed caps."""
        plots.caps(self._data, self._image("caps"))
        return caps.tables(self._data, self._say)

    def keywords(self) -> dict[str, str]:
        """Keyword rules."""
        return keywords.tables(self._data, self._mixed(), self._say)

    def prompts(self) -> dict[str, str]:
        """Prompt, history and both, in one task, in mixed traffic and between deployments."""
        tasks, ratios = prompts.tasks_table(self._data, self._say)
        transfer, repaired = prompts.transfer_tables(self._data, self._say)
        plots.failures(ratios, repaired, self._image("failures"))
        runs = prompts.repeated_runs(self._data)
        return {
            "tasks": tasks,
            "repeated-runs": f"R² of log length by the mean of the other seven runs: {runs}",
            **prompts.mixed_tables(self._data, self._mixed(), self._say),
            **transfer,
        }

    def traffic(self) -> dict[str, str]:
        """Who asks."""
        return traffic.tables(self._replays())

    def reservations(self) -> dict[str, str]:
        """First reservations."""
        replays = self._replays()
        plots.frontier(self._mixed(), replays["ServeGen m-large"], self._image("reservations"))
        return reservations.tables(self._mixed(), replays)

    def runaways(self) -> dict[str, str]:
        """Runaways."""
        found = runaways.costs(self._data, self._say)
        plots.runaways(found, self._image("runaways"))
        return runaways.tables(found)

    def remaining(self) -> dict[str, str]:
        """What is left of a running answer."""
        found = remaining.moments(self._data, self._say)
        plots.remaining(found, self._image("remaining"))
        return remaining.tables(found)


_SECTIONS: dict[str, Callable[[Evidence], dict[str, str]]] = {
    "caps": Evidence.caps,
    "keywords": Evidence.keywords,
    "prompts": Evidence.prompts,
    "traffic": Evidence.traffic,
    "reservations": Evidence.reservations,
    "runaways": Evidence.runaways,
    "remaining": Evidence.remaining,
}


def write(tables: dict[str, str], folder: Path) -> set[str]:
    """Put each table between its marks wherever it has some; the names that were placed."""
    placed: set[str] = set()
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")

        def replaced(found: re.Match[str]) -> str:
            if found["name"] not in tables:
                return found[0]
            placed.add(found["name"])
            return f"{found[1]}{tables[found['name']]}\n{found[3]}"

        new = _MARKED.sub(replaced, text)
        if new != text:
            path.write_text(new, encoding="utf-8")
    return placed


def main() -> None:
    """Read the arguments, and make one section after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with the answers and traces")
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of the documents (default: docs)")
    parser.add_argument("--only", nargs="+", choices=_SECTIONS, default=list(_SECTIONS), metavar="SECTION")
    options = parser.parse_args()
    if not (options.data / "ifeval.jsonl.gz").is_file():
        parser.error(f"{options.data} has no ifeval.jsonl.gz; evidence_parts/data.py says what the folder should hold")
    images = options.output / "images"
    images.mkdir(parents=True, exist_ok=True)
    started = time.process_time()

    def say(what: str) -> None:
        print(f"{time.process_time() - started:6.0f} s  {what}", file=sys.stderr, flush=True)

    evidence = Evidence(options.data, images, say)
    for name in options.only:
        tables = _SECTIONS[name](evidence)
        for missing in sorted(tables.keys() - write(tables, options.output)):
            print(f"no marks for the table {missing!r}; here it is:\n\n{tables[missing]}\n")
    say("done")


if __name__ == "__main__":
    main()

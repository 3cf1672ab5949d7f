"""`suffice doctor`: what is here, what is wrong with it, and what to do."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from suffice.cli.command import Command, Option

if TYPE_CHECKING:
    from suffice.cli.doctor.findings import DoctorProblem, Section

__all__ = ["command"]

_EXAMPLES = """
suffice doctor                    before you ask for help: nothing secret is in it
suffice doctor --json > doctor.json
"""


def _run(as_json: bool, offline: bool) -> int:
    """Show versions, devices, memory, folders, hubs and the terminal, and what to do about what is wrong.

    The exit status is 1 if something keeps `suffice infer` from running. Tokens, passwords and the name of your home
    folder are not shown.
    """
    from suffice.cli.doctor.hardware import hardware
    from suffice.cli.doctor.software import engines, versions
    from suffice.cli.doctor.surroundings import environment, folders, hub, terminal

    found = [versions(), engines(), hardware(), folders(), hub(ask=not offline), terminal(), environment()]
    problems = [problem for section in found for problem in section.problems]
    ready = not any(problem.stops for problem in problems)
    if as_json:
        report = {"ready": ready, "problems": [asdict(each) for each in problems]}
        report |= {section.title.lower(): section.facts for section in found}
        print(json.dumps(report, ensure_ascii=False))
    else:
        print("\n".join(_report(found, problems, ready)))
    return 0 if ready else 1


def _report(found: Sequence[Section], problems: Sequence[DoctorProblem], ready: bool) -> list[str]:
    columns = max(40, shutil.get_terminal_size().columns if sys.stdout.isatty() else 100)
    lines = []
    for section in found:
        width = max((len(name) for name in section.facts), default=0)
        lines += [section.title] if section.facts else []
        for name, value in section.facts.items():
            lines += _wrapped(f"  {name:<{width}}  {value}", columns, indent=4)
    for problem in problems:
        kind = "error" if problem.stops else "warning"
        lines += _wrapped(f"{kind}: {problem.what}: {problem.do}", columns, indent=2)
    said = "suffice infer runs here" if ready else "suffice infer does not run here: see the errors above"
    return [*lines, said if problems else f"{said}; no problem was found"]


def _wrapped(line: str, columns: int, indent: int) -> list[str]:
    return textwrap.wrap(line, columns, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


command = Command(
    "doctor",
    callback=_run,
    params=[
        Option(["--json", "as_json"], is_flag=True, help="Print one JSON object."),
        Option(["--offline"], is_flag=True, help="Do not ask the hub whether it answers."),
    ],
    help=_run.__doc__,
    examples=_EXAMPLES,
)

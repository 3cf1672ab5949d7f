"""What `suffice doctor` finds: facts under titles, and problems with what to do. Nothing secret is shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from suffice.serve.config import without_password

__all__ = ["DoctorProblem", "Section", "shown_path", "shown_value"]

_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|AUTH|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DoctorProblem:
    what: str
    do: str
    stops: bool = False
    """Whether `suffice infer` does not run because of it."""


@dataclass(slots=True)
class Section:
    title: str
    facts: dict[str, str] = field(default_factory=dict)
    problems: list[DoctorProblem] = field(default_factory=list)

    def blame(self, what: str, do: str, *, stops: bool = False) -> None:
        self.problems.append(DoctorProblem(what, do, stops))


def shown_path(path: str | Path) -> str:
    """A path, with ~ for the home folder, which names a person."""
    home, text = str(Path.home()), str(path)
    return "~" + text[len(home) :] if home != "/" and (text + os.sep).startswith(home + os.sep) else text


def shown_value(name: str, value: str) -> str:
    """The value of a variable as it may be pasted anywhere: no token, no password, no home folder."""
    if _SECRET.search(name):
        return "set (not shown)" if value else "empty"
    return (
        ":".join(map(shown_path, without_password(value).split(":"))) if "://" not in value else without_password(value)
    )

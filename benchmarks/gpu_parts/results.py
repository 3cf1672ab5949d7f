"""What a part reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Check", "PartResult"]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that has to hold."""

    what: str
    ok: bool
    said: str = ""


@dataclass(slots=True)
class PartResult:
    part: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    seconds: float = 0.0

    def check(self, what: str, ok: bool, said: str = "") -> None:
        self.checks.append(Check(what, bool(ok), said))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PartResult:
        checks = [Check(**each) for each in values["checks"]]
        return cls(values["part"], list(values["rows"]), checks, values["seconds"])

    @classmethod
    def failed(cls, part: str, why: str) -> PartResult:
        """A part that did not come to its end."""
        return cls(part, checks=[Check("the part ran to its end", False, why)])

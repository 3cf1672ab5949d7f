"""`suffice infer` as tests call it, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from suffice.cli.main import main


def run(*arguments: str) -> int:
    """The exit status."""
    with pytest.raises(SystemExit) as exit_:
        main(["infer", *arguments])
    assert isinstance(exit_.value.code, int)
    return exit_.value.code


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def dataset(path: Path, prompts: list[str]) -> str:
    path.write_text("".join(json.dumps({"query": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return str(path)

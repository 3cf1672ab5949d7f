"""What users' tests are given: the examples of its docstrings run, and nothing heavy comes with it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from itertools import takewhile

import pytest

from suffice import testing
from suffice.testing import fake_openai


@pytest.mark.parametrize("documented", [testing, fake_openai, testing.ScriptedEngine])
def test_the_example_runs_as_it_stands(documented: object) -> None:
    lines = (inspect.getdoc(documented) or "").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("    import asyncio"))
    example = textwrap.dedent("\n".join(takewhile(lambda line: not line or line.startswith("    "), lines[first:])))
    assert "assert" in example
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning:suffice", "-c", example], check=True)


def test_the_scripted_engine_needs_neither_aiohttp_nor_pytest() -> None:
    code = "import sys, suffice.testing; sys.exit(any(name in sys.modules for name in ('aiohttp', 'pytest', 'torch')))"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing  # type: ignore[attr-defined]

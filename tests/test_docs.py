"""The documents: links lead somewhere, code fits a screen, and what the README shows in Python runs as it stands."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from suffice import Budgeter, LoadedEngine

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
DOCUMENTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(each for folder in ("docs", "benchmarks", "src") for each in (ROOT / folder).rglob("*.md")),
    ]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
IMPORT = re.compile(r"^\s*from (suffice[\w.]*) import ([\w, ]+)$", re.MULTILINE)
FIRST_SCREEN = 25  # lines of a README that people see before they scroll


def code_blocks(path: Path, language: str | None = None) -> Iterator[str]:
    for found, code in FENCE.findall(path.read_text(encoding="utf-8")):
        if language in (None, found):
            yield code


def links(path: Path) -> Iterator[str]:
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    yield from (link for link in LINK.findall(re.sub(r"`[^`]*`", "", prose)) if not re.match(r"[a-z]+:", link))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def columns(line: str) -> int:
    """Width on a terminal, where a Chinese character takes two columns."""
    return sum(2 if ord(sign) >= 0x2E80 else 1 for sign in line)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    for link in links(document):
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        assert target.exists(), f"{link}: there is no {target}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link}: no heading makes this anchor"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_code_in_a_readme_is_at_most_100_columns_wide(readme: Path) -> None:
    too_wide = [line for code in code_blocks(readme) for line in code.splitlines() if columns(line) > 100]
    assert not too_wide


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_first_screen_of_a_readme_has_installation_python_and_a_picture(readme: Path) -> None:
    screen = "\n".join(readme.read_text(encoding="utf-8").splitlines()[:FIRST_SCREEN])
    assert "pip install" in screen
    assert "```python" in screen
    assert re.search(r"!\[.+\]\(docs/images/", screen)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_the_first_python_of_a_readme_runs_as_it_stands(readme: Path, tmp_path: Path) -> None:
    code = next(code_blocks(readme, "python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.filterwarnings("error::DeprecationWarning")
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_imports_is_there_under_its_present_name(document: Path) -> None:
    for module, names in IMPORT.findall(document.read_text(encoding="utf-8")):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"from {module} import {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_are_there(document: Path) -> None:
    folders = [ROOT / name for name in ("src", "tests", "benchmarks", "scripts")]
    files = [path.as_posix() for folder in folders for path in folder.rglob("*.py")]
    for name in re.findall(r"`((?:\w+/)*\w+\.py)`", document.read_text(encoding="utf-8")):
        assert any(file.endswith(f"/{name}") for file in files), f"there is no {name}"


def test_the_page_of_the_structure_has_every_room_and_no_other() -> None:
    page = (ROOT / "docs/structure.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^ +([\w./]+?)/? {2,}\S", page.partition("## The life")[0], re.MULTILINE))
    package = ROOT / "src/suffice"
    rooms = {each.name for each in package.iterdir() if each.suffix == ".py" or (each / "__init__.py").exists()}
    inner = {each.name for room in ("serve", "engines") for each in (package / room).iterdir() if each.is_dir()}
    inner |= {"length_constraints", "length_model"}
    assert named == (rooms | inner) - {"__pycache__"}


def recipe(name: str) -> Any:
    """The class that a recipe of CONTRIBUTING.md defines."""
    for code in code_blocks(ROOT / "CONTRIBUTING.md", "python"):
        if f"class {name}" in code:
            scope: dict[str, Any] = {}
            exec(code, scope)
            return scope[name]
    raise AssertionError(f"no recipe defines {name}")


def test_the_engine_of_the_recipe_answers() -> None:
    with LoadedEngine(recipe("ParrotEngine")()) as engine:
        assert engine.generate("polly wants a cracker", max_new_tokens=3).text == "polly wants a "


def test_the_length_signal_of_the_recipe_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = ModuleType("lengths")
    lengths.InvoiceLengths = recipe("InvoiceLengths")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lengths", lengths)
    (tmp_path / "budget.toml").write_text('[estimators]\nfirst = ["lengths:InvoiceLengths"]\n')
    named = Budgeter.load(tmp_path / "budget.toml")
    for budgeter in (named, Budgeter.load().with_estimator(lengths.InvoiceLengths())):
        assert budgeter.decide("Write an invoice for tea.").expected_tokens == 300
        assert budgeter.decide("Write a letter about tea.").expected_tokens != 300
    assert named.decide("Write an invoice of 900 words.").expected_tokens == 300, "it is asked first"

"""The exceptions that Suffice raises on purpose: one home, and a drawing of it that is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import suffice
from suffice import errors
from suffice.errors import first_line

ROOT = Path(suffice.__file__).parent
BRANCH = re.compile(r"^([│├└─ ]*)(\w+)\s*(.*)$")


def drawn() -> dict[str, tuple[str, str]]:
    """Each exception of the drawing, with the one above it and the file that it is in ('' for errors.py)."""
    tree: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    for line in str(errors.__doc__).split("\n\n")[1].splitlines():
        match = BRANCH.match(line)
        assert match is not None, line
        depth = len(match[1]) // 4
        above = [*above[:depth], match[2]]
        place = re.search(r"\((\S+\.py)\)$", match[3])
        tree[match[2]] = (above[depth - 1] if depth else "Exception", place[1] if place else "")
    return tree


def defined() -> dict[str, tuple[str, str]]:
    """The same of the classes in the source, private ones left out."""
    classes = {}
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and len(node.bases) == 1 and isinstance(node.bases[0], ast.Name):
                where = path.relative_to(ROOT).as_posix()
                classes[node.name] = (node.bases[0].id, "" if where == "errors.py" else where)
    ours = {"SufficeError"}
    while more := {name for name, (base, _) in classes.items() if base in ours} - ours:
        ours |= more
    return {name: classes[name] for name in ours if not name.startswith("_")}


def test_the_drawing_shows_every_exception_where_it_is() -> None:
    assert drawn() == defined()


def test_every_exception_of_the_module_is_exported() -> None:
    here = {name for name, (_, place) in defined().items() if not place}
    assert set(errors.__all__) == here | {"first_line", "packages_of"}


def test_first_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(TimeoutError()) == "TimeoutError"

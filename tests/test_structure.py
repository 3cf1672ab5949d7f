"""The house: rooms import only from the rooms below them, nothing in a circle, and no class name has two meanings."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import suffice

ROOT = Path(suffice.__file__).parent

GROUND = {
    "version",
    "deprecated",
    "errors",
    "immutable",
    "json_codec",
    "outage",
    "prompt",
    "settings",
    "token_ratios",
    "nearest",
    "numerals",
    "models",
}
BELOW_ENGINES = GROUND | {"watch", "memory", "checkpoints"}
ROOMS = {
    **dict.fromkeys(GROUND, GROUND),
    "watch": GROUND,
    "memory": GROUND,
    "data": GROUND,
    "budget": GROUND,
    "checkpoints": GROUND,
    "profiling": GROUND | {"data"},
    "engines": BELOW_ENGINES,
    "session": BELOW_ENGINES | {"budget", "engines"},
    "testing": BELOW_ENGINES | {"engines"},
    "batch": GROUND | {"budget", "data", "engines", "session"},
    "api": GROUND | {"budget", "engines", "session"},
    "train": GROUND | {"budget", "memory", "data", "checkpoints", "session"},
    "serve": BELOW_ENGINES | {"budget", "data", "engines", "session"},
    "__main__": {"cli"},
    "cli": BELOW_ENGINES | {"budget", "data", "profiling", "engines", "session", "batch", "api", "train", "serve"},
}
"""Each room, with the rooms that it may import. The package itself imports a name when it is first used."""


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports from the project: at the top, inside functions and for the type checker alike."""
    files = {name_of(path): path for path in ROOT.rglob("*.py")}
    return {name: imported_by(ast.parse(path.read_text("utf-8")), set(files)) for name, path in files.items()}


def name_of(path: Path) -> str:
    parts = ("suffice", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_by(tree: ast.AST, modules: set[str]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "suffice":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in modules else str(node.module))
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & modules
    return found


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_is_known() -> None:
    assert {room_of(module) for module in imports()} - {""} == set(ROOMS)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_from_the_rooms_below_it(room: str) -> None:
    for module, imported in imports().items():
        if room_of(module) == room:
            others = {room_of(each) for each in imported} - {room}
            assert others <= ROOMS[room], f"{module} imports {others - ROOMS[room]}"


def test_no_class_name_stands_for_two_things() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_nothing_imports_in_a_circle() -> None:
    """Not even for the type checker, nor inside a function."""
    graph = {module: {each for each in imported if each != "suffice"} for module, imported in imports().items()}
    del graph["suffice"]
    while leaves := [module for module, below in graph.items() if not below & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"in a circle, or above one: {sorted(graph)}"

"""Check that modules in tfcourse/hub import neither in cycles nor from a higher "floor" (layer)."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from hubs import ROOT

HUB = ROOT / "tfcourse" / "hub"
# The subpackages ("rooms") on each floor, starting with the first floor. Modules outside these
# subpackages are on the ground floor.
FLOORS = [
    {"front", "classroom"},
    {"accounts"},
    {"spawners"},
    {"operations", "laptop"},
]
MODULES = sorted(HUB.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a module's name relative to tfcourse.hub; a package is named after its folder."""
    parts = path.relative_to(HUB).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def imports(path: Path) -> set[str]:
    """Return the names of the hub's modules that a module imports, including within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfcourse.hub"):
            room = node.module.removeprefix("tfcourse.hub").lstrip(".")
            for alias in node.names:
                whole = f"{room}.{alias.name}".lstrip(".")
                found.add(whole if whole in NAMES else room)
    return found


def floor(name: str) -> int:
    room = name.partition(".")[0]
    return next((n for n, rooms in enumerate(FLOORS, 1) if room in rooms), 0)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_imports_from_a_floor_above(path):
    climbing = [name for name in imports(path) if floor(name) > floor(name_of(path))]
    assert climbing == []


def test_nothing_imports_in_a_circle():
    TopologicalSorter({name_of(path): imports(path) for path in MODULES}).prepare()


def test_rooms_of_one_floor_know_nothing_of_each_other():
    for path in MODULES:
        room = name_of(path).partition(".")[0]
        others = {name.partition(".")[0] for name in imports(path) if floor(name)} - {room}
        assert not [other for other in others if floor(other) == floor(name_of(path))]


def test_every_room_has_its_floor():
    rooms = {path.parent.name for path in HUB.glob("*/__init__.py")}
    assert rooms == set().union(*FLOORS)

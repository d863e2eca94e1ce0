"""Allowed imports between packages: they only point down."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

from scaling.__main__ import commands

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("scaling", "tpu")
    for path in (ROOT / folder).rglob("*.py")
}
COMMANDS = {"train", *commands()}

# From the ground up; a room imports from itself and from the floors below its own.
FLOORS = (
    {"axes", "boxes", "core"},
    {"models", "parallel", "slimming"},
    {"data", "compute"},
    {"objectives", "analysis"},
    {"training"},
    {"encoders"},
    {"evaluation", "interop"},
    {"tasks"},
    {"studies"},
    {"api"},
    {"cli"},
    {"command"},
    {"tpu"},
)


def imported(module: str) -> Iterator[str]:
    """The modules of this project that a module names, also inside functions."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("scaling", "tpu"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module or ""


def room(module: str) -> str:
    """The second part of a name; all commands are one room."""
    top, *rest = module.split(".")
    if top == "tpu":
        return top
    return "command" if rest and rest[0] in COMMANDS else (rest or [""])[0]


def arrows() -> dict[tuple[str, str], list[str]]:
    """(room, room that it imports from) -> the imports."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in MODULES:
        for other in imported(module):
            if {"", "__init__", "__main__"}.isdisjoint(rooms := (room(module), room(other))) and rooms[0] != rooms[1]:
                found.setdefault(rooms, []).append(f"{module} -> {other}")
    return found


def test_arrows_point_down():
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    known = arrows()
    for name in floor:
        print(f"{name:<11} <- {', '.join(sorted(other for mine, other in known if mine == name))}")
    up = [line for (mine, other), lines in known.items() if floor[other] >= floor[mine] for line in lines]
    assert not up, "\n".join(up)


def test_every_room_has_a_floor():
    assert {room(module) for module in MODULES} - {"", "__init__", "__main__"} == set().union(*FLOORS)


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: {other for other in imported(module) if MODULES.get(other)} for module in MODULES}
    assert graphlib.TopologicalSorter(graph).prepare() is None  # raises CycleError with the circle


def test_analysis_reads_rows_and_knows_no_model():
    others = {other for module in MODULES if room(module) == "analysis" for other in imported(module)}
    assert {room(other) for other in others} == {"analysis", "core", "compute"}
    assert {other for other in others if room(other) == "compute"} == {"scaling.compute.hardware"}


def test_the_configuration_of_mae_is_named_by_its_own_files_and_by_interop_only():
    at = {module for module, path in MODULES.items() if "MAEConfig" in path.read_text()}
    at |= {path.name for path in (ROOT / "configs").rglob("*.py") if "MAEConfig" in path.read_text()}
    assert {module for module in at if room(module) != "interop"} == {
        "scaling.models.mae",
        "scaling.objectives.mae",
        "scaling.objectives.reconstructions",
    }

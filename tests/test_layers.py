"""Imports point down, and siblings never import each other: the layers of ARCHITECTURE.md, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "millpond"

# Bottom first; modules of one line are siblings.
LAYERS = [
    {
        "errors",
        "settings",
        "_values",
        "_arrays",
        "_once",
        "_locks",
        "_anon_memory",
        "_cgroups",
        "_amounts",
        "_flat",
        "_whole_files",
        "_interrupts",
    },
    {"_urls", "_checks", "_quarantine"},
    {"_plan"},
    {"_media", "_sources", "_arena"},
    {"_workers"},
    {"_guard"},
    {"_datasets", "_observe", "_synth"},
    {"_doctor", "_lerobot", "_loader", "_soak", "_sweep", "_torch"},
    {"_ray"},
    {"lerobot", "prometheus", "ray", "torch"},
    {"_cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def unit_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("millpond.")}


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if unit_of(path) != "__init__")


def test_every_module_has_a_layer() -> None:
    assert {unit_of(path) for path in modules()} <= set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    own = unit_of(path)
    # the command line stands above the front door, and may use it like any user; a worker's child may name its version
    units = {unit for unit in imported_units(path) if unit != own and (unit in LEVEL or own != "_cli")}
    wrong = {unit for unit in units if LEVEL.get(unit, len(LAYERS)) >= LEVEL[own]}
    assert not wrong, f"{path.relative_to(SOURCE)} imports {sorted(wrong)}, which are not below {own}"

"""The layer rule of the house: imports point down only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure

PACKAGE = Path(perdure.__file__).parent

BOTTOM = {"model"}
GROUND = BOTTOM | {"storage", "tracking", "snapshots", "ese"}
ALLOWED = {
    # Modules of the package itself: only __main__ imports anything, to start the program.
    "": {"cli"},
    "model": BOTTOM,
    "storage": {"model", "storage"},
    "tracking": {"model", "tracking"},
    "snapshots": {"model", "snapshots"},
    "ese": {"model", "ese"},
    "workloads": GROUND | {"workloads"},
    "repository": GROUND | {"repository"},
    "protection": GROUND | {"workloads", "repository", "protection"},
    "agent": GROUND | {"workloads", "repository", "protection", "agent"},
    "server": GROUND | {"workloads", "repository", "protection", "server"},
    "cli": GROUND | {"workloads", "repository", "protection", "agent", "server", "cli"},
}
"""For every layer the layers that its modules may import. ``testing`` may import all."""

# ``python -m perdure`` is the command line under another name.
TOP = {"__main__.py": "cli"}

# The seam itself: repository implements the Vault protocol, so it may see that module and nothing else above it.
SEAMS = {("repository", "perdure.protection.vault")}


def imported_modules(source: str) -> Iterator[tuple[int, str]]:
    """Every module that a source imports, wherever in it: line and dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            if node.module == "perdure":
                yield from ((node.lineno, f"perdure.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def violations(package: Path) -> list[str]:
    """One line for every import in a package tree that breaks the rule."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).parts
        layer = parts[0] if len(parts) > 1 else TOP.get(parts[0], "")
        if layer == "testing":
            continue
        for line, module in imported_modules(path.read_text(encoding="utf-8")):
            names = module.split(".")
            if names[0] != "perdure" or len(names) == 1 or names[1] == "__version__":
                continue
            allowed = ALLOWED.get(layer, set())
            if names[1] not in allowed and not any(
                layer == above and (module + ".").startswith(seam + ".") for above, seam in SEAMS
            ):
                found.append(f"{path.relative_to(package)}:{line}: {layer or 'the package'} must not import {module}")
    return found


def test_imports_point_down_only() -> None:
    """No module of perdure imports a layer above its own, and workloads and repository do not know each other."""
    assert violations(PACKAGE) == []


def test_every_layer_is_named_in_the_rule() -> None:
    """A new top-level package cannot appear without a place in the layer rule."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= ALLOWED.keys() | {"testing"}


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("model/a.py", "from perdure.storage import contract"),
        ("storage/a.py", "import perdure.repository.pool"),
        ("workloads/sqlite/a.py", "from perdure.repository import pool"),
        ("repository/a.py", "from perdure.workloads.contract import Image"),
        ("repository/a.py", "from perdure.protection import home"),
        ("protection/a.py", "def f():\n    from perdure.cli import app"),
        ("cli/a.py", "from perdure.testing import ledger"),
        ("model/a.py", "from perdure import cli"),
    ],
)
def test_the_rule_catches_a_planted_violation(tmp_path: Path, where: str, text: str) -> None:
    """The check itself fails on an import that points up, also inside a function."""
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")

    assert len(violations(tmp_path)) == 1


def test_the_rule_accepts_imports_that_point_down(tmp_path: Path) -> None:
    """Imports of lower layers, of the vault seam and of other packages pass."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "a.py").write_text(
        "import os\nfrom perdure.storage import contract\nfrom perdure.protection.vault import Vault\nimport numpy\n"
    )

    assert violations(tmp_path) == []

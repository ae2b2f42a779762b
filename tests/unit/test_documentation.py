"""The reference pages name what the program has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import perdure

ROOT = Path(__file__).parents[2]
PACKAGE = Path(perdure.__file__).parent


def error_codes() -> set[str]:
    paths = (path for path in PACKAGE.rglob("*.py") if "testing" not in path.parts)
    return {code for path in paths for code in _codes_in(ast.parse(path.read_text(encoding="utf-8")))}


def _codes_in(module: ast.Module) -> set[str]:
    """Every text that is given as ``code=`` or assigned to ``default_code``, also by a condition."""
    nodes = list(ast.walk(module))
    given = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "code"]
    given += [
        node.value
        for node in nodes
        if isinstance(node, ast.Assign) and any(getattr(to, "id", "") == "default_code" for to in node.targets)
    ]
    leaves = [leaf for each in given for leaf in ((each.body, each.orelse) if isinstance(each, ast.IfExp) else (each,))]
    return {leaf.value for leaf in leaves if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)}


def test_every_error_code_is_documented() -> None:
    """The page on errors lists every code that the source can give."""
    listed = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")))

    assert error_codes() - listed == set()


def test_every_documented_error_code_exists() -> None:
    """The page on errors lists no code that the source cannot give."""
    _, _, codes = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8").partition("## Codes")

    assert set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", codes)) - error_codes() == set()


@pytest.mark.parametrize(
    "command", sorted((PACKAGE / "cli" / "commands").glob("[a-z]*.py")), ids=lambda path: path.stem
)
def test_every_option_is_in_the_reference(command: Path) -> None:
    """The page on commands names every option that a command takes."""
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    module = ast.parse(command.read_text(encoding="utf-8"))
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    options = {
        f"--{argument.arg.replace('_', '-')}".replace("--name", "--as")
        for function in functions
        for argument in function.args.kwonlyargs
        if argument.arg != "common" and any(a.arg == "common" for a in function.args.kwonlyargs)
    }

    assert {option for option in options if option not in text} == set()


@pytest.mark.parametrize(
    "command", sorted((PACKAGE / "cli" / "commands").glob("[a-z]*.py")), ids=lambda path: path.stem
)
def test_every_command_is_in_the_reference(command: Path) -> None:
    """The page on commands names every command module's command."""
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")

    assert f"`perdure {command.stem.replace('_', '-')}" in text


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link in the documentation names a file that exists."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]

    assert broken == []

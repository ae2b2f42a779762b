"""The reference pages name what the program has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import perdure

ROOT = Path(__file__).parents[2]
PACKAGE = Path(perdure.__file__).parent
CODE = re.compile(r'\b(?:code|default_code) ?= ?"([a-z-]+)"')


def error_codes() -> set[str]:
    paths = (path for path in PACKAGE.rglob("*.py") if "testing" not in path.parts)
    return {code for path in paths for code in CODE.findall(path.read_text(encoding="utf-8"))}


def test_every_error_code_is_documented() -> None:
    """The page on errors lists every code that the source can give."""
    listed = set(re.findall(r"`([a-z-]+)`", (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")))

    assert error_codes() - listed == set()


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

"""Fixtures: a small store with its writer, and everything around it that protects it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from protected_store import ProtectedStore


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[ProtectedStore]:
    """A store in use, not protected yet."""
    with ProtectedStore(tmp_path) as scene:
        yield scene

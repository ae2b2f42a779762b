"""A simulated database for the tests of the verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.testing.paged_scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A simulated database of four pages, not protected yet."""
    scene = Scene(tmp_path)
    scene.database.commit({page: scene.page(f"first {page}") for page in range(4)})
    return scene

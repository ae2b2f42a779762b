"""Captures that build on an earlier point, beside another process that protects the same source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.model.errors import Refused
from perdure.model.points import PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.protection.folder_verbs import protect_folder
from perdure.protection.home import Home
from perdure.protection.image_verbs import express_full, protect
from perdure.testing.memory_vault import MemoryCapture, MemoryVault
from perdure.testing.paged_scene import Scene


class RacedVault(MemoryVault):
    """A vault in which something happens right before the next capture begins."""

    before: Callable[[], None] = staticmethod(lambda: None)

    def capture(self, source: str) -> MemoryCapture:
        before, self.before = self.before, lambda: None
        before()
        return super().capture(source)


def test_an_image_is_not_built_on_a_point_that_another_machine_succeeded(tmp_path: Path) -> None:
    """The point that was chosen may be deleted and condemned by then, so that what it needs is not safe."""
    scene = Scene(tmp_path)
    vault = scene.vault = RacedVault()
    scene.database.commit({page: scene.page(f"first {page}") for page in range(4)})
    protected = scene.protect()
    (first,) = vault.points(protected.source.id)

    def elsewhere() -> None:
        assert first.position is not None
        later = Position(first.position.generation + 2, 1)
        vault.capture(protected.source.id).commit(
            RecoveryPoint(0, protected.source.id, PointKind.EXPRESS_FULL, 5, later, files=first.files)
        )

    vault.before = elsewhere
    scene.database.commit({1: scene.page("second")})
    with pytest.raises(Refused) as caught:
        express_full(protected)

    assert caught.value.code == "point-exists"
    assert [point.number for point in vault.points(protected.source.id)] == [1, 2]


def test_a_tree_is_not_built_on_a_point_that_another_machine_succeeded(tmp_path: Path) -> None:
    """Listings and files that did not change are taken over from the point before only while it is the newest."""
    vault = RacedVault()
    share = tmp_path / "share"
    share.mkdir()
    (share / "a").write_bytes(b"alpha")
    protected, first = protect(Home(tmp_path / "home"), vault, "files", str(share))

    def elsewhere() -> None:
        vault.capture(protected.source.id).commit(
            RecoveryPoint(0, protected.source.id, PointKind.FILE, 5, tree=first.tree)
        )

    vault.before = elsewhere
    with pytest.raises(Refused) as caught:
        protect_folder(protected, "test")

    assert caught.value.code == "point-exists"
    assert protect_folder(protected, "test").number == 3

"""Live sources as a place where the content of damaged chunks still is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from perdure.model.points import DataSource, ImageFile, PointKind, RecoveryPoint
from perdure.model.positions import Position
from perdure.protection.healing import LiveOrigin
from perdure.protection.imaging import first_file, next_file, store_changes, store_whole
from perdure.repository import keys
from perdure.repository.heal import heal_pool
from perdure.repository.pool import Pool
from perdure.repository.verify import verify_pool
from perdure.testing.twin_pools import new_pool, opened

PAGE = 4096
PAGES = 60
CHANGED = np.array([3, 4, 17, 40, 59])


class Database:
    """A file that is stored by pages; implements ``ImageReader``."""

    name = "database"
    page_size = PAGE
    changed = None

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(os.urandom(PAGES * PAGE - 100))

    @property
    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        return self.path.read_bytes()[offset : offset + length]

    def rewrite(self, pages: np.ndarray) -> None:
        """Change whole pages."""
        content = bytearray(self.path.read_bytes())
        for page in pages.tolist():
            end = min(len(content), (page + 1) * PAGE)
            content[page * PAGE : end] = os.urandom(end - page * PAGE)
        self.path.write_bytes(content)


class Scene:
    """A database with a first image and an express full, in a pool."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.pool = new_pool(place / "pool")
        self.database = Database(place / "app.db")
        self.source = DataSource("a" * 32, "app", "sqlite", str(self.database.path))
        self.pool.register(self.source)
        capture = self.pool.capture(self.source.id)
        whole = first_file(self.database, store_whole(self.database, capture), capture)
        self._commit(capture, whole, 1)
        self.database.rewrite(CHANGED)
        capture = self.pool.capture(self.source.id)
        delta = store_changes(self.database, CHANGED, capture)
        (self.chunk,) = delta.ids()
        self._commit(capture, next_file(whole, delta, capture, self.pool), 2)

    def _commit(self, capture: object, file: ImageFile, place: int) -> None:
        point = RecoveryPoint(
            0, self.source.id, PointKind.EXPRESS_FULL, time.time_ns(), Position(1, place), files=(file,)
        )
        capture.commit(point)  # type: ignore[attr-defined]

    def damage(self) -> None:
        """Flip a bit of the chunk with the changed pages."""
        place = self.pool.index.find(self.chunk)
        assert place is not None
        name = place.pack.hex()
        path = Path(self.pool.storage.url) / "packs" / name[:2] / name
        data = bytearray(path.read_bytes())
        data[place.offset + 70] ^= 1
        path.write_bytes(data)

    def healed(self) -> bool:
        pool: Pool = opened(self.pool, self.place / f"cache-{time.monotonic_ns()}")
        origins = [LiveOrigin(pool, self.source)]
        return heal_pool(pool, verify_pool(pool, data=True), origins=origins).report.sound


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(keys, "_SCRYPT", (1 << 4, 8, 1))
    return Scene(tmp_path)


def test_a_chunk_of_scattered_pages_is_put_together_from_the_live_file(scene: Scene) -> None:
    """Pages from all over the file, the cut one at its end among them, give the chunk back."""
    scene.damage()

    assert scene.healed()


def test_pages_that_others_wrote_since_do_not_matter(scene: Scene) -> None:
    """Only the pages of the chunk itself have to be as they were."""
    scene.database.rewrite(np.setdiff1d(np.arange(PAGES), CHANGED))
    scene.damage()

    assert scene.healed()


@pytest.mark.parametrize("change", ["page", "cut", "gone", "folder"])
def test_a_source_that_is_not_what_it_was_heals_nothing(scene: Scene, change: str) -> None:
    """A changed page, a shorter file, a missing one or a folder in its place give nothing, and no error."""
    path = scene.database.path
    if change == "page":
        scene.database.rewrite(CHANGED[:1])
    elif change == "cut":
        os.truncate(path, 40 * PAGE)
    else:
        path.unlink()
        if change == "folder":
            path.mkdir()
    scene.damage()

    assert not scene.healed()
    assert path.exists() is (change != "gone")

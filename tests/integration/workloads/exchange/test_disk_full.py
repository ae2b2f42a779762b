"""A full disk, wherever it is: the engine hears of an abort, no log goes that is not durable, and it is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from protected_store import ProtectedStore, is_whole

from perdure.model.errors import ImageFailed, PerdureError, PoolUnusable
from perdure.model.targets import AtPoint, Latest
from perdure.protection.image_verbs import express_full, protect, synchronize
from perdure.protection.points import timeline_of
from perdure.protection.recovery import recover
from perdure.repository.opening import create_pool
from perdure.snapshots.writer import BackupKind
from perdure.storage.local import LocalStorage
from perdure.workloads.exchange import freezing

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root and mount to make a small file system"
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def filled(place: Path, left: int = 0) -> Iterator[None]:
    """Take all the room, but for some bytes."""
    ballast = place / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(place).free - left))
    try:
        yield
    finally:
        ballast.unlink()


def complete(scene: ProtectedStore) -> set[int]:
    """The generations whose complete log the engine has."""
    return {int(path.stem[3:], 16) for path in scene.store.folder.glob("E00????????.log")}


@pytest.mark.parametrize("verb", [express_full, synchronize])
def test_the_pool_is_full(scene: ProtectedStore, small: Path, verb: object) -> None:
    """A pool that fills up takes no point, truncates nothing and says so; with room the same verb goes on."""
    assert callable(verb)
    pool, _ = create_pool(LocalStorage(small / "pool", create=True), b"full", scene.root / "cache")
    scene.protected, _ = protect(scene.home, pool, "exchange", str(scene.store.folder))
    scene.store.work(30)
    scene.store.flush()
    logs = complete(scene)
    source = scene.protected.source.id
    with filled(small, left=64 << 10), pytest.raises(PoolUnusable) as refused:
        verb(scene.protected)
    assert refused.value.code == "pool-full"
    assert refused.value.hint
    assert complete(scene) >= logs
    assert scene.store.sets == {}
    assert [kind for kind, _ in scene.store.completed] == [BackupKind.FULL]
    assert len(pool.points(source)) == 1
    assert timeline_of(pool, source).gaps() == []

    verb(scene.protected)
    assert scene.state == "ok"
    assert timeline_of(pool, source).gaps() == []
    assert {span.generation for span in pool.spans(source)} >= logs
    recover(scene.protected, to=Latest(), target=scene.root / "recovered")
    assert is_whole(scene.root / "recovered")


def test_no_room_for_the_snapshot(scene: ProtectedStore, small: Path) -> None:
    """Where a copy does not fit it is refused before anything is copied, and log is shipped all the same."""
    with pytest.raises(PerdureError, match="free; nothing was begun") as refused:
        scene.protect({"snapshot-folder": [str(small)]})
    assert refused.value.code == "no-room"
    assert scene.store.sets == {}
    assert scene.store.completed == []
    assert list(small.iterdir()) == []


@pytest.mark.parametrize("left", [0, 64 << 10])
def test_the_disk_of_the_snapshot_fills_up(
    scene: ProtectedStore, small: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up under the copy of logs or pages ends the image with a cause, and the next one works."""
    monkeypatch.setattr(freezing, "refuse_without_room", lambda *_: None)
    scene.protect({"snapshot-folder": [str(small)]})
    scene.store.work(4)
    # Nothing is flushed, so that the logs are needed and have to be copied to the other disk.
    scene.store.flush([1])
    with filled(small, left=left), pytest.raises(ImageFailed, match="No space left on device") as failed:
        scene.full()
    assert failed.value.code == "no-snapshot"
    assert "--snapshot-folder" in failed.value.hint
    assert "the express full failed" in scene.home.attention(scene.protected.source.id)
    assert scene.store.sets == {}
    assert len(scene.store.completed) == 1
    assert list(small.iterdir()) == []
    point = scene.full()
    target, _ = scene.recover(AtPoint(point.number))
    assert is_whole(target)


def test_the_target_is_full(scene: ProtectedStore, small: Path) -> None:
    """A recovery to a disk without room is refused or fails with a cause, and leaves nothing there."""
    scene.store.work(3)
    scene.protect()
    with filled(small, left=300 << 10):
        with pytest.raises(PerdureError) as refused:
            recover(scene.protected, to=Latest(), target=small / "recovered")
        assert "room" in refused.value.message or "space" in refused.value.message
        assert refused.value.hint
        assert [path.name for path in small.iterdir()] == ["ballast"]
    target, _ = scene.recover()
    assert is_whole(target)

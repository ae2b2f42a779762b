"""Snapshots that share their blocks, on real file systems that can: XFS and btrfs in a file, mounted through a loop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "workloads" / "exchange"))

from protected_store import ProtectedStore, is_whole
from simulated_store import SimulatedStore

from perdure.model.errors import Refused
from perdure.model.targets import AtPoint
from perdure.snapshots.files import clone_file
from perdure.testing.small_store import SmallStore
from perdure.workloads.exchange import freezing

_MAKE = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q", "-m", "single"]}
_SIZE = 320 << 20
"""Bytes; smaller ones mkfs.xfs does not make. The file is sparse."""


@pytest.fixture(params=sorted(_MAKE), scope="module")
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a new file system that can share blocks between files."""
    command = _MAKE[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(
            f"{command[0]} is not installed (tools/want-debian-packages mkfs.xfs=xfsprogs mkfs.btrfs=btrfs-progs)"
        )
    folder = tmp_path_factory.mktemp(request.param)
    image, root = folder / "disk", folder / "root"
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run([*command, image], check=True, capture_output=True)
    root.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, root], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{request.param} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", root], check=True, capture_output=True)


@pytest.fixture
def disk(mounted: Path) -> Iterator[Path]:
    """An empty folder there."""
    folder = mounted / "test"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def blocks_used(root: Path) -> int:
    """Bytes that the files of a file system take."""
    subprocess.run(["sync", "-f", root], check=True)
    usage = shutil.disk_usage(root)
    return usage.used


def test_a_clone_is_frozen_and_takes_no_room(disk: Path) -> None:
    """A clone has the content of the moment it was made, takes no blocks of its own, and never replaces a file."""
    original, clone = disk / "original", disk / "clone"
    original.write_bytes(bytes(range(256)) * (32 << 12))
    before = blocks_used(disk)
    assert clone_file(original, clone)
    assert blocks_used(disk) - before < original.stat().st_size // 8
    content = original.read_bytes()
    with original.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"\xff" * (1 << 20))
    assert clone.read_bytes() == content
    with pytest.raises(FileExistsError):
        clone_file(original, clone)


class _Watched(SmallStore):
    """Its clients change everything between the thaw and the moment that anything is read of the snapshot."""

    frozen = b""

    def thaw(self, backup_set: str) -> None:
        self.frozen = self.database.read_bytes()
        super().thaw(backup_set)
        self.change(range(1, self.pages + 1))
        self.flush()


@pytest.fixture
def scene(disk: Path, tmp_path: Path) -> Iterator[ProtectedStore]:
    """A store on that file system; perdure's own files lie elsewhere."""
    with ProtectedStore(tmp_path) as scene:
        scene.store = _Watched(disk / "store", pages=300, sectors=512)
        scene.serve(scene.store)
        yield scene


def copied_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying while an engine's writes are held is a failure from here on."""

    def copies(*_: object) -> None:
        raise AssertionError("pages were copied while the writer was frozen")

    monkeypatch.setattr(freezing, "copy_file", copies)
    monkeypatch.setattr(freezing, "copy_ranges", copies)


def test_an_image_is_of_the_freeze_and_nothing_is_copied_meanwhile(
    scene: ProtectedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First replica and express full read the clone after the thaw: it shows the freeze, whatever changed since."""
    assert isinstance(scene.store, _Watched)
    copied_nothing(monkeypatch)
    for number in (1, 2):
        scene.store.work(2)
        point = scene.protect() if number == 1 else scene.full()
        assert "compared" not in point.cause
        frozen, now = scene.store.frozen, scene.store.database.read_bytes()
        target, _ = scene.recover(AtPoint(point.number))
        recovered = (target / "Mailboxes.edb").read_bytes()
        assert recovered[2 * 4096 :] == frozen[2 * 4096 :] != now[2 * 4096 :]
        assert is_whole(target)
    assert not list(scene.store.folder.glob(".perdure-snapshot*"))


def test_a_clone_needs_no_room(scene: ProtectedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room for a copy is captured by a clone; where that cannot be, the copy is refused, and says so."""
    with (scene.store.folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(scene.store.folder).free - (150 << 20)))
    subprocess.run(["sync", "-f", scene.store.folder], check=True)
    assert shutil.disk_usage(scene.store.folder).free < 200 << 20
    scene.protect()
    target, _ = scene.recover(AtPoint(1))
    assert is_whole(target)
    monkeypatch.setattr(freezing, "clone_file", lambda *_: False)
    scene.store.change(range(1, 101))
    scene.store.flush()
    with pytest.raises(Refused, match="free; nothing was begun") as refused:
        scene.full()
    assert "--snapshot-folder" in refused.value.hint


def test_a_snapshot_folder_on_another_disk_gets_a_copy(scene: ProtectedStore) -> None:
    """Blocks are not shared across file systems: there a snapshot is a copy, and it is of the freeze too."""
    assert isinstance(scene.store, _Watched)
    other = scene.root / "snapshots"
    other.mkdir()
    scene.protect({"snapshot-folder": [str(other)]})
    target, _ = scene.recover(AtPoint(1))
    assert (target / "Mailboxes.edb").read_bytes()[2 * 4096 :] == scene.store.frozen[2 * 4096 :]
    assert list(other.iterdir()) == []


def test_images_of_an_engine_at_work(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clones that are taken while clients of the simulated store work bring back the rows of its journal."""
    copied_nothing(monkeypatch)
    with SimulatedStore(disk, 4096, transactions=60) as store:
        with store.working():
            store.protect(folder=store.folder)
            point = store.full()
        assert "compared" not in point.cause
        store.crash()
        for taken in store.vault.points(store.protected.source.id):
            assert taken.position is not None
            assert store.differences_at(taken.position) == []

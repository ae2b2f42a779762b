"""The storage contract on a local directory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perdure.model.errors import NotFound
from perdure.storage.contract import ObjectExists, ObjectMissing, StorageFull, StorageReadOnly
from perdure.storage.local import LocalStorage
from perdure.testing.crash_filesystem import CrashFileSystem


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    """An empty storage."""
    return LocalStorage(tmp_path / "pool", create=True)


def test_an_object_reads_back_whole_and_in_parts(storage: LocalStorage) -> None:
    """What was created is read, sized and listed."""
    storage.create("a/b", b"hello ", b"world")

    assert storage.read("a/b") == b"hello world"
    assert storage.read_range("a/b", 3, 5) == b"lo wo"
    assert storage.read_range("a/b", 6, 100) == b"world"
    assert storage.size("a/b") == 11
    assert [(o.name, o.size) for o in storage.list("a")] == [("a/b", 11)]


def test_a_range_far_beyond_the_end_takes_no_memory(storage: LocalStorage) -> None:
    """What a damaged place asks for is cut to what there is before anything is read."""
    storage.create("a", b"hello")

    assert storage.read_range("a", 1, 1 << 50) == b"ello"
    assert storage.read_range("a", 1 << 62, 1 << 62) == b""


def test_a_name_is_given_once(storage: LocalStorage) -> None:
    """A second object of the same name is refused and changes nothing."""
    storage.create("a", b"first")

    with pytest.raises(ObjectExists):
        storage.create("a", b"second")

    assert storage.read("a") == b"first"
    assert list((storage.root / "tmp").iterdir()) == []


def test_of_many_writers_of_one_name_exactly_one_wins(storage: LocalStorage) -> None:
    """Create-if-absent holds between threads."""
    won: list[int] = []

    def write(number: int) -> None:
        try:
            storage.create("name", bytes([number]))
        except ObjectExists:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert bytes(won) == storage.read("name")


def test_nothing_is_visible_before_the_barrier_asked_for_it(storage: LocalStorage) -> None:
    """A staged object has no name; after the barrier it has."""
    staged = storage.stage()
    staged.write(b"x" * 1000)

    assert list(storage.list("")) == []

    storage.barrier([storage.publish(staged, "packs/x")])

    assert [o.name for o in storage.list("")] == ["packs/x"]


def test_a_failed_publication_is_reported_by_its_own_barrier_only(storage: LocalStorage) -> None:
    """The barrier of one capture does not hide or raise the failure of another."""
    storage.create("taken", b"")
    failing, fine = storage.stage(), storage.stage()
    bad, good = storage.publish(failing, "taken"), storage.publish(fine, "free")

    storage.barrier([good])

    with pytest.raises(ObjectExists):
        storage.barrier([bad])


def test_what_is_missing_is_said_to_be_missing(storage: LocalStorage, tmp_path: Path) -> None:
    """Reading, sizing and opening what is not there are errors of their own kind."""
    with pytest.raises(ObjectMissing):
        storage.read("no")
    with pytest.raises(ObjectMissing):
        storage.read_range("no", 0, 1)
    with pytest.raises(ObjectMissing):
        storage.size("no")
    with pytest.raises(NotFound, match="no storage pool"):
        LocalStorage(tmp_path / "nowhere")

    storage.delete("no")


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/..", "tmp/x", "."])
def test_names_cannot_leave_the_pool(storage: LocalStorage, name: str) -> None:
    """A name is never a way out of the root or into the staging area."""
    with pytest.raises(ValueError, match="not an object name"):
        storage.create(name, b"")


def test_leftovers_of_a_killed_writer_are_swept_but_not_those_of_a_living_one(storage: LocalStorage) -> None:
    """The lock tells a dead writer's temporary file from a living one's."""
    living = storage.stage()
    living.write(b"alive")
    script = (
        "import os, signal, sys; from pathlib import Path; from perdure.storage.local import LocalStorage\n"
        "staged = LocalStorage(Path(sys.argv[1])).stage(); staged.write(b'dead'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script, str(storage.root)], check=False)
    assert len(list((storage.root / "tmp").iterdir())) == 2

    LocalStorage(storage.root).create("new", b"")

    assert [path.read_bytes() for path in (storage.root / "tmp").iterdir()] == [b"alive"]


def test_a_full_disk_leaves_nothing_behind(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC is told as a full pool, and the half-written object is gone."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    staged = storage.stage()
    monkeypatch.setattr(os, "writev", full)
    with pytest.raises(StorageFull) as caught:
        staged.write(b"x")

    assert caught.value.code == "pool-full"
    assert list((storage.root / "tmp").iterdir()) == []


def test_a_failed_fsync_is_not_a_durable_object(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object whose fsync failed never gets its name."""

    def broken(_: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageReadOnly):
        storage.create("x", b"data")

    assert list(storage.list("")) == []


def test_a_directory_that_a_killed_process_made_is_durable_before_anything_in_it_is_acknowledged() -> None:
    """Its name may not be on the disk yet: whoever writes into it next fsyncs the directory above."""
    root, filesystem = Path("/pool"), CrashFileSystem()
    killed = LocalStorage(root, create=True, filesystem=filesystem)
    killed.create("logs/first/1", b"x")
    filesystem.mkdir(root / "logs" / "second")
    filesystem = filesystem.killed()

    LocalStorage(root, filesystem=filesystem).create("logs/second/1", b"acknowledged")

    assert LocalStorage(root, filesystem=filesystem.crashed(0)).read("logs/second/1") == b"acknowledged"

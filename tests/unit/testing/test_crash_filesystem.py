"""The simulated file system: what it lets survive, and what not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.storage.filesystem import FileSystem, OperatingSystem
from perdure.testing.crash_filesystem import CrashFileSystem, PowerCut

TOP = Path("/")


def text_of(filesystem: FileSystem, path: Path) -> bytes:
    """All of a file."""
    fd = filesystem.open(path)
    try:
        return filesystem.pread(fd, 1 << 20, 0)
    finally:
        filesystem.close(fd)


def names(filesystem: FileSystem, path: Path = TOP) -> list[str]:
    """What a directory holds."""
    return [found.name for found in filesystem.scan(path)]


def outcomes(filesystem: CrashFileSystem, look: Callable[[CrashFileSystem], object]) -> set[object]:
    """What many crashes leave."""
    return {look(filesystem.crashed(seed)) for seed in range(2, 200)}


def test_an_unsynced_name_may_be_lost_or_kept() -> None:
    """A name is safe after its directory's fsync, and only then."""
    filesystem = CrashFileSystem()
    filesystem.create(Path("/a"))

    assert names(filesystem.crashed(0)) == []
    assert names(filesystem.crashed(1)) == ["a"]
    filesystem.fsync_directory(TOP)
    assert outcomes(filesystem, lambda left: tuple(names(left))) == {("a",)}


def test_synced_data_does_not_make_its_name_durable() -> None:
    """Fsync of a file is no fsync of the directory that holds it."""
    filesystem = CrashFileSystem()
    fd = filesystem.create(Path("/a"))
    filesystem.writev(fd, [memoryview(b"text")])
    filesystem.fsync(fd)

    assert names(filesystem.crashed(0)) == []


def test_unsynced_data_is_lost_kept_cut_off_or_torn() -> None:
    """The bytes behind the last fsync may read as anything, those before it never change."""
    filesystem = CrashFileSystem()
    fd = filesystem.create(Path("/a"))
    filesystem.writev(fd, [memoryview(b"safe")])
    filesystem.fsync(fd)
    filesystem.fsync_directory(TOP)
    filesystem.writev(fd, [memoryview(b"x" * 10_000)])

    found = outcomes(filesystem, lambda left: text_of(left, Path("/a")))

    texts = {text for text in found if isinstance(text, bytes)}
    assert all(text.startswith(b"safe") for text in texts)
    assert b"safe" in texts
    assert b"safe" + b"x" * 10_000 in texts
    assert any(len(text) < 10_004 and set(text[4:]) == {ord("x")} for text in texts)
    assert any(len(text) == 10_004 and b"\0" * 4000 in text and b"x" * 1000 in text for text in texts)


def test_directory_changes_survive_in_any_combination() -> None:
    """Of two unsynced changes either may survive without the other, whatever their order was."""
    filesystem = CrashFileSystem()
    filesystem.create(Path("/old"))
    filesystem.fsync_directory(TOP)
    filesystem.create(Path("/new"))
    filesystem.unlink(Path("/old"))

    assert outcomes(filesystem, lambda left: tuple(names(left))) == {(), ("new",), ("old",), ("new", "old")}


def test_a_directory_whose_own_name_was_not_synced_is_lost_with_all_in_it() -> None:
    """Fsync of a directory says nothing of the one above."""
    filesystem = CrashFileSystem()
    filesystem.mkdir(Path("/d"))
    filesystem.create(Path("/d/a"))
    filesystem.fsync_directory(Path("/d"))

    assert names(filesystem.crashed(0)) == []


def test_a_second_name_is_the_same_file() -> None:
    """A link shares the data; the file lives until its last name is gone, and links are counted after a crash."""
    filesystem = CrashFileSystem()
    fd = filesystem.create(Path("/a"))
    filesystem.writev(fd, [memoryview(b"text")])
    filesystem.link(Path("/a"), Path("/b"))
    filesystem.unlink(Path("/a"))

    left = filesystem.crashed(1)

    assert text_of(left, Path("/b")) == b"text"
    assert left.stat(Path("/b")).links == 1
    assert filesystem.fstat(fd).links == 1


def test_a_kill_loses_locks_but_no_data_and_syncs_nothing() -> None:
    """The page cache outlives processes; what was unsynced is still unsynced."""
    filesystem = CrashFileSystem()
    fd = filesystem.create(Path("/a"))
    filesystem.lock(fd, wait=False)
    other = filesystem.open(Path("/a"))
    with pytest.raises(BlockingIOError):
        filesystem.lock(other, wait=False)

    after = filesystem.killed()

    assert names(after) == ["a"]
    after.lock(after.open(Path("/a")), wait=False)
    assert names(after.crashed(0)) == []


def test_after_the_power_is_cut_no_call_returns() -> None:
    """The call after the last one raises, and so does every later one, whatever handlers do."""
    filesystem = CrashFileSystem()
    filesystem.crash_after(1)
    filesystem.mkdir(Path("/d"))

    for _ in range(2):
        with pytest.raises(PowerCut):
            filesystem.create(Path("/d/a"))
    assert names(filesystem.crashed(1)) == ["d"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda fs, top: fs.create(top / "file"), FileExistsError),
        (lambda fs, top: fs.create(top / "none" / "a"), FileNotFoundError),
        (lambda fs, top: fs.create(top / "file" / "a"), NotADirectoryError),
        (lambda fs, top: fs.open(top / "none"), FileNotFoundError),
        (lambda fs, top: fs.stat(top / "none"), FileNotFoundError),
        (lambda fs, top: fs.stat(top / "file" / "a"), NotADirectoryError),
        (lambda fs, top: fs.link(top / "none", top / "b"), FileNotFoundError),
        (lambda fs, top: fs.link(top / "file", top / "dir"), FileExistsError),
        (lambda fs, top: fs.unlink(top / "none"), FileNotFoundError),
        (lambda fs, top: fs.mkdir(top / "dir"), FileExistsError),
        (lambda fs, top: fs.mkdir(top / "file"), FileExistsError),
        (lambda fs, top: fs.mkdir(top / "none" / "d"), FileNotFoundError),
        (lambda fs, top: fs.scan(top / "none"), FileNotFoundError),
        (lambda fs, top: fs.scan(top / "file"), NotADirectoryError),
        (lambda fs, top: fs.fsync_directory(top / "file"), NotADirectoryError),
    ],
)
def test_it_fails_as_the_operating_system_does(
    tmp_path: Path, call: Callable[[FileSystem, Path], object], error: type[OSError]
) -> None:
    """The simulation and the real thing raise the same errors, so what is proven on one holds on the other."""
    for filesystem, top in ((OperatingSystem(), tmp_path), (CrashFileSystem(), TOP)):
        filesystem.close(filesystem.create(top / "file"))
        filesystem.mkdir(top / "dir")
        with pytest.raises(error):
            call(filesystem, top)

import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import perdure
from perdure.model.entries import Entry
from perdure.model.errors import SourceUnusable
from perdure.model.listings import put_listing, read_listing
from perdure.testing.folder_tree import FolderTree
from perdure.testing.memory_content import MemoryContent
from perdure.workloads.contract import FolderWorkload
from perdure.workloads.files import FilesWorkload, find, iterate
from perdure.workloads.files.scan import open_for_reading


def _paths(tree: FolderTree, root: Entry) -> list[str]:
    return [os.fsdecode(path) for path, _ in iterate(root, tree.pool)]


def test_discover(tmp_path: Path) -> None:
    """A folder is described; what is missing or no folder is refused with a stable code."""
    workload = FilesWorkload()
    assert isinstance(workload, FolderWorkload)
    info = workload.discover(f"{tmp_path}/.")
    assert (info.location, info.default_name) == (str(tmp_path), tmp_path.name)
    with pytest.raises(SourceUnusable) as caught:
        workload.discover(str(tmp_path / "none"))
    assert caught.value.code == "source-missing"
    (tmp_path / "f").touch()
    with pytest.raises(SourceUnusable) as caught:
        workload.discover(str(tmp_path / "f"))
    assert caught.value.code == "source-not-a-folder"


def test_exclude_wins_over_include(tree: FolderTree) -> None:
    """Only what is included and not excluded is kept, without empty directories around it."""
    for name in ("keep/a.txt", "keep/b.tmp", "other/c.txt", "other/deep/d.md", "drop/e.txt"):
        (tree.path / name).parent.mkdir(parents=True, exist_ok=True)
        (tree.path / name).write_bytes(b"x")
    assert _paths(tree, tree.scan(exclude=["*.tmp", "/drop"]).root) == [
        "keep", "keep/a.txt", "other", "other/c.txt", "other/deep", "other/deep/d.md",
    ]  # fmt: skip
    narrowed = tree.scan(include=["keep/", "*.md", "drop/*"], exclude=["*.tmp", "/drop"])
    assert _paths(tree, narrowed.root) == ["keep", "keep/a.txt", "other", "other/deep", "other/deep/d.md"]


def test_specials_are_skipped_with_a_note(tree: FolderTree) -> None:
    """Fifos and sockets are skipped, and the notes say so."""
    os.mkfifo(tree.path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree.path / "sock"))
        scan = tree.scan()
    assert scan.notes == ("pipe: skipped: it is a fifo", "sock: skipped: it is a socket")
    assert _paths(tree, scan.root) == []


def test_a_refused_file_is_a_gap(tree: FolderTree) -> None:
    """A file that cannot be opened is listed with its metadata and the reason, restored empty and reported."""
    (tree.path / "secret").write_bytes(b"x")
    (tree.path / "open").write_bytes(b"y")

    def refuse(name: bytes, directory: int, flags: int) -> int:
        if name == b"secret":
            raise PermissionError(13, "Permission denied")
        return open_for_reading(name, directory, flags)

    scan = tree.scan(open_file=refuse)
    assert scan.notes == ("secret: not protected: permission denied",)
    assert find(scan.root, tree.pool, "secret").gap == "could not be read: permission denied"
    target, report = tree.restore(scan.root)
    assert (target / "open").read_bytes() == b"y"
    assert report.gaps == ("secret: could not be read: permission denied",)
    healed = tree.scan(scan.root)
    assert find(healed.root, tree.pool, "secret").gap == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_unreadable_for_a_real_user(tree: FolderTree) -> None:
    """For a user without permission, files and directories become gaps and the scan goes on."""
    (tree.path / "closed").mkdir(mode=0o700)
    (tree.path / "closed" / "f").write_bytes(b"x")
    (tree.path / "secret").write_bytes(b"x")
    (tree.path / "secret").chmod(0o600)
    (tree.path / "public").write_bytes(b"x")
    script = (
        "import os, sys; os.chdir(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from perdure.workloads.files import FilesWorkload\n"
        "from perdure.testing.memory_content import MemoryContent\n"
        "from perdure.model.points import DataSource\n"
        "scan = FilesWorkload().scan(DataSource('', 't', 'files', '.'), MemoryContent(), None)\n"
        "print(scan.files, scan.size, *scan.notes, sep='|')"
    )
    imports = "import perdure.workloads.files, perdure.testing.memory_content\n"
    package = str(Path(perdure.__file__).parents[1])
    command = [sys.executable, "-c", imports + script, str(tree.path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": package}
    )
    assert done.stdout.strip().split("|") == [
        "2",
        "1",
        "closed: not listed, so nothing below it is protected: permission denied",
        "secret: not protected: permission denied",
    ]


def test_vanishing_files(tree: FolderTree) -> None:
    """A file or directory that goes away during the walk is noted, and nothing else is lost."""
    for name in ("a", "b"):
        (tree.path / name).write_bytes(b"x")
    (tree.path / "c").mkdir()

    def remove_others(name: bytes, directory: int, flags: int) -> int:
        if name == b"a":
            (tree.path / "b").unlink()
            (tree.path / "c").rmdir()
        return open_for_reading(name, directory, flags)

    scan = tree.scan(open_file=remove_others)
    assert scan.notes == ("b: vanished during the walk", "c: vanished during the walk")
    assert _paths(tree, scan.root) == ["a"]


def test_a_file_swapped_for_a_link_is_not_followed(tree: FolderTree) -> None:
    """A file that becomes a symbolic link between listing and opening is not read through it."""
    (tree.base / "outside").write_bytes(b"secret")
    (tree.path / "f").write_bytes(b"x")

    def swap(name: bytes, directory: int, flags: int) -> int:
        (tree.path / "f").unlink()
        (tree.path / "f").symlink_to(tree.base / "outside")
        return open_for_reading(name, directory, flags)

    scan = tree.scan(open_file=swap)
    assert _paths(tree, scan.root) == []
    assert len(scan.notes) == 1


class _Interfering(MemoryContent):
    """A pool whose first put does something to the source."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def put(self, data: bytes | bytearray | memoryview) -> bytes:
        act, self._act = self._act, lambda: None
        act()
        return super().put(data)


@pytest.mark.parametrize("size", [1000, 90 << 20])
def test_a_file_that_changes_while_it_is_read(tree: FolderTree, size: int) -> None:
    """A file truncated or grown under the reader is a gap, never a crash, and is read again the next time."""
    (tree.path / "f").write_bytes(os.urandom(80 << 20))
    tree.pool = _Interfering(lambda: os.truncate(tree.path / "f", size))
    scan = tree.scan()
    entry = find(scan.root, tree.pool, "f")
    assert entry.gap == "changed while it was read"
    assert entry.ctime_ns == 0
    assert scan.notes == ("f: changed while it was read",)
    again = tree.scan(scan.root)
    target, report = tree.restore(again.root)
    assert report.whole
    assert (target / "f").stat().st_size == size


def test_a_failing_pool_ends_the_scan(tree: FolderTree) -> None:
    """What the pool raises in a worker thread is raised by the scan."""
    for number in range(40):
        (tree.path / f"{number}").write_bytes(os.urandom(600_000))

    def fail() -> None:
        raise OSError(28, "No space left on device")

    tree.pool = _Interfering(fail)
    with pytest.raises(OSError, match="No space left"):
        tree.scan()


def test_content_changed_behind_the_times(tree: FolderTree) -> None:
    """A change that kept size and times is found by reading when asked to, small and large files alike."""
    (tree.path / "small").write_bytes(b"before")
    (tree.path / "large").write_bytes(b"1" * 3_000_000)
    scan = tree.scan()
    faked = {}
    for name, content in (("small", b"after!"), ("large", b"2" * 3_000_000)):
        (tree.path / name).write_bytes(content)
        faked[name] = (tree.path / name).stat()
    disguised = _with_times(tree, scan.root, faked)
    assert tree.scan(disguised).read == 0
    checked = tree.scan(disguised, check=True)
    assert checked.notes == (
        "large: content differs although times and size say it is unchanged",
        "small: content differs although times and size say it is unchanged",
    )
    assert checked.changed == 3_000_006
    assert tree.scan(checked.root, check=True).notes == ()


def _with_times(tree: FolderTree, root: Entry, times: dict[str, os.stat_result]) -> Entry:
    """The root as if the last scan had seen these times: ctime cannot be set back on a real file."""
    entries = [
        replace(entry, mtime_ns=times[os.fsdecode(entry.name)].st_mtime_ns,
                ctime_ns=times[os.fsdecode(entry.name)].st_ctime_ns)
        for entry in read_listing(root, tree.pool)
    ]  # fmt: skip
    return replace(root, listing=put_listing(entries, tree.pool))


def test_a_file_just_written_is_read_again(tree: FolderTree) -> None:
    """A file that may change again within its time stamp's tick is not trusted, yet not stored twice."""
    (tree.path / "f").write_bytes(b"1")
    scan = tree.scan(clock=time.time_ns)
    assert find(scan.root, tree.pool, "f").ctime_ns == 0
    stored = tree.pool.stored
    again = tree.scan(scan.root)
    assert (again.read, again.changed) == (1, 0)
    assert find(again.root, tree.pool, "f").content == find(scan.root, tree.pool, "f").content
    assert find(again.root, tree.pool, "f").ctime_ns != 0
    assert tree.scan(again.root).read == 0
    assert tree.pool.stored - stored < 1000


def test_a_touched_file_costs_no_content(tree: FolderTree) -> None:
    """New times or a new mode on the same content are recorded without storing the content again."""
    (tree.path / "f").write_bytes(os.urandom(100_000))
    scan = tree.scan()
    (tree.path / "f").chmod(0o640)
    stored = tree.pool.stored
    again = tree.scan(scan.root)
    assert again.changed == 0
    assert find(again.root, tree.pool, "f").mode == 0o640
    assert tree.pool.stored - stored < 2000


def test_listings_depend_on_the_tree_alone(tree: FolderTree) -> None:
    """Two scans of one tree make the same root whatever the threads did."""
    for number in range(200):
        (tree.path / f"{number}").write_bytes(os.urandom(20_000))
    assert tree.scan().root == tree.scan().root


def test_a_damaged_previous_listing_is_read_afresh(tree: FolderTree) -> None:
    """If the last point's listing is damaged, everything is read again and the note says why."""
    (tree.path / "f").write_bytes(b"content")
    scan = tree.scan()
    assert scan.root.listing is not None
    tree.pool.chunks.pop(scan.root.listing.chunks[0])
    again = tree.scan(scan.root)
    assert again.read == 7
    assert "cannot be read" in again.notes[0]


def test_huge_directories_are_stored_in_parts(tree: FolderTree) -> None:
    """A directory of many thousand entries is stored in parts and reads as one."""
    for number in range(9000):
        (tree.path / f"{number:05}").touch()
    scan = tree.scan()
    assert _paths(tree, scan.root) == [f"{number:05}" for number in range(9000)]
    assert tree.scan(scan.root).root == scan.root


def test_a_tree_gone_empty_is_noted(tree: FolderTree) -> None:
    """A folder that lost all its files (not mounted?) does not pass without a word."""
    (tree.path / "f").write_bytes(b"1")
    scan = tree.scan()
    (tree.path / "f").unlink()
    assert "still mounted" in tree.scan(scan.root).notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mount_points_are_left_out(tree: FolderTree) -> None:
    """What is mounted below the root is an empty directory with a note, unless asked for."""
    (tree.path / "m").mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "none", str(tree.path / "m")], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        (tree.path / "m" / "f").write_bytes(b"x")
        scan = tree.scan()
        crossed = tree.scan(one_file_system=["no"])
    finally:
        subprocess.run(["umount", str(tree.path / "m")], check=True)
    assert _paths(tree, scan.root) == ["m"]
    assert "another file system" in scan.notes[0]
    assert _paths(tree, crossed.root) == ["m", "m/f"]
    assert stat.S_ISDIR((tree.path / "m").stat().st_mode)

# Names here are raw bytes, which pathlib does not take.
# ruff: noqa: PTH102, PTH115, PTH118, PTH123, PTH211
import os
import shutil
import stat
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.model.entries import Entry, EntryKind
from perdure.model.errors import BadInput, Damaged, NotFound, Refused
from perdure.model.listings import put_listing
from perdure.model.points import DataSource
from perdure.testing.folder_tree import FolderTree
from perdure.testing.memory_content import MemoryContent
from perdure.workloads.files import FilesWorkload, browse, find, iterate, list_directory, restore_tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")


def snapshot(top: Path) -> dict[bytes, Any]:
    """Everything that must survive a round trip, by path."""
    found: dict[bytes, Any] = {}
    root = os.fsencode(top)
    for directory, names, files in os.walk(root):
        for path in [directory, *(os.path.join(directory, name) for name in names + files)]:
            seen = os.lstat(path)
            content: object = None
            if stat.S_ISREG(seen.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(seen.st_mode):
                content = os.readlink(path)
            xattrs = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
            meta = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns)
            found[os.path.relpath(path, root)] = (meta, content, xattrs)
    return found


_names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
_leaves = st.one_of(st.binary(max_size=600), st.tuples(_names))
_trees = st.recursive(
    st.dictionaries(_names, _leaves, max_size=5),
    lambda below: st.dictionaries(_names, st.one_of(_leaves, below), max_size=4),
    max_leaves=12,
)


def _make(directory: bytes, tree: dict[bytes, Any]) -> None:
    for name, what in tree.items():
        path = directory + b"/" + name
        if isinstance(what, dict):
            os.mkdir(path)
            _make(path, what)
        elif isinstance(what, tuple):
            os.symlink(what[0], path)
        else:
            with open(path, "wb") as file:
                file.write(what)
        os.utime(path, ns=(0, 1_600_000_000_123_456_789), follow_symlinks=False)


@settings(max_examples=60, deadline=None)
@given(_trees)
def test_any_tree_comes_back(tree: dict[bytes, Any]) -> None:
    """Trees with any names, empty files, links and depths come back the same, and a second scan stores nothing."""
    base = Path(tempfile.mkdtemp())
    try:
        (base / "in").mkdir()
        _make(os.fsencode(base / "in"), tree)
        pool = MemoryContent()
        source = DataSource("0" * 32, "t", "files", str(base / "in"))
        scan = FilesWorkload(lambda: 1 << 62).scan(source, pool, None)
        stored = pool.stored
        again = FilesWorkload(lambda: 1 << 62).scan(source, pool, (scan.root, pool))
        assert (again.root, again.read, again.changed, pool.stored) == (scan.root, 0, 0, stored)
        report = restore_tree(scan.root, pool, base / "out")
        assert report.whole
        assert report.files == scan.files
        assert snapshot(base / "out") == snapshot(base / "in")
    finally:
        shutil.rmtree(base)


def test_large_files_and_many_small_ones(tree: FolderTree) -> None:
    """Large files are cut, long maps leave the listing, small files share chunks; progress counts every byte."""
    (tree.path / "large").write_bytes(os.urandom(60 << 20))
    (tree.path / "small").mkdir()
    for number in range(300):
        (tree.path / "small" / f"{number}").write_bytes(os.urandom(5000))
    told: list[int] = []
    scan = tree.scan(progress=told.append)
    assert sum(told) == scan.size == scan.read == (60 << 20) + 300 * 5000
    large = find(scan.root, tree.pool, "large")
    assert large.content_map is not None
    assert large.content == ()
    chunks = {piece.chunk for entry in list_directory(scan.root, tree.pool, "small") for piece in entry.content}
    assert len(chunks) <= 3
    target, _ = tree.restore(scan.root)
    assert snapshot(target) == snapshot(tree.path)
    changed = bytearray((tree.path / "large").read_bytes())
    changed[1000:1000] = b"inserted"
    (tree.path / "large").write_bytes(changed)
    before = tree.pool.stored
    assert tree.scan(scan.root).changed == len(changed)
    assert tree.pool.stored - before < 10 << 20


@needs_root
def test_owner_mode_times_and_set_user_id(tree: FolderTree) -> None:
    """Owner, mode with its special bits and times to the nanosecond come back, for directories too."""
    (tree.path / "d").mkdir()
    (tree.path / "d" / "f").write_bytes(b"x")
    os.symlink("nowhere", tree.path / "d" / "l")
    os.chown(tree.path / "d" / "f", 1234, 4321)
    os.chown(tree.path / "d" / "l", 11, 22, follow_symlinks=False)
    (tree.path / "d" / "f").chmod(0o6750)
    (tree.path / "d").chmod(0o1777)
    os.utime(tree.path / "d", ns=(1, 987_654_321))
    target, report = tree.restore(tree.scan().root)
    assert report.notes == ()
    assert snapshot(target) == snapshot(tree.path)


def test_xattrs_and_acls(tree: FolderTree) -> None:
    """Extended attributes and ACLs, default ones too, come back byte for byte."""
    entries = [(1, 7, -1), (2, 6, 4242), (4, 5, -1), (16, 7, -1), (32, 4, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    (tree.path / "d").mkdir()
    (tree.path / "f").write_bytes(b"x")
    try:
        os.setxattr(tree.path / "f", "user.colour", b"\x00blue\xff")
        os.setxattr(tree.path / "f", "system.posix_acl_access", acl)
        os.setxattr(tree.path / "d", "system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"the file system of the test has no extended attributes or ACLs: {error}")
    target, report = tree.restore(tree.scan().root)
    assert report.notes == ()
    assert snapshot(target) == snapshot(tree.path)
    assert os.getxattr(target / "f", "system.posix_acl_access") == acl


def test_hard_links_are_one_file(tree: FolderTree) -> None:
    """Names of one file are read once and come back as names of one file, also from a later scan."""
    (tree.path / "a").write_bytes(os.urandom(100_000))
    (tree.path / "sub").mkdir()
    os.link(tree.path / "a", tree.path / "sub" / "b")
    scan = tree.scan()
    assert scan.read == scan.changed == scan.size == 100_000
    assert find(scan.root, tree.pool, "a").link == find(scan.root, tree.pool, "sub/b").link != 0
    os.link(tree.path / "a", tree.path / "c")
    later = tree.scan(scan.root)
    target, report = tree.restore(later.root)
    assert len({(target / name).stat().st_ino for name in ("a", "sub/b", "c")}) == 1
    assert report.files == 3
    alone, _ = tree.restore(later.root, "sub/b")
    assert (alone / "sub" / "b").read_bytes() == (tree.path / "a").read_bytes()
    assert not (alone / "a").exists()


def test_holes_stay_holes(tree: FolderTree) -> None:
    """A sparse file costs only its data, in the pool and when restored."""
    with (tree.path / "sparse").open("wb") as file:
        file.seek(20 << 20)
        file.write(b"middle")
        file.seek(50 << 20)
        file.write(os.urandom(1 << 20))
        file.truncate(100 << 20)
        os.fsync(file.fileno())
    if (tree.path / "sparse").stat().st_blocks * 512 >= 100 << 20:
        pytest.skip("the file system of the test has no holes")
    scan = tree.scan()
    assert scan.size == 100 << 20
    assert scan.read < 2 << 20
    target, _ = tree.restore(scan.root)
    assert (target / "sparse").stat().st_blocks * 512 < 4 << 20
    assert (target / "sparse").read_bytes() == (tree.path / "sparse").read_bytes()


def test_deep_trees(tree: FolderTree) -> None:
    """A tree deeper than the number of directories kept open comes back."""
    deep = tree.path.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    for number in range(0, 200, 10):
        tree.path.joinpath(*["d"] * number, "z").write_bytes(b"%d" % number)
    scan = tree.scan()
    target, _ = tree.restore(scan.root)
    assert scan.files == 20
    assert snapshot(target) == snapshot(tree.path)


def test_items(tree: FolderTree) -> None:
    """Only what is asked for is restored, below its parents with their own metadata."""
    (tree.path / "a" / "b").mkdir(parents=True)
    (tree.path / "a" / "b" / "wanted").write_bytes(b"1")
    (tree.path / "a" / "other").write_bytes(b"2")
    (tree.path / "a").chmod(0o711)
    scan = tree.scan()
    target, report = tree.restore(scan.root, "a/b", "./a/b/wanted")
    assert sorted(path.name for path in target.rglob("*")) == ["a", "b", "wanted"]
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o711
    assert (report.files, report.directories) == (1, 2)
    with pytest.raises(NotFound, match="wantd") as caught:
        tree.restore(scan.root, "a/b/wantd")
    assert "wanted" in caught.value.hint
    assert not (tree.base / "restored-2").exists()
    with pytest.raises(BadInput):
        tree.restore(scan.root, "../etc")


def test_looking_around(tree: FolderTree) -> None:
    """A tree can be browsed and iterated without restoring it."""
    (tree.path / "d").mkdir()
    (tree.path / "d" / "f").write_bytes(b"12345")
    os.symlink("d/f", tree.path / "l")
    root = tree.scan().root
    assert [path for path, _ in iterate(root, tree.pool)] == [b"d", b"d/f", b"l"]
    assert [(item.name, item.kind, item.details) for item in browse(root, tree.pool)] == [
        ("d", "directory", ""),
        ("l", "symlink", "-> d/f"),
    ]
    assert [(item.name, item.size) for item in browse(root, tree.pool, "d/f")] == [("f", 5)]


def test_existing_target_is_refused(tree: FolderTree) -> None:
    """Nothing that exists is ever written into: not a full directory, a file, or a link to a directory."""
    root = tree.scan().root
    (tree.base / "full").mkdir()
    (tree.base / "full" / "x").touch()
    (tree.base / "file").touch()
    (tree.base / "empty").mkdir()
    os.symlink("empty", tree.base / "link")
    for name in ("full", "file", "link"):
        with pytest.raises(Refused) as caught:
            restore_tree(root, tree.pool, tree.base / name)
        assert caught.value.code == "target-exists"
    restore_tree(root, tree.pool, tree.base / "empty")


def test_damage_is_named_and_the_rest_restored(tree: FolderTree) -> None:
    """A damaged chunk or listing costs what it holds and nothing else, and the report names it."""
    (tree.path / "bad").write_bytes(os.urandom(400_000))
    (tree.path / "good").write_bytes(b"good")
    (tree.path / "lost").mkdir()
    (tree.path / "lost" / "f").write_bytes(b"f")
    root = tree.scan().root
    tree.pool.chunks[find(root, tree.pool, "bad").content[0].chunk] = b"noise"
    listing = find(root, tree.pool, "lost").listing
    assert listing is not None
    tree.pool.chunks[listing.chunks[0]] = b"noise"
    target, report = tree.restore(root)
    assert (target / "good").read_bytes() == b"good"
    assert not report.whole
    assert [line.split(":")[0] for line in report.damaged] == ["bad", "lost"]
    assert (target / "bad").stat().st_size == 400_000


def test_a_listing_cannot_lead_outside(tree: FolderTree) -> None:
    """A pool made by an attacker cannot make a restore write outside its target."""
    evil = put_listing([Entry(b"../evil", EntryKind.FILE)], tree.pool)
    root = Entry(b"", EntryKind.DIRECTORY, mode=0o755, listing=evil)
    with pytest.raises(Damaged):
        restore_tree(root, tree.pool, tree.base / "out")
    assert not (tree.base / "evil").exists()

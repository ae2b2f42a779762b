"""The faulty storage and file system do what their faults are called."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from perdure.storage.contract import StorageFailed, StorageFull
from perdure.storage.local import LocalStorage
from perdure.testing.crash_filesystem import CrashFileSystem
from perdure.testing.faults import Fault, FaultyFileSystem, FaultyStorage, SystemFault


def faulty(fault: Fault) -> FaultyStorage:
    """A storage with one object ``old``."""
    inner = LocalStorage(Path("/pool"), create=True, filesystem=CrashFileSystem())
    inner.create("old", b"content of the old one")
    return FaultyStorage(inner, fault)


def names(storage: FaultyStorage) -> list[str]:
    """What is visible."""
    return [found.name for found in storage.list("")]


@pytest.mark.parametrize("fault", [Fault.FAILED, Fault.FULL, Fault.TORN])
def test_a_write_that_fails_is_not_visible(fault: Fault) -> None:
    """Whether nothing or half of it was written, the object has no name; the next one is written."""
    storage = faulty(fault)
    storage.arm(1)

    with pytest.raises(StorageFull if fault is Fault.FULL else StorageFailed):
        storage.create("new", b"x" * 100)

    assert names(storage) == ["old"]
    storage.create("new", b"y")
    assert storage.read("new") == b"y"


def test_a_lost_answer_hides_an_effect() -> None:
    """The call fails, and its object is there."""
    storage = faulty(Fault.LOST_ANSWER)
    storage.arm(1)

    with pytest.raises(StorageFailed):
        storage.create("new", b"x")

    assert names(storage) == ["new", "old"]


def test_what_is_late_happens_with_the_next_call() -> None:
    """The call fails and has no effect yet; discarding does not stop it."""
    storage = faulty(Fault.LATE)
    staged = storage.stage()
    staged.write(b"x")
    storage.arm(1)
    with pytest.raises(StorageFailed):
        storage.commit(staged, "new")
    staged.discard()
    assert [found.name for found in storage.inner.list("")] == ["old"]

    assert names(storage) == ["new", "old"]


def test_wrong_bytes_are_read_once() -> None:
    """One bit differs, or the end is missing, at the call that was chosen and at no other."""
    whole = b"content of the old one"
    storage = faulty(Fault.FLIPPED)
    storage.arm(2)
    found = [storage.read("old") for _ in range(3)]
    assert [text == whole for text in found] == [True, False, True]
    assert sum((a ^ b).bit_count() for a, b in zip(found[1], whole, strict=True)) == 1

    storage = faulty(Fault.CUT_OFF)
    storage.arm(1)
    found = [storage.read_range("old", 0, 100) for _ in range(2)]
    assert whole.startswith(found[0])
    assert len(found[0]) < len(whole) == len(found[1])


def test_system_calls_fail_with_the_error_of_the_fault() -> None:
    """The chosen call raises, with or without its effect, and the next one works."""
    inner = CrashFileSystem()
    for fault, number, there in (
        (SystemFault.ENOSPC, errno.ENOSPC, False),
        (SystemFault.EIO_AFTER, errno.EIO, True),
    ):
        filesystem, path = FaultyFileSystem(inner, fault), Path(f"/{fault.name}")
        filesystem.arm(1)
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            filesystem.mkdir(path)
        assert (path.name in [found.name for found in inner.scan(Path("/"))]) is there
        filesystem.mkdir(path / "d" if there else path)


def test_short_writes_and_reads_are_no_errors() -> None:
    """A local storage writes and reads the rest."""
    filesystem = FaultyFileSystem(CrashFileSystem(), SystemFault.SHORT)
    storage = LocalStorage(Path("/pool"), create=True, filesystem=filesystem)
    for at in (1, 2):
        filesystem.arm(at)
        storage.create(f"n{at}", b"a" * 10, b"b" * 20)
        assert storage.read(f"n{at}") == b"a" * 10 + b"b" * 20
        assert filesystem.struck

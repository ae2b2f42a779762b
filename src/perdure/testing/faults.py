"""Storages and file systems on which one call goes wrong.

:class:`FaultyStorage` wraps any storage, :class:`FaultyFileSystem` any file system below a local storage. Both fail
once, at the N-th call to which their fault applies since they were armed, and then work again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from perdure.model.errors import PerdureError
from perdure.storage.contract import (
    Buffer,
    Capabilities,
    Lease,
    LeaseInfo,
    ObjectInfo,
    Pending,
    Staged,
    Storage,
    StorageFailed,
    StorageFull,
)
from perdure.storage.filesystem import FileEntry, FileStatus, FileSystem

__all__ = ["Fault", "FaultyFileSystem", "FaultyStorage", "SystemFault"]

_Result = TypeVar("_Result")
_WRITING = frozenset({"stage", "write", "publish", "barrier", "commit", "create", "delete"})
_READING = frozenset({"read", "read_range"})
_ASKING = frozenset({"size", "list", "leases", "lease"})


class Fault(StrEnum):
    """What goes wrong in a call to a storage."""

    FAILED = "fails and has no effect"
    FULL = "there is no room"
    LOST_ANSWER = "has its effect, but the connection is reset before the answer"
    LATE = "times out, and has its effect when the next call is made"
    TORN = "fails after half of the bytes were written"
    FLIPPED = "one bit of what was read is another"
    CUT_OFF = "less is read than there is"

    @property
    def applies_to(self) -> frozenset[str]:
        """Names of the calls that can go wrong in this way."""
        match self:
            case Fault.FAILED:
                return _WRITING | _READING | _ASKING
            case Fault.FULL:
                return _WRITING - {"delete"}
            case Fault.LOST_ANSWER | Fault.LATE:
                return frozenset({"barrier", "commit", "create", "delete"})
            case Fault.TORN:
                return frozenset({"write", "create"})
            case Fault.FLIPPED | Fault.CUT_OFF:
                return _READING


class _Trigger:
    """Counts the calls to which a fault applies, and fires once."""

    def __init__(self, applies_to: frozenset[str]) -> None:
        self._applies_to = applies_to
        self._at: int | None = None
        self.calls = 0
        self.struck = ""

    def arm(self, at: int | None) -> None:
        self._at, self.calls, self.struck = at, 0, ""

    def fires(self, name: str) -> bool:
        if self._at is None or name not in self._applies_to:
            return False
        self.calls += 1
        if self.calls != self._at:
            return False
        self.struck = name
        return True


class FaultyStorage:
    """A storage whose N-th call goes wrong. Implements ``Storage``.

    Args:
        inner: The storage that does the work.
        fault: What goes wrong.
        seed: Where bits flip and reads end.
    """

    def __init__(self, inner: Storage, fault: Fault, seed: int = 0) -> None:
        self.inner = inner
        self.fault = fault
        self._trigger = _Trigger(fault.applies_to)
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret
        self._late: Callable[[], object] | None = None

    def arm(self, at: int | None) -> None:
        """Go wrong at the ``at``-th call from now to which the fault applies; ``None``: work, and do what is late."""
        self._trigger.arm(at)
        if at is None:
            self._catch_up()

    @property
    def struck(self) -> str:
        """Name of the call that went wrong since :meth:`arm`; empty when none has yet."""
        return self._trigger.struck

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def capabilities(self) -> Capabilities:
        return self.inner.capabilities

    def stage(self) -> Staged:
        return self._call("stage", lambda: _FaultyStaged(self, self.inner.stage()))

    def publish(self, staged: Staged, name: str) -> Pending:
        return self._call("publish", lambda: self.inner.publish(_unwrapped(staged), name), staged)

    def barrier(self, pending: Sequence[Pending]) -> None:
        self._call("barrier", lambda: self.inner.barrier(pending))

    def commit(self, staged: Staged, name: str) -> None:
        self._call("commit", lambda: self.inner.commit(_unwrapped(staged), name), staged)

    def create(self, name: str, *buffers: Buffer) -> None:
        self._call("create", lambda: self.inner.create(name, *buffers))

    def read(self, name: str) -> bytes:
        return self._wrong(*self._asked("read", lambda: self.inner.read(name)))

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self._wrong(*self._asked("read_range", lambda: self.inner.read_range(name, offset, length)))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_range(name, offset, length) for offset, length in ranges]

    def size(self, name: str) -> int:
        return self._call("size", lambda: self.inner.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        # Asked for late, as every listing is; it may fail in the middle, too.
        yield from self._call("list", lambda: self.inner.list(prefix))

    def delete(self, *names: str) -> None:
        self._call("delete", lambda: self.inner.delete(*names))

    def retain(self, name: str, until_ns: int) -> None:
        self.inner.retain(name, until_ns)

    def lease(self, name: str) -> Lease:
        return self._call("lease", lambda: self.inner.lease(name))

    def leases(self) -> Sequence[LeaseInfo]:
        return self._call("leases", self.inner.leases)

    # --- inside ---

    def write(self, staged: Staged, buffers: Sequence[Buffer]) -> None:
        """What a staged object of this storage does to write."""
        self._catch_up()
        if not self._trigger.fires("write"):
            staged.write(*buffers)
            return
        if self.fault is Fault.TORN:
            whole = b"".join(buffers)
            staged.write(whole[: len(whole) // 2])
        staged.discard()
        raise self._error("write")

    def _call(self, name: str, effect: Callable[[], _Result], staged: Staged | None = None) -> _Result:
        self._catch_up()
        if not self._trigger.fires(name):
            return effect()
        if self.fault is Fault.LOST_ANSWER:
            effect()
        elif self.fault is Fault.LATE:
            self._late = effect
            if isinstance(staged, _FaultyStaged):
                staged.under_way = True
        elif staged is not None:
            # As every storage does: what could not be published is gone.
            _unwrapped(staged).discard()
        raise self._error(name)

    def _asked(self, name: str, effect: Callable[[], bytes]) -> tuple[bytes, bool]:
        if self.fault not in (Fault.FLIPPED, Fault.CUT_OFF):
            return self._call(name, effect), False
        return effect(), self._trigger.fires(name)

    def _wrong(self, data: bytes, wrong: bool) -> bytes:
        if not wrong or not data:
            return data
        if self.fault is Fault.CUT_OFF:
            return data[: self._rng.randrange(len(data))]
        flipped = bytearray(data)
        flipped[self._rng.randrange(len(data))] ^= 1 << self._rng.randrange(8)
        return bytes(flipped)

    def _catch_up(self) -> None:
        late, self._late = self._late, None
        if late is not None:
            with contextlib.suppress(PerdureError):
                late()

    def _error(self, name: str) -> StorageFailed | StorageFull:
        text = f"{name} on {self.url}: {self.fault}"
        return StorageFull(text) if self.fault is Fault.FULL else StorageFailed(text)


class _FaultyStaged:
    """A staged object of a faulty storage."""

    def __init__(self, storage: FaultyStorage, inner: Staged) -> None:
        self._storage = storage
        self.inner = inner
        self.under_way = False

    @property
    def size(self) -> int:
        return self.inner.size

    def write(self, *buffers: Buffer) -> None:
        self._storage.write(self.inner, buffers)

    def discard(self) -> None:
        if not self.under_way:
            self.inner.discard()


def _unwrapped(staged: Staged) -> Staged:
    return staged.inner if isinstance(staged, _FaultyStaged) else staged


class SystemFault(StrEnum):
    """What goes wrong in a system call."""

    EIO = "input/output error"
    EIO_AFTER = "input/output error after the effect"
    ENOSPC = "no space left on device"
    EDQUOT = "disk quota exceeded"
    EINTR = "interrupted by a signal"
    SHORT = "less is read or written than was asked for"

    @property
    def applies_to(self) -> frozenset[str]:
        """Names of the system calls that can go wrong in this way."""
        match self:
            case SystemFault.EIO:
                return frozenset(
                    {"create", "open", "lock", "writev", "pread", "fstat", "stat", "fsync", "fsync_directory"}
                    | {"link", "unlink", "mkdir", "scan", "close"}
                )
            case SystemFault.EIO_AFTER:
                return frozenset({"create", "fsync", "fsync_directory", "link", "unlink", "mkdir", "close"})
            case SystemFault.ENOSPC | SystemFault.EDQUOT:
                return frozenset({"create", "writev", "fsync", "fsync_directory", "link", "mkdir"})
            case SystemFault.EINTR:
                return frozenset({"open", "create", "lock", "writev", "pread", "fsync", "close"})
            case SystemFault.SHORT:
                return frozenset({"writev", "pread"})

    @property
    def number(self) -> int:
        """The error number."""
        return errno.EIO if self is SystemFault.EIO_AFTER else int(getattr(errno, self.name, 0))


class FaultyFileSystem:
    """A file system whose N-th call goes wrong. Implements ``FileSystem``.

    Args:
        inner: The file system that does the work.
        fault: What goes wrong.
    """

    def __init__(self, inner: FileSystem, fault: SystemFault) -> None:
        self.inner = inner
        self.fault = fault
        self._trigger = _Trigger(fault.applies_to)

    def arm(self, at: int | None) -> None:
        """Go wrong at the ``at``-th call from now to which the fault applies; ``None``: work."""
        self._trigger.arm(at)

    @property
    def struck(self) -> str:
        """Name of the call that went wrong since :meth:`arm`; empty when none has yet."""
        return self._trigger.struck

    def create(self, path: Path) -> int:
        return self._call("create", lambda: self.inner.create(path), undo=self.inner.close)

    def open(self, path: Path, *, write: bool = False) -> int:
        return self._call("open", lambda: self.inner.open(path, write=write))

    def close(self, fd: int) -> None:
        # Linux closes the descriptor whatever it reports.
        try:
            self._call("close", lambda: None)
        finally:
            self.inner.close(fd)

    def lock(self, fd: int, *, wait: bool) -> None:
        self._call("lock", lambda: self.inner.lock(fd, wait=wait))

    def writev(self, fd: int, buffers: Sequence[memoryview]) -> int:
        if self.fault is SystemFault.SHORT and self._trigger.fires("writev"):
            whole = b"".join(buffers)
            return self.inner.writev(fd, [memoryview(whole)[: max(1, len(whole) // 3)]])
        return self._call("writev", lambda: self.inner.writev(fd, buffers))

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        if self.fault is SystemFault.SHORT and self._trigger.fires("pread"):
            return self.inner.pread(fd, max(1, length // 3), offset)
        return self._call("pread", lambda: self.inner.pread(fd, length, offset))

    def fstat(self, fd: int) -> FileStatus:
        return self._call("fstat", lambda: self.inner.fstat(fd))

    def stat(self, path: Path) -> FileStatus:
        return self._call("stat", lambda: self.inner.stat(path))

    def fsync(self, fd: int) -> None:
        self._call("fsync", lambda: self.inner.fsync(fd))

    def fsync_directory(self, path: Path) -> None:
        self._call("fsync_directory", lambda: self.inner.fsync_directory(path))

    def link(self, source: Path, target: Path) -> None:
        self._call("link", lambda: self.inner.link(source, target))

    def unlink(self, path: Path) -> None:
        self._call("unlink", lambda: self.inner.unlink(path))

    def mkdir(self, path: Path) -> None:
        self._call("mkdir", lambda: self.inner.mkdir(path))

    def scan(self, path: Path) -> list[FileEntry]:
        return self._call("scan", lambda: self.inner.scan(path))

    def _call(
        self, name: str, effect: Callable[[], _Result], undo: Callable[[_Result], object] = lambda _: None
    ) -> _Result:
        if self.fault is SystemFault.SHORT or not self._trigger.fires(name):
            return effect()
        if self.fault is SystemFault.EIO_AFTER:
            undo(effect())
        raise OSError(self.fault.number, os.strerror(self.fault.number))


_check_storage: type[Storage] = FaultyStorage
_check_filesystem: type[FileSystem] = FaultyFileSystem

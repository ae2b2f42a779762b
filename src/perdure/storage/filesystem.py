"""The system calls that a local storage needs, as a seam: the operating system, or a simulated one in tests.

Nothing here interprets anything: calls raise :class:`OSError` as the operating system does, and
:func:`storage_error` says what such an error means to a person.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perdure.storage.contract import StorageFailed, StorageFull, StorageReadOnly

__all__ = ["FileEntry", "FileStatus", "FileSystem", "OperatingSystem", "storage_error"]


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What ``stat`` tells.

    Args:
        directory: Whether it is a directory.
        size: Bytes.
        links: Names that it has; 0 when it was unlinked while open.
        modified_ns: Modification time, nanoseconds since 1970 UTC.
    """

    directory: bool
    size: int
    links: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One name in a directory: a regular file or a directory; links are not followed, other kinds are left out.

    Args:
        name: Its name there.
        directory: Whether it is a directory.
        size: Bytes of a file.
        modified_ns: Modification time of a file, nanoseconds since 1970 UTC.
    """

    name: str
    directory: bool
    size: int = 0
    modified_ns: int = 0


class FileSystem(Protocol):
    """System calls of a POSIX file system. All of them raise :class:`OSError`, and may be called from several threads.

    A crash loses what was not synced: a file's data survives from :meth:`fsync` on, and a name (given by
    :meth:`create`, :meth:`link` or :meth:`mkdir`, taken by :meth:`unlink`) from :meth:`fsync_directory` of the
    directory that holds it on.
    """

    def create(self, path: Path) -> int:
        """Make a file that must not exist; returns a descriptor for writing."""
        ...

    def open(self, path: Path, *, write: bool = False) -> int:
        """A descriptor of a file that exists, for reading or for both."""
        ...

    def close(self, fd: int) -> None: ...

    def lock(self, fd: int, *, wait: bool) -> None:
        """Lock exclusively (``flock``) until the descriptor is closed.

        Raises:
            BlockingIOError: Somebody else has it, and ``wait`` is false.
        """
        ...

    def writev(self, fd: int, buffers: Sequence[memoryview]) -> int:
        """Append; returns how many bytes were taken, at least one."""
        ...

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """At most ``length`` bytes from ``offset``; none only at the end."""
        ...

    def fstat(self, fd: int) -> FileStatus: ...

    def stat(self, path: Path) -> FileStatus: ...

    def fsync(self, fd: int) -> None: ...

    def fsync_directory(self, path: Path) -> None: ...

    def link(self, source: Path, target: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...

    def mkdir(self, path: Path) -> None: ...

    def scan(self, path: Path) -> list[FileEntry]:
        """What a directory holds, in order of the names."""
        ...


class OperatingSystem:
    """The real one."""

    def create(self, path: Path) -> int:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)

    def open(self, path: Path, *, write: bool = False) -> int:
        return os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        os.close(fd)

    def lock(self, fd: int, *, wait: bool) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)

    def writev(self, fd: int, buffers: Sequence[memoryview]) -> int:
        return os.writev(fd, buffers)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return os.pread(fd, length, offset)

    def fstat(self, fd: int) -> FileStatus:
        return _status(os.fstat(fd))

    def stat(self, path: Path) -> FileStatus:
        return _status(path.stat())

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fsync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def mkdir(self, path: Path) -> None:
        path.mkdir(mode=0o700)

    def scan(self, path: Path) -> list[FileEntry]:
        found = []
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    found.append(FileEntry(entry.name, directory=True))
                elif entry.is_file(follow_symlinks=False):
                    try:
                        now = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    found.append(FileEntry(entry.name, False, now.st_size, now.st_mtime_ns))
        return found


def _status(found: os.stat_result) -> FileStatus:
    return FileStatus(stat.S_ISDIR(found.st_mode), found.st_size, found.st_nlink, found.st_mtime_ns)


def storage_error(error: OSError, what: str) -> StorageFailed | StorageFull | StorageReadOnly:
    """The storage error that an operating-system error means to a person."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(text, hint="free space in the pool's file system; nothing that was acknowledged is lost")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageReadOnly(
            text, hint="this user must be able to write to the pool to protect; recovery still works"
        )
    return StorageFailed(text, hint="check the pool's disk, then run the command again")


_check: type[FileSystem] = OperatingSystem

"""The raw files of a live SQLite database: descriptors, how long they live, whether they are still the right files.

POSIX record locks, which SQLite uses, belong to a process and an inode. When a process closes *any* descriptor of a
file, the
kernel drops *all* locks that the process has on it, those of SQLite's own descriptors included. A stray ``open`` and
``close`` of the database or its ``-shm`` in this process would silently end our hold, and another process could then
restart the WAL under us. So the descriptors here are opened before our connections use the file, live as long as the
session, and are closed only after every connection is closed; and whoever else in this process wants a look at the
database's header (:func:`read_head`) goes through the descriptor that is already open. The ``-wal`` carries no locks.

One session per source: an ``flock`` on the database's descriptor. On Linux's local file systems ``flock`` and record
locks do
not see each other, so this is invisible to SQLite.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import threading
from pathlib import Path

from perdure.model.errors import Refused, SourceUnusable, TrackingLost
from perdure.workloads.sqlite.walindex import HEAD_SIZE, IndexHeader, read_index_header

__all__ = ["SourceFiles", "companions", "held_by_session", "read_head", "source_missing"]

_registry_lock = threading.Lock()
_registry: dict[tuple[int, int], int] = {}


def companions(path: Path) -> tuple[Path, Path]:
    """The paths of a database's ``-wal`` and ``-shm``."""
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def source_missing(path: Path) -> SourceUnusable:
    """The error for a database that is not there."""
    return SourceUnusable(
        f"there is no database at {path}",
        code="source-missing",
        hint="check the path; if the file was deleted, its recovery points are kept: `perdure recover` brings it back",
    )


def held_by_session(path: Path) -> bool:
    """Whether a session of this process has the database open."""
    status = path.stat()
    with _registry_lock:
        return (status.st_dev, status.st_ino) in _registry


def read_head(path: Path, length: int) -> bytes:
    """The first bytes of a database file, without ever closing a descriptor that a session's locks hang on.

    Raises:
        OSError: It cannot be read.
    """
    status = path.stat()
    with _registry_lock:
        held = _registry.get((status.st_dev, status.st_ino))
        if held is not None:
            return os.pread(held, length, 0)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.pread(fd, length, 0)
        finally:
            os.close(fd)


class SourceFiles:
    """The descriptors of one database.

    Args:
        path: The database file, symbolic links resolved.

    Raises:
        SourceUnusable: It cannot be opened.
        Refused: Another perdure process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal_path, self.shm_path = companions(path)
        self.database = _open_database(path)
        self.wal = -1
        self._shm = -1
        self._index: mmap.mmap | None = None
        self._key = _identity(os.fstat(self.database))

    def attach(self) -> None:
        """Open the ``-wal`` and map the ``-shm``; both exist once a connection has read from the database.

        Raises:
            SourceUnusable: They are not there or cannot be read.
        """
        try:
            self.wal = os.open(self.wal_path, os.O_RDONLY | os.O_CLOEXEC)
            self._shm = os.open(self.shm_path, os.O_RDONLY | os.O_CLOEXEC)
            self._index = mmap.mmap(self._shm, HEAD_SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise SourceUnusable(
                f"the companions of {self.path} cannot be read ({error}), so its log cannot be followed",
                code="companions-unreadable",
                hint=f"check the permissions of {self.wal_path.name} and {self.shm_path.name}",
            ) from error

    def index(self) -> IndexHeader | None:
        """The WAL-index header now; ``None`` while it is being changed."""
        assert self._index is not None
        return read_index_header(memoryview(self._index))

    def check(self) -> None:
        """See whether the paths still lead to the open files.

        Raises:
            SourceUnusable: The database is gone.
            TrackingLost: The database, its ``-wal`` or its ``-shm`` is another file now, or a companion is gone.
        """
        for path, fd in ((self.path, self.database), (self.wal_path, self.wal), (self.shm_path, self._shm)):
            try:
                now = _identity(path.stat())
            except FileNotFoundError:
                if path == self.path:
                    raise source_missing(path) from None
                raise TrackingLost(f"{path} was removed while the database was in use", code="file-removed") from None
            if now != _identity(os.fstat(fd)):
                raise TrackingLost(f"{path} was replaced by another file", code="file-replaced")

    def close(self) -> None:
        """Close everything. Only after the connections."""
        if self._index is not None:
            self._index.close()
            self._index = None
        with _registry_lock:
            for fd in (self.wal, self._shm, self.database):
                if fd >= 0:
                    os.close(fd)
            if self.database >= 0:
                _registry.pop(self._key, None)
        self.wal = self._shm = self.database = -1


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _open_database(path: Path) -> int:
    busy = Refused(
        f"another perdure process holds {path}: two at once would recycle each other's log",
        code="source-busy",
        hint="stop the other one (`perdure watch`?), or let it do the work",
    )
    with _registry_lock:
        try:
            status = path.stat()
            if _identity(status) in _registry:
                # Opening and closing it here would drop that session's locks.
                raise busy
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise source_missing(path) from None
        except OSError as error:
            raise SourceUnusable(f"{path} cannot be opened: {error.strerror}", code="no-permission") from error
        try:
            opened = os.fstat(fd)
            if not stat.S_ISREG(opened.st_mode):
                raise SourceUnusable(f"{path} is not a regular file", code="not-a-file")  # noqa: TRY301 - closed below
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise busy from None
            raise
        except SourceUnusable:
            os.close(fd)
            raise
        _registry[_identity(opened)] = fd
        return fd

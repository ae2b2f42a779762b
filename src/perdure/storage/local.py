"""A local directory as storage.

An object is written to ``tmp/`` under a random name, fsynced, linked to its name with ``link(2)`` (which
never overwrites), and its directory is fsynced; then the temporary name is removed. Large objects are
fsynced by a thread of their own as soon as they are complete, so that a capture does not wait for the disk
until its barrier.

A staged file is flocked while its writer lives. A temporary file whose lock can be taken was left by a
process that died; it is removed when the next writer starts. A lease is such a file in ``tmp/leases/``, so it
ends with its holder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from perdure.model.errors import NotFound, Refused
from perdure.storage.contract import (
    Buffer,
    Capabilities,
    Lease,
    LeaseInfo,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    Pending,
    Staged,
    Storage,
    StorageFailed,
    StorageFull,
    StorageReadOnly,
)
from perdure.storage.names import check_name

__all__ = ["LocalStorage"]

_TEMPORARY = "tmp"
_LEASES = "leases"
_NO_SUCH_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


def _translated(error: OSError, what: str) -> StorageFailed | StorageFull | StorageReadOnly:
    """The storage error that an operating-system error means to a person."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(text, hint="free space in the pool's file system; nothing that was acknowledged is lost")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StorageReadOnly(
            text, hint="this user must be able to write to the pool to protect; recovery still works"
        )
    return StorageFailed(text, hint="check the pool's disk, then run the command again")


class _StagedFile:
    """A temporary file, locked by its living writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        try:
            self._fd = self._open_locked(path)
        except OSError as error:
            raise _translated(error, f"cannot write to the pool at {path.parent.parent}") from error

    @staticmethod
    def _open_locked(path: Path) -> int:
        """Create and lock; again if a sweep took the file between the two."""
        while True:
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)

    def write(self, *buffers: Buffer) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        try:
            while views:
                written = os.writev(self._fd, views)
                self.size += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]
        except OSError as error:
            self.discard()
            raise _translated(error, f"cannot write to the pool at {self.path.parent.parent}") from error

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.close()


class _LeaseFile(_StagedFile):
    """A lease: a temporary file that its living holder has locked; nothing is ever written to it."""

    def renew(self) -> None:
        """The lock says it all."""

    def release(self) -> None:
        self.discard()


class LocalStorage:
    """Objects as files below a root directory."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        """Open a directory.

        Args:
            root: The directory.
            create: Make it if it is missing.

        Raises:
            NotFound: It is missing and ``create`` is false.
            StorageFailed: It cannot be used.
        """
        self.root = root.absolute()
        self._syncing = ThreadPoolExecutor(1, thread_name_prefix="pool-fsync")
        self._lock = threading.Lock()
        self._swept = False
        try:
            if create:
                self._make_directory(self.root)
            elif not self.root.is_dir():
                raise NotFound(
                    f"there is no storage pool at {self.root}",
                    code="pool-missing",
                    hint="check the path, or make a pool with: perdure pool create PATH",
                )
        except OSError as error:
            raise _translated(error, f"cannot use {self.root}") from error

    @property
    def url(self) -> str:
        return str(self.root)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(local=True, liveness=True)

    # --- writing ---

    def stage(self) -> Staged:
        return self._stage()

    def publish(self, staged: Staged, name: str) -> Pending:
        assert isinstance(staged, _StagedFile)
        return self._syncing.submit(self._publish_now, staged, self._path(name))

    def barrier(self, pending: Sequence[Pending]) -> None:
        directories: set[Path] = set()
        failure: BaseException | None = None
        for publication in pending:
            assert isinstance(publication, Future)
            failure = failure or publication.exception()
            if publication.exception() is None:
                directories.add(publication.result())
        if failure is not None:
            raise failure
        for directory in sorted(directories):
            self._sync_directory(directory)

    def commit(self, staged: Staged, name: str) -> None:
        assert isinstance(staged, _StagedFile)
        self._sync_directory(self._publish_now(staged, self._path(name)))

    def create(self, name: str, *buffers: Buffer) -> None:
        staged = self._stage()
        staged.write(*buffers)
        self.commit(staged, name)

    def delete(self, *names: str) -> None:
        directories: set[Path] = set()
        for path in map(self._path, names):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise _translated(error, f"cannot remove {path}") from error
            directories.add(path.parent)
        for directory in sorted(directories):
            if directory.is_dir():
                self._sync_directory(directory)

    def retain(self, name: str, until_ns: int) -> None:
        raise Refused(
            f"{name} cannot be locked until {until_ns}: a local directory has no immutability",
            code="no-immutability",
            hint="keep a second copy on an object store with object lock",
        )

    # --- leases ---

    def lease(self, name: str) -> Lease:
        directory = self.root / _TEMPORARY / _LEASES
        try:
            self._make_directory(directory)
        except OSError as error:
            raise _translated(error, f"cannot write to the pool at {self.root}") from error
        return _LeaseFile(directory / name)

    def leases(self) -> Sequence[LeaseInfo]:
        directory = self.root / _TEMPORARY / _LEASES
        try:
            if not directory.is_dir():
                return []
            self._sweep(directory)
            return [LeaseInfo(path.name, 0.0) for path in sorted(directory.iterdir())]
        except OSError as error:
            raise _translated(error, f"cannot list the leases of the pool at {self.root}") from error

    # --- reading ---

    def read(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except _NO_SUCH_FILE as error:
            raise ObjectMissing(f"the pool at {self.root} has no object {name}") from error
        except OSError as error:
            raise _translated(error, f"cannot read {name} in the pool at {self.root}") from error

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        try:
            fd = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
        except _NO_SUCH_FILE as error:
            raise ObjectMissing(f"the pool at {self.root} has no object {name}") from error
        except OSError as error:
            raise _translated(error, f"cannot read {name} in the pool at {self.root}") from error
        try:
            data = os.pread(fd, length, offset)
            while len(data) < length:
                more = os.pread(fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data
        except IsADirectoryError as error:
            raise ObjectMissing(f"the pool at {self.root} has no object {name}") from error
        except OSError as error:
            raise _translated(error, f"cannot read {name} in the pool at {self.root}") from error
        finally:
            os.close(fd)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        if not ranges:
            self.size(name)
        return [self.read_range(name, offset, length) for offset, length in ranges]

    def size(self, name: str) -> int:
        try:
            found = self._path(name).stat()
        except _NO_SUCH_FILE as error:
            raise ObjectMissing(f"the pool at {self.root} has no object {name}") from error
        except OSError as error:
            raise _translated(error, f"cannot look at {name} in the pool at {self.root}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ObjectMissing(f"the pool at {self.root} has no object {name}")
        return found.st_size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start = self._path(prefix) if prefix else self.root
        try:
            yield from self._list_below(start, prefix)
        except OSError as error:
            raise _translated(error, f"cannot list the pool at {self.root}") from error

    # --- inside ---

    def _list_below(self, directory: Path, prefix: str) -> Iterator[ObjectInfo]:
        if not directory.is_dir():
            return
        with os.scandir(directory) as found:
            # A folder sorts as the names below it do: "a-b" comes before "a/b".
            entries = sorted(found, key=lambda entry: f"{entry.name}/" if entry.is_dir() else entry.name)
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir(follow_symlinks=False):
                if name != _TEMPORARY:
                    yield from self._list_below(Path(entry.path), name)
            elif entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found_now = entry.stat(follow_symlinks=False)
                    yield ObjectInfo(name, found_now.st_size, found_now.st_mtime_ns)

    def _path(self, name: str) -> Path:
        return self.root.joinpath(*check_name(name))

    def _stage(self) -> _StagedFile:
        directory = self.root / _TEMPORARY
        try:
            self._make_directory(directory)
        except OSError as error:
            raise _translated(error, f"cannot write to the pool at {self.root}") from error
        with self._lock:
            sweep, self._swept = not self._swept, True
        if sweep:
            self._sweep(directory)
        return _StagedFile(directory / secrets.token_hex(12))

    def _publish_now(self, staged: _StagedFile, path: Path) -> Path:
        try:
            staged.sync()
            self._make_directory(path.parent)
            os.link(staged.path, path)
        except FileExistsError as error:
            raise ObjectExists(f"{path} exists already; objects are never overwritten") from error
        except OSError as error:
            raise _translated(error, f"cannot write {path}") from error
        finally:
            staged.discard()
        return path.parent

    def _make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make_directory(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        self._sync_directory(path.parent)

    @staticmethod
    def _sync_directory(path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _translated(error, f"cannot make {path} durable") from error

    @staticmethod
    def _sweep(directory: Path) -> None:
        for left in directory.iterdir():
            if left.name == _LEASES:
                continue
            with contextlib.suppress(OSError):
                fd = os.open(left, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()
                finally:
                    os.close(fd)


_check: type[Storage] = LocalStorage

"""A local directory as storage.

An object is written to ``tmp/`` under a random name, fsynced, linked to its name with ``link(2)`` (which
never overwrites), and its directory is fsynced; then the temporary name is removed. Large objects are
fsynced by threads of their own as soon as they are complete, so that a capture does not wait for the disk
until its barrier.

A staged file is flocked while its writer lives. A temporary file whose lock can be taken was left by a
process that died; it is removed when the next writer starts. A lease is such a file in ``tmp/leases/``, so it
ends with its holder.

What a listing shows may be the work of a process that was killed between its link and its directory's fsync:
visible, but undone if power fails soon. Others lean on what they see: a workload goes on after the last log segment
in the pool, a capture does not store again what is there, a collection removes what no record names. So a listing
of one directory fsyncs it before it is given out; one of many directories notes them, and they are
fsynced before anything else is acknowledged or removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

from perdure.model.errors import NotFound, PerdureError, Refused
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
)
from perdure.storage.filesystem import FileSystem, OperatingSystem, storage_error
from perdure.storage.names import check_name
from perdure.storage.staged_file import LeaseFile, StagedFile, sweep

__all__ = ["LocalStorage"]

_TEMPORARY = "tmp"
_LEASES = "leases"
_FSYNCS = 8
"""Files that are made durable at once: one commit of the file system's journal serves them all."""

_GONE = (FileNotFoundError, NotADirectoryError)
_NO_OBJECT = (*_GONE, IsADirectoryError)


class LocalStorage:
    """Objects as files below a root directory."""

    def __init__(
        self,
        root: Path,
        *,
        create: bool = False,
        filesystem: FileSystem | None = None,
        syncing: Executor | None = None,
    ) -> None:
        """Open a directory.

        Args:
            root: The directory.
            create: Make it if it is missing.
            filesystem: The system calls; the operating system's by default.
            syncing: Runs publications; threads of this storage by default. Names are given in the order in which
                they were asked for, whichever file is durable first.

        Raises:
            NotFound: It is missing and ``create`` is false.
            StorageFailed: It cannot be used.
        """
        self.root = root.absolute()
        self._filesystem = filesystem or OperatingSystem()
        self._syncing = syncing or ThreadPoolExecutor(1, thread_name_prefix="pool-names")
        self._fsyncs = None if syncing else ThreadPoolExecutor(_FSYNCS, thread_name_prefix="pool-fsync")
        self._lock = threading.Lock()
        self._swept = False
        self._made: set[Path] = set()
        self._listed: dict[Path, object] = {}
        try:
            if create:
                self._make_root()
            elif not self._is_directory(self.root):
                raise NotFound(
                    f"there is no storage pool at {self.root}",
                    code="pool-missing",
                    hint="check the path, or make a pool with: perdure pool create PATH",
                )
        except OSError as error:
            raise storage_error(error, f"cannot use {self.root}") from error

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
        assert isinstance(staged, StagedFile)
        path = self._path(name)
        durable = None if self._fsyncs is None else self._fsyncs.submit(staged.sync)
        return self._syncing.submit(self._publish_now, staged, path, durable)

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
        self._make_names_durable(directories)

    def commit(self, staged: Staged, name: str) -> None:
        assert isinstance(staged, StagedFile)
        self._make_names_durable([self._publish_now(staged, self._path(name))])

    def create(self, name: str, *buffers: Buffer) -> None:
        path = self._path(name)
        staged = self._stage()
        staged.write(*buffers)
        self._make_names_durable([self._publish_now(staged, path)])

    def delete(self, *names: str) -> None:
        self._settle()
        directories: set[Path] = set()
        for path in map(self._path, names):
            try:
                self._filesystem.unlink(path)
            except _GONE:
                pass
            except OSError as error:
                raise storage_error(error, f"cannot remove {path}") from error
            directories.add(path.parent)
        for directory in sorted(directories):
            self._fsync_directory(directory, may_be_gone=True)

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
            raise storage_error(error, f"cannot write to the pool at {self.root}") from error
        return LeaseFile(self._filesystem, directory / name)

    def leases(self) -> Sequence[LeaseInfo]:
        directory = self.root / _TEMPORARY / _LEASES
        try:
            sweep(self._filesystem, directory)
            return [LeaseInfo(found.name, 0.0) for found in self._filesystem.scan(directory)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, f"cannot list the leases of the pool at {self.root}") from error

    # --- reading ---

    def read(self, name: str) -> bytes:
        with self._opened(name) as fd:
            return self._read_up_to(fd, 0, self._filesystem.fstat(fd).size)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        return self.read_ranges(name, [(offset, length)])[0]

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._opened(name) as fd:
            # The operating system takes memory for all that it is asked for, so it is not asked for more than there is.
            size = self._filesystem.fstat(fd).size
            return [self._read_up_to(fd, offset, min(length, size - offset)) for offset, length in ranges]

    def size(self, name: str) -> int:
        try:
            found = self._filesystem.stat(self._path(name))
            if found.directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        except OSError as error:
            raise self._unreadable(name, error) from error
        return found.size

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        start = self._path(prefix) if prefix else self.root
        try:
            yield from self._list_below(start, prefix, alone=True)
        except OSError as error:
            raise storage_error(error, f"cannot list the pool at {self.root}") from error

    # --- inside ---

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        try:
            fd = self._filesystem.open(self._path(name))
            try:
                yield fd
            finally:
                self._filesystem.close(fd)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _read_up_to(self, fd: int, offset: int, length: int) -> bytes:
        data = self._filesystem.pread(fd, length, offset) if length > 0 else b""
        while len(data) < length:
            more = self._filesystem.pread(fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _unreadable(self, name: str, error: OSError) -> PerdureError:
        if isinstance(error, _NO_OBJECT):
            return ObjectMissing(f"the pool at {self.root} has no object {name}")
        return storage_error(error, f"cannot read {name} in the pool at {self.root}")

    def _list_below(self, directory: Path, prefix: str, *, alone: bool) -> Iterator[ObjectInfo]:
        try:
            entries = self._filesystem.scan(directory)
        except _GONE:
            return
        with self._lock:
            self._listed[directory] = object()
        if alone and not any(entry.directory for entry in entries):
            # Where this fails, reading goes on: the next acknowledgement fails.
            with contextlib.suppress(PerdureError):
                self._settle(directory)
        # A folder sorts as the names below it do: "a-b" comes before "a/b".
        for entry in sorted(entries, key=lambda entry: f"{entry.name}/" if entry.directory else entry.name):
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if not entry.directory:
                yield ObjectInfo(name, entry.size, entry.modified_ns)
            elif name != _TEMPORARY:
                yield from self._list_below(directory / entry.name, name, alone=False)

    def _path(self, name: str) -> Path:
        return self.root.joinpath(*check_name(name))

    def _stage(self) -> StagedFile:
        directory = self.root / _TEMPORARY
        with self._lock:
            first, self._swept = not self._swept, True
        try:
            self._make_directory(directory)
            if first:
                sweep(self._filesystem, directory)
        except OSError as error:
            raise storage_error(error, f"cannot write to the pool at {self.root}") from error
        return StagedFile(self._filesystem, directory / secrets.token_hex(12))

    def _publish_now(self, staged: StagedFile, path: Path, durable: Future[None] | None = None) -> Path:
        try:
            if durable is None:
                staged.sync()
            else:
                durable.result()
            self._make_directory(path.parent)
            self._filesystem.link(staged.path, path)
        except FileExistsError as error:
            raise ObjectExists(f"{path} exists already; objects are never overwritten") from error
        except OSError as error:
            raise storage_error(error, f"cannot write {path}") from error
        finally:
            staged.discard()
        return path.parent

    def _make_names_durable(self, directories: Iterable[Path]) -> None:
        """Fsync directories in which names were given, and those that were listed since they were last fsynced."""
        self._settle()
        for directory in sorted(set(directories)):
            self._fsync_directory(directory)

    def _settle(self, *directories: Path) -> None:
        """Fsync these directories, by default all, that were listed since they were last fsynced."""
        with self._lock:
            listed = {path: seen for path, seen in self._listed.items() if not directories or path in directories}
        for directory in sorted(listed):
            self._fsync_directory(directory, may_be_gone=True)
        with self._lock:
            # One that was listed anew meanwhile stays noted.
            for directory, seen in listed.items():
                if self._listed.get(directory) is seen:
                    del self._listed[directory]

    def _fsync_directory(self, path: Path, *, may_be_gone: bool = False) -> None:
        try:
            self._filesystem.fsync_directory(path)
        except OSError as error:
            if not (may_be_gone and isinstance(error, _GONE)):
                raise storage_error(error, f"cannot make {path} durable") from error

    def _is_directory(self, path: Path) -> bool:
        try:
            return self._filesystem.stat(path).directory
        except _GONE:
            return False

    def _make_root(self) -> None:
        """Make the root and what is missing above it; what is there above it is somebody else's, and is left alone."""
        missing = []
        path = self.root
        while not self._is_directory(path):
            missing.append(path)
            path = path.parent
        for made in reversed(missing):
            with contextlib.suppress(FileExistsError):
                self._filesystem.mkdir(made)
            self._filesystem.fsync_directory(made.parent)
        if not self._is_directory(self.root):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not missing:
            with contextlib.suppress(PermissionError):
                self._filesystem.fsync_directory(self.root.parent)

    def _make_directory(self, path: Path) -> None:
        """Make a directory below the root durable.

        One that is there may have been made by somebody who has not fsynced its name yet, and may never do so; so
        the first time that this storage needs a directory, it fsyncs the one above.
        """
        there = path == self.root or self._is_directory(path)
        if there and (path == self.root or path in self._made):
            return
        self._make_directory(path.parent)
        if not there:
            with contextlib.suppress(FileExistsError):
                self._filesystem.mkdir(path)
        self._filesystem.fsync_directory(path.parent)
        self._made.add(path)


_check: type[Storage] = LocalStorage

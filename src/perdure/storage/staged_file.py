"""Files under construction, and leases: temporary files that their living writer has locked."""

from __future__ import annotations

import contextlib
from pathlib import Path

from perdure.storage.contract import Buffer
from perdure.storage.filesystem import FileSystem, storage_error

__all__ = ["LeaseFile", "StagedFile", "sweep"]


class StagedFile:
    """A temporary file, locked by its living writer.

    Args:
        filesystem: Where it is made.
        path: Its name; nothing has it yet.

    Raises:
        StorageFull: And the other storage errors: it cannot be made.
    """

    def __init__(self, filesystem: FileSystem, path: Path) -> None:
        self._filesystem = filesystem
        self.path = path
        self.size = 0
        self._fd = -1
        try:
            self._open_locked()
        except OSError as error:
            self.discard()
            raise storage_error(error, self._what()) from error

    def _open_locked(self) -> None:
        """Create and lock; again if a sweep took the file between the two."""
        while True:
            self._fd = self._filesystem.create(self.path)
            self._filesystem.lock(self._fd, wait=True)
            if self._filesystem.fstat(self._fd).links:
                return
            self._close()

    def write(self, *buffers: Buffer) -> None:
        views = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        try:
            while views:
                written = self._filesystem.writev(self._fd, views)
                self.size += written
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]
        except OSError as error:
            self.discard()
            raise storage_error(error, self._what()) from error

    def sync(self) -> None:
        self._filesystem.fsync(self._fd)

    def discard(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._filesystem.unlink(self.path)
            with contextlib.suppress(OSError):
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._filesystem.close(fd)

    def _what(self) -> str:
        return f"cannot write to the pool at {self.path.parent.parent}"


class LeaseFile(StagedFile):
    """A lease: nothing is ever written to it."""

    def renew(self) -> None:
        """The lock says it all."""

    def release(self) -> None:
        self.discard()


def sweep(filesystem: FileSystem, directory: Path) -> None:
    """Remove the files of writers that are dead: those whose lock can be taken.

    Raises:
        OSError: The directory cannot be read. A file that cannot be removed stays; the next sweep tries again.
    """
    for left in filesystem.scan(directory):
        if left.directory:
            continue
        path = directory / left.name
        with contextlib.suppress(OSError):
            fd = filesystem.open(path, write=True)
            try:
                filesystem.lock(fd, wait=False)
                filesystem.unlink(path)
            finally:
                filesystem.close(fd)

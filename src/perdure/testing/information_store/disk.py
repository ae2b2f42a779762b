"""The disk under an engine: real files that know what a power cut may take back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

__all__ = ["Disk", "DiskFile"]


@dataclass(frozen=True, slots=True)
class _Unsynced:
    offset: int
    before: bytes
    after: bytes


@dataclass(eq=False, repr=False)
class DiskFile:
    """One open file.

    Args:
        disk: Whose it is.
        path: Where it lies now.
        descriptor: Of the operating system.
    """

    disk: Disk
    path: Path
    descriptor: int
    unsynced: list[_Unsynced] = field(default_factory=list)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file, as many as are there."""
        return os.pread(self.descriptor, size, offset)

    def write(self, offset: int, content: bytes | bytearray) -> None:
        """Overwrite bytes; they are durable after the next :meth:`sync`."""
        if self.disk.may_lose_power:
            before = os.pread(self.descriptor, len(content), offset).ljust(len(content), b"\0")
            self.unsynced.append(_Unsynced(offset, before, bytes(content)))
        view = memoryview(content)
        while view:
            done = os.pwrite(self.descriptor, view, offset)
            view, offset = view[done:], offset + done

    def extend(self, size: int) -> None:
        """Make the file at least so large, with zeros; at once durable."""
        if os.fstat(self.descriptor).st_size < size:
            os.truncate(self.descriptor, size)

    def sync(self) -> None:
        """Make every write before this durable."""
        self.unsynced.clear()
        if self.disk.really_syncs:
            os.fdatasync(self.descriptor)

    def close(self) -> None:
        """Let go of it. What was not synced may still be lost."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(eq=False, repr=False)
class Disk:
    """Opens files, and cuts their power.

    Args:
        may_lose_power: Whether every write is remembered until it is synced, so that :meth:`cut_power` can lose it.
        really_syncs: Whether the operating system is asked to sync; the death of the process alone never needs it.
    """

    may_lose_power: bool = False
    really_syncs: bool = False
    _files: list[DiskFile] = field(default_factory=list)

    def open(self, path: Path) -> DiskFile:
        """Open a file for reading and writing; it is made if it is not there."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        opened = DiskFile(self, path, descriptor)
        self._files.append(opened)
        return opened

    def rename(self, file: DiskFile, path: Path) -> None:
        """Give a file another name; at once durable."""
        file.path.rename(path)
        file.path = path

    def close(self, file: DiskFile) -> None:
        """Sync a file and let go of it."""
        file.sync()
        file.close()
        self._files.remove(file)

    def close_all(self) -> None:
        """Let go of all files as they are, as the death of the process does."""
        for file in self._files:
            file.close()
        self._files.clear()

    def cut_power(self, chance: Random) -> None:
        """Lose a random part of the writes that were not synced, each whole, and let go of all files."""
        assert self.may_lose_power, "this disk does not remember what it could lose"
        for file in self._files:
            for lost in reversed(file.unsynced):
                os.pwrite(file.descriptor, lost.before, lost.offset)
            share = chance.random()
            for write in file.unsynced:
                if chance.random() < share:
                    os.pwrite(file.descriptor, write.after, write.offset)
        self.close_all()

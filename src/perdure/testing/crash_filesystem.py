"""A simulated POSIX file system in memory that knows what would survive a power failure.

It implements :class:`perdure.storage.filesystem.FileSystem`. Every call works on the *page cache*, what running
processes see. Beside it the file system remembers what is on the disk: a file's data as of its last ``fsync``, and a
directory's names as of the directory's last ``fsync_directory``. :meth:`CrashFileSystem.crashed` is the file
system after a power failure, in which everything that was not synced was lost, kept or torn, as a seed says:

* of a file's unsynced bytes nothing, all, a prefix, or any 4 KiB sectors (the others read as zeros or as junk);
* of a directory's unsynced changes any subset, independently for every name (a name goes through its own states
  in order: after create and unlink it may be absent, there, or absent again).

:meth:`CrashFileSystem.killed` is the file system after the death of all processes while the machine goes on:
the page cache stays, locks and descriptors end.
"""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from perdure.storage.filesystem import FileEntry, FileStatus, FileSystem

__all__ = ["CHANGING", "CrashFileSystem", "PowerCut"]

CHANGING = frozenset({"create", "writev", "fsync", "fsync_directory", "link", "unlink", "mkdir"})
"""Calls that change what a crash may leave; a crash before any other call is a crash before the next of these."""

_SECTOR = 4096


class PowerCut(BaseException):
    """The machine is off: no code runs on. Not an ``Exception``, so that no handler takes it for one."""


@dataclass(eq=False)
class _File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    links: int = 0
    modified_ns: int = 0
    holder: int | None = None
    """Descriptor that has the lock."""


@dataclass(eq=False)
class _Directory:
    entries: dict[str, _Node] = field(default_factory=dict)
    durable: dict[str, _Node] = field(default_factory=dict)
    unsynced: dict[str, list[_Node | None]] = field(default_factory=dict)
    """For every name that changed since the last sync what it meant after each change."""

    def set(self, name: str, node: _Node | None) -> None:
        if node is None:
            del self.entries[name]
        else:
            self.entries[name] = node
        self.unsynced.setdefault(name, []).append(node)

    def sync(self) -> None:
        self.durable = dict(self.entries)
        self.unsynced = {}


_Node = _File | _Directory
_T = TypeVar("_T")


class CrashFileSystem:
    """The file system. An empty root directory is there and durable.

    Args:
        before_call: Called before every system call takes effect, with its number (from 1), its name, and the path
            or the descriptor's path.
        clock: Modification times, nanoseconds since 1970 UTC; the present time by default.
    """

    def __init__(
        self,
        before_call: Callable[[int, str, Path], None] = lambda _number, _name, _path: None,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.calls = 0
        self.before_call = before_call
        self._clock = clock or (lambda: time.time_ns())  # noqa: PLW0108 - looked up late: a test may replace it
        self._cut_at: int | None = None
        self._root = _Directory()
        self._open: dict[int, tuple[_File, Path]] = {}
        self._next_fd = 3
        self._guard = threading.RLock()
        self._unlocked = threading.Condition(self._guard)

    # --- what happens to the machine -------------------------------------------------------------

    def crash_after(self, calls: int) -> None:
        """Cut the power when this many system calls have returned: the next one, and every later one, raises."""
        self._cut_at = calls

    def crashed(self, seed: int) -> CrashFileSystem:
        """The file system as a power failure now leaves it; this one goes on undisturbed.

        Args:
            seed: 0: nothing survives that was not synced. 1: everything survives. Others: any mixture.
        """
        with self._guard:
            return self._copied(_Fate(seed))

    def killed(self) -> CrashFileSystem:
        """The file system after all processes died: unsynced as before, but without locks and descriptors."""
        with self._guard:
            return self._copied(None)

    def _copied(self, fate: _Fate | None) -> CrashFileSystem:
        copy = CrashFileSystem(clock=self._clock)
        known: dict[_Node, _Node] = {}

        def copied(node: _Node) -> _Node:
            if node not in known:
                known[node] = twin = _File() if isinstance(node, _File) else _Directory()
                if isinstance(node, _File) and isinstance(twin, _File):
                    fill_file(twin, node)
                elif isinstance(node, _Directory) and isinstance(twin, _Directory):
                    fill_directory(twin, node)
            return known[node]

        def fill_file(twin: _File, node: _File) -> None:
            twin.modified_ns = node.modified_ns
            twin.data = bytearray(node.data) if fate is None else fate.of_data(node.durable, node.data)
            twin.durable = node.durable if fate is None else bytes(twin.data)
            # After a crash links are counted anew, from the names that are left.
            twin.links = node.links if fate is None else 0

        def fill_directory(twin: _Directory, node: _Directory) -> None:
            if fate is None:
                twin.entries = {name: copied(child) for name, child in node.entries.items()}
                twin.durable = {name: copied(child) for name, child in node.durable.items()}
                for name, states in node.unsynced.items():
                    twin.unsynced[name] = [copied(state) if state is not None else None for state in states]
                return
            for name, child in fate.of_names(node.durable, node.unsynced).items():
                twin.entries[name] = kept = copied(child)
                if isinstance(kept, _File):
                    kept.links += 1
            twin.durable = dict(twin.entries)

        root = copied(self._root)
        assert isinstance(root, _Directory)
        copy._root = root
        return copy

    # --- system calls ----------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        with self._guard:
            self._call("create", path)
            directory = self._directory(path.parent)
            if path.name in directory.entries:
                raise _error(errno.EEXIST, path)
            file = _File(links=1, modified_ns=self._clock())
            directory.set(path.name, file)
            return self._descriptor(file, path)

    def open(self, path: Path, *, write: bool = False) -> int:  # noqa: ARG002 - one user, who may do both
        with self._guard:
            self._call("open", path)
            return self._descriptor(self._file(path), path)

    def close(self, fd: int) -> None:
        with self._guard:
            self._call("close", self._path_of(fd))
            file, _ = self._open.pop(fd)
            if file.holder == fd:
                file.holder = None
                self._unlocked.notify_all()

    def lock(self, fd: int, *, wait: bool) -> None:
        with self._guard:
            self._call("lock", self._path_of(fd))
            file, path = self._open[fd]
            while file.holder not in (None, fd):
                if not wait:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
                self._unlocked.wait()
            file.holder = fd

    def writev(self, fd: int, buffers: Sequence[memoryview]) -> int:
        with self._guard:
            self._call("writev", self._path_of(fd))
            file, _ = self._open[fd]
            before = len(file.data)
            for buffer in buffers:
                file.data += buffer
            file.modified_ns = self._clock()
            return len(file.data) - before

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        with self._guard:
            self._call("pread", self._path_of(fd))
            return bytes(self._open[fd][0].data[offset : offset + length])

    def fstat(self, fd: int) -> FileStatus:
        with self._guard:
            self._call("fstat", self._path_of(fd))
            return _status(self._open[fd][0])

    def stat(self, path: Path) -> FileStatus:
        with self._guard:
            self._call("stat", path)
            return _status(self._node(path))

    def fsync(self, fd: int) -> None:
        with self._guard:
            self._call("fsync", self._path_of(fd))
            file, _ = self._open[fd]
            file.durable = bytes(file.data)

    def fsync_directory(self, path: Path) -> None:
        with self._guard:
            self._call("fsync_directory", path)
            self._directory(path).sync()

    def link(self, source: Path, target: Path) -> None:
        with self._guard:
            self._call("link", target)
            file, directory = self._file(source), self._directory(target.parent)
            if target.name in directory.entries:
                raise _error(errno.EEXIST, target)
            directory.set(target.name, file)
            file.links += 1

    def unlink(self, path: Path) -> None:
        with self._guard:
            self._call("unlink", path)
            file, directory = self._file(path), self._directory(path.parent)
            directory.set(path.name, None)
            file.links -= 1

    def mkdir(self, path: Path) -> None:
        with self._guard:
            self._call("mkdir", path)
            directory = self._directory(path.parent)
            if path.name in directory.entries:
                raise _error(errno.EEXIST, path)
            directory.set(path.name, _Directory())

    def scan(self, path: Path) -> list[FileEntry]:
        with self._guard:
            self._call("scan", path)
            return [
                FileEntry(name, directory=True)
                if isinstance(node, _Directory)
                else FileEntry(name, False, len(node.data), node.modified_ns)
                for name, node in sorted(self._directory(path).entries.items())
            ]

    # --- inside ----------------------------------------------------------------------------------

    def _call(self, name: str, path: Path) -> None:
        if self._cut_at is not None and self.calls >= self._cut_at:
            raise PowerCut
        self.calls += 1
        self.before_call(self.calls, name, path)

    def _path_of(self, fd: int) -> Path:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[fd][1]

    def _descriptor(self, file: _File, path: Path) -> int:
        fd, self._next_fd = self._next_fd, self._next_fd + 1
        self._open[fd] = (file, path)
        return fd

    def _node(self, path: Path) -> _Node:
        node: _Node = self._root
        for part in path.parts[1:]:
            if isinstance(node, _File):
                raise _error(errno.ENOTDIR, path)
            if part not in node.entries:
                raise _error(errno.ENOENT, path)
            node = node.entries[part]
        return node

    def _directory(self, path: Path) -> _Directory:
        node = self._node(path)
        if isinstance(node, _File):
            raise _error(errno.ENOTDIR, path)
        return node

    def _file(self, path: Path) -> _File:
        node = self._node(path)
        if isinstance(node, _Directory):
            raise _error(errno.EISDIR, path)
        return node


class _Fate:
    """What becomes of everything that was not synced."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rng = random.Random(seed)  # noqa: S311 - repeatable, not secret

    def of_names(self, durable: dict[str, _Node], unsynced: dict[str, list[_Node | None]]) -> dict[str, _Node]:
        left = dict(durable)
        for name, states in unsynced.items():
            node = self._one_of([durable.get(name), *states])
            if node is None:
                left.pop(name, None)
            else:
                left[name] = node
        return left

    def of_data(self, durable: bytes, data: bytearray) -> bytearray:
        """Files only ever grow here, so what is not synced is what lies behind the durable bytes."""
        if len(data) == len(durable):
            return bytearray(data)
        torn = self._rng.randint(len(durable), len(data))
        return self._one_of([bytearray(durable), data[:torn], self._sectors(durable, data), bytearray(data)])

    def _sectors(self, durable: bytes, data: bytearray) -> bytearray:
        found = bytearray(durable)
        while len(found) < len(data):
            end = min((len(found) // _SECTOR + 1) * _SECTOR, len(data))
            part = data[len(found) : end]
            found += self._rng.choice([bytes(part), bytes(len(part)), self._rng.randbytes(len(part))])
        return found

    def _one_of(self, choices: list[_T]) -> _T:
        """The first choice is that nothing survives, the last that everything does."""
        return choices[0] if self._seed == 0 else choices[-1] if self._seed == 1 else self._rng.choice(choices)


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _status(node: _Node) -> FileStatus:
    if isinstance(node, _Directory):
        return FileStatus(directory=True, size=0, links=2, modified_ns=0)
    return FileStatus(False, len(node.data), node.links, node.modified_ns)


_check: type[FileSystem] = CrashFileSystem

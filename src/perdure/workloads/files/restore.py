"""Writing a stored tree, or items of it, into a new directory."""

from __future__ import annotations

import ctypes
import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.model.entries import Entry
from perdure.model.errors import Damaged, Partial, Refused
from perdure.workloads.contract import ListingSource
from perdure.workloads.files.descent import OPEN_DIRECTORY, Descent
from perdure.workloads.files.metadata import apply_to_descriptor, apply_to_symlink
from perdure.workloads.files.notes import Notes, readable, reason
from perdure.workloads.files.steps import ChunkFetcher, Close, Data, Enter, Hole, Leave, Link, Open, Step, steps
from perdure.workloads.files.tree import find, split_path

__all__ = ["RestoreReport", "restore_tree"]

_LOOK_AHEAD_STEPS = 2048
_LOOK_AHEAD_CHUNKS = 12
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore wrote.

    Args:
        files: Files, all names of hard-linked ones counted.
        directories: Directories, the target itself not counted.
        size: Bytes of content written.
        gaps: Files whose content is not whole because it was not when they were protected, one line each.
        damaged: Files and directories that are not whole because the pool is damaged, one line each.
        notes: Metadata that could not be applied, one line each.
    """

    files: int
    directories: int
    size: int
    gaps: tuple[str, ...]
    damaged: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether all content is there."""
        return not self.gaps and not self.damaged


def restore_tree(
    root: Entry,
    source: ListingSource,
    target: Path,
    *,
    items: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> RestoreReport:
    """Write a tree, or the named items of it with their parents, into a new directory.

    Damage in the pool does not stop the restore: everything else is written, and the report names what is not
    whole. All of it is on disk when this returns: one ``syncfs`` of the target's file system at the end, because
    one barrier costs far less than an fsync for each of many small files, and nobody relies on any of them before.
    Until the end only the restoring user can enter the target, so nobody can swap a directory for a link under it.

    Args:
        root: The root directory's entry.
        source: Where listings and chunks are read; used from two threads.
        target: A directory that does not exist yet, or is empty; its parent must exist.
        items: Paths relative to the root; none: the whole tree.
        progress: Called with the number of bytes written since its last call.

    Raises:
        Refused: The target exists and is not an empty directory.
        NotFound: The tree has no such item; nothing was written.
        Damaged: A listing on the way to an item, or the root's own, is damaged; nothing was written.
        Partial: The target's file system failed or is full; what was written stays there.
    """
    for item in items:
        find(root, source, item)
    wanted = [tuple(split_path(item)) for item in items]
    descriptor = _open_target(target)
    restore = _Restore(target, progress)
    try:
        with Descent(descriptor) as descent, ChunkFetcher(source) as fetcher:
            plan = steps(root, source, fetcher, wanted or [()])
            for step in _ahead(plan):
                restore.take(step, descent)
            restore.finish(descriptor, root)
    except OSError as error:
        full = error.errno in _FULL
        raise Partial(
            f"restoring to {target} stopped at {readable(restore.path)!r}: {reason(error)}; it is incomplete",
            code="target-full" if full else "target-failed",
            hint="free some space or choose another target, then recover again into a new directory"
            if full
            else "check the target's file system, then recover again into a new directory",
        ) from error
    return restore.report()


def _open_target(target: Path) -> int:
    try:
        target.mkdir(0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise Refused(
            f"the target {target} cannot be made: {reason(error)}; nothing was written",
            code="target-unusable",
            hint="choose a target whose parent directory exists and may be written",
        ) from error
    try:
        descriptor = os.open(target, OPEN_DIRECTORY)
    except OSError as error:
        raise _exists(target) from error
    if os.listdir(descriptor):  # noqa: PTH208 - pathlib cannot list a descriptor
        os.close(descriptor)
        raise _exists(target)
    try:
        os.fchmod(descriptor, 0o700)
    except OSError as error:
        os.close(descriptor)
        raise Refused(f"the target {target} belongs to somebody else", code="target-unusable") from error
    return descriptor


def _exists(target: Path) -> Refused:
    return Refused(
        f"the target {target} exists and is not an empty directory; nothing was written",
        code="target-exists",
        hint="name a directory that does not exist yet",
    )


def _ahead(plan: Iterator[Step]) -> Iterator[Step]:
    """Run ahead of the writer, so that chunks are read and decoded while others are written; bounded."""
    queue: deque[Step] = deque()
    chunks = 0
    for step in plan:
        queue.append(step)
        chunks += isinstance(step, Data) and step.first
        while len(queue) > _LOOK_AHEAD_STEPS or chunks > _LOOK_AHEAD_CHUNKS:
            done = queue.popleft()
            chunks -= isinstance(done, Data) and done.first
            yield done
    yield from queue


class _Restore:
    """Takes steps and makes files of them."""

    def __init__(self, target: Path, progress: Callable[[int], None]) -> None:
        self._target, self._progress = target, progress
        self._gaps, self._damaged, self._notes = Notes(), Notes(), Notes()
        self._directories: list[Entry] = []
        self._names: list[bytes] = []
        self._files = self._made = self._size = self._unreported = 0
        self._file = -1
        self._position = 0
        self.path = b""

    def report(self) -> RestoreReport:
        return RestoreReport(
            self._files, self._made, self._size, self._gaps.lines(), self._damaged.lines(), self._notes.lines()
        )

    def finish(self, root: int, entry: Entry) -> None:
        self._note_all(apply_to_descriptor(root, entry), b".")
        _sync_file_system(root)
        if self._unreported:
            self._progress(self._unreported)

    def take(self, step: Step, descent: Descent) -> None:
        match step:
            case Data(_, start, length, content, _):
                self._write(content.result, start, length)
            case Open(entry):
                self._enter_name(entry)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(entry.name, flags, 0o600, dir_fd=descent.current)
                self._position = 0
            case Close(entry):
                self._close(entry)
            case Hole(length):
                self._position += length
            case Link(entry, first):
                self._enter_name(entry)
                self._link(entry, first, descent)
            case Enter(entry, damage):
                self._enter(entry, damage, descent)
            case Leave(entry):
                self._note_all(apply_to_descriptor(descent.current, entry), self.path_of(b""))
                descent.leave()
                self._names.pop()
            case Entry():
                self._enter_name(step)
                os.symlink(step.target, step.name, dir_fd=descent.current)
                self._note_all(apply_to_symlink(descent.current, step), self.path)

    def path_of(self, name: bytes) -> bytes:
        return b"/".join([*self._names, name] if name else self._names)

    def _enter_name(self, entry: Entry) -> None:
        self.path = self.path_of(entry.name)

    def _enter(self, entry: Entry, damage: str, descent: Descent) -> None:
        self._enter_name(entry)
        os.mkdir(entry.name, 0o700, dir_fd=descent.current)
        descent.enter(entry.name)
        self._names.append(entry.name)
        self._made += 1
        if entry.gap:
            self._gaps.add(entry.gap, self.path)
        if damage:
            self._damaged.add(damage, self.path)

    def _write(self, content: Callable[[], bytes], start: int, length: int) -> None:
        try:
            chunk, damage = content(), "a chunk in the pool is shorter than the file's map says"
        except Damaged as error:
            chunk, damage = b"", str(error)
        if len(chunk) < start + length:
            self._damaged.add(f"{length:,} bytes at {self._position:,} are left out: {damage}", self.path)
            self._position += length
            return
        rest = memoryview(chunk)[start : start + length]
        while rest:
            written = os.pwrite(self._file, rest, self._position)
            self._position += written
            rest = rest[written:]
        self._size += length
        self._unreported += length
        if self._unreported >= 1 << 20:
            self._progress(self._unreported)
            self._unreported = 0

    def _close(self, entry: Entry) -> None:
        try:
            if os.fstat(self._file).st_size != entry.size:
                os.ftruncate(self._file, entry.size)
            self._note_all(apply_to_descriptor(self._file, entry), self.path)
        finally:
            os.close(self._file)
            self._file = -1
        self._files += 1
        if entry.gap:
            self._gaps.add(entry.gap, self.path)

    def _link(self, entry: Entry, first: tuple[bytes, ...], descent: Descent) -> None:
        """Go down from the target again: no path is followed that could lead through a symbolic link."""
        with Descent(os.open(self._target, OPEN_DIRECTORY)) as other:
            for name in first[:-1]:
                other.enter(name)
            os.link(first[-1], entry.name, src_dir_fd=other.current, dst_dir_fd=descent.current, follow_symlinks=False)
        self._files += 1

    def _note_all(self, notes: list[str], path: bytes) -> None:
        for note in notes:
            self._notes.add(note, path)


def _sync_file_system(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

"""Walking a folder tree and storing what is new of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.listings import ends_part
from perdure.workloads.contract import ContentSink, FolderScan, ListingSource
from perdure.workloads.files.content import SMALL, ChunkWriter, ContentReader, Run, Slot
from perdure.workloads.files.descent import OPEN_DIRECTORY, Descent
from perdure.workloads.files.drafts import DirectoryDraft, FileDraft, Row, Unsettled
from perdure.workloads.files.metadata import read_symlink_xattrs, read_xattrs
from perdure.workloads.files.notes import Notes, reason
from perdure.workloads.files.patterns import Patterns
from perdure.workloads.files.previous import PreviousContent, PreviousDirectory
from perdure.workloads.files.sameness import is_racy, is_unchanged, link_number

__all__ = ["OpenFile", "Walk", "open_for_reading"]

OpenFile = Callable[[bytes, int, int], int]
"""Opens ``name`` relative to a directory descriptor with the given flags."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def open_for_reading(name: bytes, directory: int, flags: int) -> int:
    """Open a file without changing its access time, where that is permitted (its owner and root)."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=directory)
    except PermissionError:
        return os.open(name, flags, dir_fd=directory)


class _Level:
    """A directory being walked."""

    __slots__ = ("draft", "included", "names", "path", "previous", "rows", "slots", "stored")

    def __init__(self, draft: DirectoryDraft, path: bytes, previous: PreviousDirectory, included: bool) -> None:
        self.draft, self.path, self.previous, self.included = draft, path, previous, included
        self.names: Iterator[tuple[bytes, EntryKind | None]] = iter(())
        self.rows: list[Row] = []
        self.slots: list[Slot] = []
        self.stored = 0


class Walk:
    """One walk of one tree. Use it once.

    Args:
        sink: Where content goes.
        previous: The last point's root, and where its listings are read.
        patterns: What to protect.
        check_content: Read every file, whatever its times say.
        one_file_system: Leave what is mounted below the root out.
        progress: As in :meth:`FolderWorkload.scan`.
        clock: The present time, nanoseconds since 1970 UTC, on the clock of the file system.
        open_file: How files are opened.
    """

    def __init__(
        self,
        sink: ContentSink,
        previous: tuple[Entry, ListingSource] | None,
        patterns: Patterns,
        *,
        check_content: bool,
        one_file_system: bool,
        progress: Callable[[int], None],
        clock: Callable[[], int],
        open_file: OpenFile = open_for_reading,
    ) -> None:
        self._sink, self._previous, self._patterns = sink, previous, patterns
        self._check, self._one_file_system = check_content, one_file_system
        self._progress, self._clock, self._open_file = progress, clock, open_file
        self._notes = Notes()
        self._links: dict[tuple[int, int], FileDraft | Entry] = {}
        self._files = self._size = self._changed = 0
        self._old = PreviousContent(previous[1]) if previous is not None else None

    def run(self, root: int) -> FolderScan:
        """Walk the tree below an open directory, which is closed at the end."""
        with Descent(root) as self._descent, ChunkWriter(self._sink) as writer:
            self._reader = ContentReader(writer, self._progress)
            self._unsettled = Unsettled(self._sink, writer, self._reader, self._count_change)
            found = os.fstat(root)
            self._device = found.st_dev
            draft = DirectoryDraft(self._directory(b"", found, root, b"."))
            before, source = self._previous or (None, None)
            old_root = PreviousDirectory(before, source, self._notes)
            stack = [_Level(draft, b"", old_root, self._patterns.all_included)]
            self._list(stack[-1])
            while stack:
                self._walk_on(stack)
            self._unsettled.finish()
            self._reader.report()
        if self._previous is not None and self._files == 0 and old_root.had_entries:
            self._notes.add("the tree holds no files now, but the last point did: is it still mounted?")
        return FolderScan(
            draft.settle(), self._files, self._size, self._changed, self._reader.bytes_read, self._notes.lines()
        )

    def _walk_on(self, stack: list[_Level]) -> None:
        """Take entries of the deepest directory until one is to be entered, or none is left."""
        level = stack[-1]
        plain = level.included and self._patterns.nothing_excluded
        for name, kind in level.names:
            included = plain or self._selects(level, name, kind)
            if included is None:
                continue
            if kind is EntryKind.FILE and included:
                self._take_file(level, name)
            elif kind is EntryKind.SYMLINK and included:
                self._take_symlink(level, name)
            elif kind is EntryKind.DIRECTORY:
                entered = self._enter(level, name, included)
                if entered is not None:
                    stack.append(entered)
                    return
            elif kind is None and included:
                self._take_other(level, name)
            if len(level.rows) >= 1024 and ends_part(len(level.rows), name):
                self._end_part(level)
        self._leave(stack)

    def _selects(self, level: _Level, name: bytes, kind: EntryKind | None) -> bool | None:
        """Whether an entry is protected; ``None``: not even to be entered."""
        path = _join(level.path, name)
        directory = kind is EntryKind.DIRECTORY
        if self._patterns.excludes(path, directory=directory):
            return None
        return level.included or self._patterns.includes(path, directory=directory)

    def _list(self, level: _Level) -> None:
        try:
            with os.scandir(self._descent.current) as entries:
                level.names = iter(sorted((os.fsencode(entry.name), _kind(entry)) for entry in entries))
        except OSError as error:
            self._cannot_list(level.draft, level.path, error)

    def _cannot_list(self, draft: DirectoryDraft, path: bytes, error: OSError) -> None:
        self._notes.add(f"not listed, so nothing below it is protected: {reason(error)}", path)
        draft.entry = replace(draft.entry, gap=f"could not be listed: {reason(error)}")

    def _enter(self, above: _Level, name: bytes, included: bool) -> _Level | None:
        path = _join(above.path, name)
        try:
            found = self._descent.enter(name, OPEN_DIRECTORY)
        except FileNotFoundError:
            self._notes.add("vanished during the walk", path)
            return None
        except OSError as error:
            self._unopened_directory(above, name, path, error)
            return None
        draft = DirectoryDraft(self._directory(name, found, self._descent.current, path))
        above.rows.append(draft)
        level = _Level(draft, path, above.previous.below(name), included)
        if self._one_file_system and found.st_dev != self._device:
            self._notes.add("another file system is mounted here; it is left out", path)
        else:
            self._list(level)
        return level

    def _unopened_directory(self, above: _Level, name: bytes, path: bytes, error: OSError) -> None:
        try:
            found = os.stat(name, dir_fd=self._descent.current, follow_symlinks=False)
        except OSError:
            self._notes.add(f"skipped: {reason(error)}", path)
            return
        if not stat.S_ISDIR(found.st_mode):
            self._notes.add("is no directory any more; skipped", path)
            return
        draft = DirectoryDraft(self._directory(name, found, -1, path))
        self._cannot_list(draft, path, error)
        above.rows.append(draft.entry)

    def _directory(self, name: bytes, found: os.stat_result, descriptor: int, path: bytes) -> Entry:
        xattrs = self._xattrs(descriptor, path) if descriptor >= 0 else {}
        mode = stat.S_IMODE(found.st_mode)
        return Entry(name, EntryKind.DIRECTORY, mode, found.st_uid, found.st_gid, found.st_mtime_ns, xattrs=xattrs)

    def _leave(self, stack: list[_Level]) -> None:
        level = stack.pop()
        if stack:
            if not level.included and not level.rows and not level.stored:
                stack[-1].rows.pop()
                level.draft.parts.clear()
            else:
                self._unsettled.add(level.draft, level.path, level.rows, level.slots, last=True)
            if len(stack[-1].rows) >= 1024 and ends_part(len(stack[-1].rows), level.draft.entry.name):
                self._end_part(stack[-1])
        else:
            self._unsettled.add(level.draft, level.path, level.rows, level.slots, last=True)
        try:
            self._descent.leave()
        except OSError as error:
            self._notes.add(f"the directory above cannot be read on: {reason(error)}", level.path)

    def _end_part(self, level: _Level) -> None:
        self._unsettled.add(level.draft, level.path, level.rows, level.slots, last=False)
        level.stored += len(level.rows)
        level.rows, level.slots = [], []

    def _take_file(self, level: _Level, name: bytes) -> None:
        before = level.previous.find(name)
        unchanged = False
        if before is not None and before.kind is EntryKind.FILE:
            try:
                found = os.stat(name, dir_fd=self._descent.current, follow_symlinks=False)
            except OSError as error:
                self._cannot_read(level, name, error)
                return
            unchanged = is_unchanged(before, found)
            if unchanged and not self._check:
                self._keep(level, before, found)
                self._reader.passed(before.size)
                return
        else:
            before = None
        try:
            descriptor = self._open_file(name, self._descent.current, _READ)
        except OSError as error:
            self._cannot_read(level, name, error)
            return
        try:
            self._read_file(level, name, descriptor, before, unchanged)
        finally:
            os.close(descriptor)

    def _keep(self, level: _Level, before: Entry, found: os.stat_result) -> None:
        """Nothing of the file changed, its mode and attributes neither: changing those changes the ctime."""
        link = link_number(found)
        entry = before if before.link == link else replace(before, link=link)
        if link:
            self._links.setdefault((found.st_dev, found.st_ino), entry)
        level.rows.append(entry)
        self._files += 1
        self._size += entry.size

    def _read_file(self, level: _Level, name: bytes, descriptor: int, before: Entry | None, unchanged: bool) -> None:
        now = self._clock()
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            self._notes.add("became something other than a file during the walk; skipped", _join(level.path, name))
            return
        if found.st_nlink > 1 and self._take_other_name(level, name, found):
            return
        same = None
        if before is not None and self._old is not None and before.size == found.st_size <= SMALL and not before.gap:
            same = self._old.comparison(before)
        gap = ""
        runs: list[Run] | None = []
        try:
            runs = self._reader.read(descriptor, found.st_size, found.st_blocks, same)
        except OSError as error:
            gap = f"could not be read: {reason(error)}"
        xattrs = self._xattrs(descriptor, _join(level.path, name))
        after = os.fstat(descriptor)
        if not gap and (after.st_mtime_ns, after.st_size, after.st_ctime_ns) != (
            found.st_mtime_ns,
            found.st_size,
            found.st_ctime_ns,
        ):
            gap = "changed while it was read"
        if gap:
            self._notes.add(gap, _join(level.path, name))
        if unchanged and runs is None and not gap and before is not None:
            self._keep(level, before, found)
            return
        trusted = not gap and not is_racy(found, now)
        draft = FileDraft(name, found, xattrs, runs, before, link_number(found), trusted, gap)
        self._files += 1
        self._size += draft.size()
        if draft.link:
            self._links[found.st_dev, found.st_ino] = draft
        level.rows.append(draft)
        self._await(level, draft)

    def _take_other_name(self, level: _Level, name: bytes, found: os.stat_result) -> bool:
        """Another name of a file already taken: its content is not read again."""
        first = self._links.get((found.st_dev, found.st_ino))
        if first is None:
            return False
        self._files += 1
        if isinstance(first, FileDraft) and first.entry is not None:
            first = first.entry
        if isinstance(first, Entry):
            level.rows.append(replace(first, name=name))
            return True
        twin = FileDraft(
            name, first.found, first.xattrs, first.runs, first.previous, first.link, first.trusted, first.gap
        )
        level.rows.append(twin)
        self._await(level, twin)
        return True

    def _await(self, level: _Level, draft: FileDraft) -> None:
        slots = level.slots
        for slot, _, _ in draft.runs or ():
            if slot is not None and not slot.id and (not slots or slots[-1] is not slot):
                slots.append(slot)

    def _cannot_read(self, level: _Level, name: bytes, error: OSError) -> None:
        path = _join(level.path, name)
        try:
            found = os.stat(name, dir_fd=self._descent.current, follow_symlinks=False)
        except FileNotFoundError:
            self._notes.add("vanished during the walk", path)
            return
        except OSError:
            found = None
        self._notes.add(f"not protected: {reason(error)}", path)
        if found is not None and stat.S_ISREG(found.st_mode):
            gap = f"could not be read: {reason(error)}"
            level.rows.append(FileDraft(name, found, {}, [], None, 0, False, gap))
            self._files += 1

    def _take_symlink(self, level: _Level, name: bytes) -> None:
        directory = self._descent.current
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            target = os.readlink(name, dir_fd=directory)
        except FileNotFoundError:
            self._notes.add("vanished during the walk", _join(level.path, name))
            return
        except OSError as error:
            self._notes.add(f"not protected: {reason(error)}", _join(level.path, name))
            return
        try:
            xattrs = read_symlink_xattrs(directory, name)
        except OSError:
            xattrs = {}
        mode = stat.S_IMODE(found.st_mode)
        owner, group = found.st_uid, found.st_gid
        level.rows.append(
            Entry(name, EntryKind.SYMLINK, mode, owner, group, found.st_mtime_ns, target=target, xattrs=xattrs)
        )

    def _take_other(self, level: _Level, name: bytes) -> None:
        path = _join(level.path, name)
        try:
            mode = os.stat(name, dir_fd=self._descent.current, follow_symlinks=False).st_mode
        except OSError as error:
            self._notes.add(f"skipped: {reason(error)}", path)
            return
        what = {stat.S_IFIFO: "a fifo", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
        self._notes.add(f"skipped: it is {what.get(stat.S_IFMT(mode), 'of a changing kind')}", path)

    def _xattrs(self, descriptor: int, path: bytes) -> dict[bytes, bytes]:
        try:
            return read_xattrs(descriptor)
        except OSError as error:
            self._notes.add(f"its extended attributes could not be read: {reason(error)}", path)
            return {}

    def _count_change(self, draft: FileDraft, entry: Entry, path: bytes) -> None:
        """Say whether the content differs from the last point's, now that its chunk ids are known."""
        before, found = draft.previous, draft.found
        if draft.link and self._links.get((found.st_dev, found.st_ino)) is not draft:
            return
        if draft.runs is None or (before is not None and _same_content(before, entry)):
            return
        self._changed += entry.size
        if self._check and before is not None and not entry.gap and is_unchanged(before, found):
            self._notes.add("content differs although times and size say it is unchanged", _join(path, entry.name))


def _same_content(before: Entry, entry: Entry) -> bool:
    mine: tuple[Piece, ...] = entry.content
    return before.size == entry.size and before.content == mine and before.content_map == entry.content_map


def _kind(entry: os.DirEntry[str]) -> EntryKind | None:
    """The kind as the directory has it; ``None`` for all that is skipped, or cannot be told."""
    try:
        if entry.is_file(follow_symlinks=False):
            return EntryKind.FILE
        if entry.is_dir(follow_symlinks=False):
            return EntryKind.DIRECTORY
        return EntryKind.SYMLINK if entry.is_symlink() else None
    except OSError:
        return None


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name

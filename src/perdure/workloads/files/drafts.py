"""Entries in the making: a file's chunk ids, and so its directory's listing, are known only after the puts."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from perdure.model.entries import Entry, EntryKind, Piece
from perdure.model.listings import INLINE_PIECES, put_index, put_listing, put_pieces
from perdure.model.points import StreamRef
from perdure.workloads.contract import ContentSink
from perdure.workloads.files.content import ChunkWriter, ContentReader, Run, Slot

__all__ = ["DirectoryDraft", "FileDraft", "Unsettled"]

_MOST_ROWS = 65536


class FileDraft:
    """A file whose content is being put.

    Args:
        name: Name in its directory.
        found: ``fstat`` from before the content was read.
        xattrs: Extended attributes.
        runs: Content; ``None`` when it is the same as ``previous``'s.
        previous: The last point's entry of the same path.
        link: As in :class:`Entry`.
        trusted: Whether the next scan may believe the times.
        gap: As in :class:`Entry`.
    """

    __slots__ = ("entry", "found", "gap", "link", "name", "previous", "runs", "trusted", "xattrs")

    def __init__(  # noqa: PLR0917 - made once for every file; keywords cost time
        self,
        name: bytes,
        found: os.stat_result,
        xattrs: dict[bytes, bytes],
        runs: list[Run] | None,
        previous: Entry | None,
        link: int,
        trusted: bool,
        gap: str,
    ) -> None:
        self.name, self.found, self.xattrs, self.runs = name, found, xattrs, runs
        self.previous, self.link, self.trusted, self.gap = previous, link, trusted, gap
        self.entry: Entry | None = None

    def size(self) -> int:
        """Bytes of content that there are."""
        if self.runs is None:
            return self.previous.size if self.previous is not None else 0
        return sum(run[2] for run in self.runs)

    def settle(self, sink: ContentSink) -> Entry:
        """The finished entry; every chunk of it must have been put."""
        if self.entry is None:
            found = self.found
            content, content_map = self._content(sink)
            self.entry = Entry(
                self.name,
                EntryKind.FILE,
                stat.S_IMODE(found.st_mode),
                found.st_uid,
                found.st_gid,
                found.st_mtime_ns,
                found.st_ctime_ns if self.trusted else 0,
                found.st_ino,
                self.size(),
                self.link,
                b"",
                self.xattrs,
                content,
                content_map,
                None,
                self.gap,
            )
            self.runs = [] if self.runs is not None else None
        return self.entry

    def _content(self, sink: ContentSink) -> tuple[tuple[Piece, ...], StreamRef | None]:
        if self.runs is None:
            return (self.previous.content, self.previous.content_map) if self.previous is not None else ((), None)
        pieces = tuple([Piece(slot.id if slot is not None else b"", start, size) for slot, start, size in self.runs])
        return ((), put_pieces(pieces, sink)) if len(pieces) > INLINE_PIECES else (pieces, None)


class DirectoryDraft:
    """A directory whose entries are being found. ``listing`` is set when all of them are settled."""

    __slots__ = ("entry", "listing", "parts")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.parts: list[StreamRef] = []
        self.listing: StreamRef | None = None

    def settle(self) -> Entry:
        """The finished entry."""
        return replace(self.entry, listing=self.listing)


Row = Entry | FileDraft | DirectoryDraft


class Unsettled:
    """Runs of directory entries that wait for chunk ids, children before their parents.

    They are kept so that a shared chunk can fill up with files of several directories, and bounded so that
    memory is.

    Args:
        sink: Where listings go.
        writer: Whose chunks are waited for.
        reader: Holds the shared chunk that is not yet full.
        settled: Called for every file with its draft and finished entry.
    """

    def __init__(
        self,
        sink: ContentSink,
        writer: ChunkWriter,
        reader: ContentReader,
        settled: Callable[[FileDraft, Entry, bytes], None],
    ) -> None:
        self._sink, self._writer, self._reader, self._settled = sink, writer, reader, settled
        self._waiting: deque[tuple[DirectoryDraft, bytes, list[Row], list[Slot], bool]] = deque()
        self._rows = 0

    def add(self, directory: DirectoryDraft, path: bytes, rows: list[Row], slots: list[Slot], last: bool) -> None:
        """Queue a part of a directory (``last``: its end), and store whatever has become ready."""
        self._waiting.append((directory, path, rows, slots, last))
        self._rows += len(rows)
        if self._rows > _MOST_ROWS:
            self.finish()
        while self._waiting and all(slot.id for slot in self._waiting[0][3]):
            self._store_first()

    def finish(self) -> None:
        """Store everything that waits."""
        self._reader.flush()
        self._writer.drain()
        while self._waiting:
            self._store_first()

    def _store_first(self) -> None:
        directory, path, rows, _, last = self._waiting.popleft()
        self._rows -= len(rows)
        part = put_listing([self._settle(row, path) for row in rows], self._sink) if rows or not last else None
        if not last or (directory.parts and part is not None):
            assert part is not None
            directory.parts.append(part)
        if last:
            directory.listing = (
                put_index(directory.parts, self._sink) if directory.parts else part or put_listing([], self._sink)
            )

    def _settle(self, row: Row, path: bytes) -> Entry:
        if isinstance(row, Entry):
            return row
        if isinstance(row, DirectoryDraft):
            return row.settle()
        entry = row.settle(self._sink)
        self._settled(row, entry, path)
        return entry

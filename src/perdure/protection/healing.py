"""The live sources of this machine as places where the content of damaged chunks may still be.

A recovery point's maps and listings say which bytes of which file lay in a chunk. Those files are read as they are now,
without any lock or snapshot: whether the bytes are still the same is decided by whoever asks, by the chunk's id. So a
database may be written to meanwhile, and what has changed since is simply not found.

Never in a process that follows a SQLite database: closing a descriptor of it would drop that process's POSIX locks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from perdure.model.entries import Entry, EntryKind
from perdure.model.errors import Damaged, PerdureError
from perdure.model.extents import HOLE, ExtentMap
from perdure.model.listings import content_pieces, load_root, read_listing
from perdure.model.points import DataSource, RecoveryPoint
from perdure.protection.protected import workload_for
from perdure.repository.maps import decode_map
from perdure.repository.pool import Pool
from perdure.storage.contract import ObjectMissing
from perdure.workloads.contract import FolderWorkload

__all__ = ["LiveOrigin"]

_LARGEST = 64 << 20
"""No chunk is larger."""

_Part = tuple[Path, int, int, int]
"""Bytes of a file that lie in a chunk: the file, their offset in it, their offset in the chunk, and how many."""


class LiveOrigin:
    """A live data source; implements :class:`perdure.repository.heal.Origin`.

    Args:
        pool: The pool that protects it.
        source: The source.
    """

    def __init__(self, pool: Pool, source: DataSource) -> None:
        self._pool = pool
        self._source = source

    @property
    def name(self) -> str:
        return f"the live source {self._source.name}"

    def contents(self, wanted: Collection[bytes], points: Sequence[tuple[str, int]]) -> Iterator[tuple[bytes, bytes]]:
        """What now lies where the points say that these chunks were read."""
        numbers = {number for source, number in points if source == self._source.id}
        left = set(wanted)
        seen: set[tuple[bytes, ...]] = set()
        for point in reversed(self._pool.points(self._source.id)):
            if point.number in numbers:
                for parts in self._places(point, left, seen):
                    for chunk, pieces in parts.items():
                        content = _assembled(pieces)
                        if content is not None:
                            if self._pool.chunk_id(content) == chunk:
                                left.discard(chunk)
                            yield chunk, content

    def _places(
        self, point: RecoveryPoint, wanted: Collection[bytes], seen: set[tuple[bytes, ...]]
    ) -> Iterator[dict[bytes, list[_Part]]]:
        """The files that lay in wanted chunks. A chunk lies in one map, or in one tree."""
        with contextlib.suppress(PerdureError):
            for name, path in self._paths(point).items():
                file = next(file for file in point.files if file.name == name)
                for ref in (file.base, *file.deltas):
                    if ref.chunks not in seen:
                        seen.add(ref.chunks)
                        with contextlib.suppress(Damaged, ObjectMissing):
                            yield _in_map(decode_map(self._pool.read_stream(ref)), path, wanted)
        if point.tree is not None and point.tree.chunks not in seen:
            seen.add(point.tree.chunks)
            yield self._in_tree(point, wanted)

    def _paths(self, point: RecoveryPoint) -> dict[str, Path]:
        """Where each file of an image lives."""
        workload = workload_for(self._source.workload)
        if isinstance(workload, FolderWorkload) or not point.files:
            return {}
        return workload.live_paths([file.name for file in point.files], self._source.location)

    def _in_tree(self, point: RecoveryPoint, wanted: Collection[bytes]) -> dict[bytes, list[_Part]]:
        assert point.tree is not None
        found: dict[bytes, list[_Part]] = {}
        with contextlib.suppress(Damaged, ObjectMissing):
            waiting: list[tuple[Path, Entry]] = [(Path(self._source.location), load_root(point.tree, self._pool))]
            while waiting:
                folder, directory = waiting.pop()
                with contextlib.suppress(Damaged, ObjectMissing):
                    for entry in read_listing(directory, self._pool):
                        path = folder / os.fsdecode(entry.name)
                        if entry.kind is EntryKind.DIRECTORY:
                            waiting.append((path, entry))
                        elif entry.kind is EntryKind.FILE:
                            self._in_file(path, entry, wanted, found)
        return found

    def _in_file(self, path: Path, entry: Entry, wanted: Collection[bytes], found: dict[bytes, list[_Part]]) -> None:
        at = 0
        for piece in content_pieces(entry, self._pool):
            if piece.chunk in wanted:
                found.setdefault(piece.chunk, []).append((path, at, piece.start, piece.length))
            at += piece.length


def _in_map(extents: ExtentMap, path: Path, wanted: Collection[bytes]) -> dict[bytes, list[_Part]]:
    numbers = {number: chunk for number, chunk in enumerate(extents.ids()) if chunk in wanted}
    rows = extents.extents[np.isin(extents.extents["chunk"], list(numbers)) & (extents.extents["chunk"] != HOLE)]
    found: dict[bytes, list[_Part]] = {}
    for offset, length, number, start in rows.tolist():
        found.setdefault(numbers[number], []).append((path, offset, start, length))
    return found


def _assembled(parts: Sequence[_Part]) -> bytes | None:
    """A chunk made of what its files hold now, ``None`` if they cannot be read or do not cover it."""
    size = max(start + length for _, _, start, length in parts)
    if size > _LARGEST:
        return None
    content, covered = bytearray(size), 0
    for path, offset, start, length in sorted(parts, key=lambda part: part[2]):
        if start > covered:
            return None
        covered = max(covered, start + length)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                data = os.pread(descriptor, length, offset)
            finally:
                os.close(descriptor)
        except OSError:
            return None
        if len(data) != length:
            return None
        content[start : start + length] = data
    return bytes(content)

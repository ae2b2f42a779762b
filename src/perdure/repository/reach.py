"""Reach: every chunk that a recovery point names.

A point names the chunks of its maps and trees, and those name the chunks of its data. All chunks of a base and of
every delta count, also those that a later delta covers: what is named is never collected, and damage to it is
reported rather too widely than too narrowly.

Maps and listings are shared by many points, so a walk over several points visits each once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from perdure.model.entries import EntryKind
from perdure.model.extents import chunk_table
from perdure.model.listings import content_pieces, load_root, read_listing
from perdure.model.points import RecoveryPoint, StreamRef
from perdure.repository.maps import decode_map

__all__ = ["Ids", "Reach", "StreamReader"]

Ids = NDArray[np.uint8]
"""Chunk ids, shape ``(n, 32)``."""

_BATCH = 8192


class StreamReader(Protocol):
    """What a walk needs of a pool."""

    def read_stream(self, ref: StreamRef) -> bytes:
        """A stream's content."""
        ...


class Reach:
    """A walk over recovery points.

    Args:
        streams: Reads maps and listings.
        once: Visit a stream that several points share only for the first of them. Without it every point's walk is
            complete, except that a stream it names twice is visited once.
    """

    def __init__(self, streams: StreamReader, *, once: bool = True) -> None:
        self._streams = streams
        self._once = once
        self._seen: set[bytes] = set()

    def of(self, point: RecoveryPoint) -> Iterator[Ids]:
        """The chunk ids that a point names, in arrays of some thousands; an id may come several times.

        Raises:
            Damaged: A map or listing cannot be read, so that what it names is not known.
        """
        if not self._once:
            self._seen.clear()
        for file in point.files:
            for ref in (file.base, *file.deltas):
                if self._is_new(ref):
                    yield chunk_table(ref.chunks)
                    yield decode_map(self._streams.read_stream(ref)).chunks
        if point.tree is not None and self._is_new(point.tree):
            yield from _batched(self._tree(point.tree))

    def _is_new(self, ref: StreamRef) -> bool:
        # Half a hash of the ids: a million directories take 100 MB less than with the ids themselves.
        key = blake3(b"".join(ref.chunks)).digest(16)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _tree(self, tree: StreamRef) -> Iterator[bytes]:
        noted = _NotingStreams(self._streams)
        waiting = [load_root(tree, noted)]
        yield from noted.taken()
        while waiting:
            directory = waiting.pop()
            if directory.listing is not None and not self._is_new(directory.listing):
                continue
            for entry in read_listing(directory, noted):
                if entry.kind is EntryKind.DIRECTORY:
                    waiting.append(entry)
                elif entry.kind is EntryKind.FILE:
                    for piece in content_pieces(entry, noted):
                        if piece.chunk:
                            yield piece.chunk
                yield from noted.taken()
            yield from noted.taken()


class _NotingStreams:
    """Reads streams and notes their chunks."""

    def __init__(self, streams: StreamReader) -> None:
        self._streams = streams
        self._noted: list[bytes] = []

    def read_stream(self, ref: StreamRef) -> bytes:
        self._noted.extend(ref.chunks)
        return self._streams.read_stream(ref)

    def taken(self) -> list[bytes]:
        """What was noted since the last call."""
        noted, self._noted = self._noted, []
        return noted


def _batched(chunks: Iterable[bytes]) -> Iterator[Ids]:
    batch: list[bytes] = []
    for chunk in chunks:
        batch.append(chunk)
        if len(batch) >= _BATCH:
            yield chunk_table(batch)
            batch = []
    if batch:
        yield chunk_table(batch)

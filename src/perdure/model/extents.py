"""Extent maps: how a file's byte ranges lie in chunks. Pure numpy; no I/O.

A map is a sorted, non-overlapping list of extents ``(offset, length, chunk, start)``: the bytes
``[offset, offset + length)`` of the file are the bytes ``[start, start + length)`` of chunk number
``chunk`` in the map's chunk table. Ranges that no extent covers, and extents whose chunk is
:data:`HOLE`, read as zeros.

An express full writes a *delta*: a map that holds only the changed ranges (zeroed pages appear as
explicit :data:`HOLE` extents) and the file's new size. :func:`overlay` joins a base and its deltas
into the resolved map that a restore reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXTENT", "HOLE", "ID_SIZE", "ExtentMap", "build", "chunk_table", "overlay"]

HOLE = 0xFFFFFFFF
"""Chunk number of an extent that reads as zeros."""

ID_SIZE = 32
"""Bytes in a chunk id (keyed BLAKE3-256)."""

EXTENT = np.dtype([("offset", "<u8"), ("length", "<u8"), ("chunk", "<u4"), ("start", "<u4")])


@dataclass(frozen=True, eq=False)
class ExtentMap:
    """How one file lies in chunks.

    Args:
        size: File size in bytes.
        extents: Array of :data:`EXTENT`, sorted by ``offset``, non-overlapping.
        chunks: Chunk table, shape ``(n, 32)``, dtype ``uint8``.
    """

    size: int
    extents: NDArray[np.void]
    chunks: NDArray[np.uint8]

    def ids(self) -> list[bytes]:
        """The chunk table as a list of 32-byte ids."""
        raw = self.chunks.tobytes()
        return [raw[i : i + ID_SIZE] for i in range(0, len(raw), ID_SIZE)]

    def stored_length(self) -> int:
        """Bytes of the file that lie in chunks (holes left out)."""
        return int(self.extents["length"][self.extents["chunk"] != HOLE].sum())

    def slice(self, offset: int, length: int) -> ExtentMap:
        """The part of the map inside ``[offset, offset + length)``, same file offsets and chunk table."""
        begin, end = self.extents["offset"], self.extents["offset"] + self.extents["length"]
        first = int(np.searchsorted(end, offset, side="right"))
        last = int(np.searchsorted(begin, offset + length, side="left"))
        part = self.extents[first:last].copy()
        if len(part):
            head = max(0, offset - int(part["offset"][0]))
            part["offset"][0] += np.uint64(head)
            part["length"][0] -= np.uint64(head)
            if part["chunk"][0] != HOLE:
                part["start"][0] += np.uint32(head)
            tail = int(part["offset"][-1] + part["length"][-1]) - (offset + length)
            if tail > 0:
                part["length"][-1] -= np.uint64(tail)
        return ExtentMap(self.size, part, self.chunks)


def chunk_table(ids: Iterable[bytes]) -> NDArray[np.uint8]:
    """Chunk ids as an array of shape ``(n, 32)``."""
    return np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, ID_SIZE)


def build(size: int, pieces: Sequence[tuple[int, int, bytes | None, int]]) -> ExtentMap:
    """Make a map from ``(offset, length, chunk id or None for a hole, start)`` pieces in any order."""
    table: dict[bytes, int] = {}
    extents = np.empty(len(pieces), dtype=EXTENT)
    for row, (offset, length, chunk, start) in enumerate(pieces):
        number = HOLE if chunk is None else table.setdefault(chunk, len(table))
        extents[row] = (offset, length, number, start if chunk is not None else 0)
    extents.sort(order="offset")
    return _tidy(size, extents, chunk_table(table))


def overlay(base: ExtentMap, *deltas: ExtentMap) -> ExtentMap:
    """Lay deltas over a base, oldest first; the size of the result is the last delta's size."""
    resolved = base
    for delta in deltas:
        resolved = _overlay_one(resolved, delta)
    return resolved


def _overlay_one(below: ExtentMap, above: ExtentMap) -> ExtentMap:
    """Every byte comes from ``above`` where it has an extent, else from ``below``, cut at ``above.size``.

    Works on the elementary intervals between all boundaries of both maps, so its cost is a sort of
    2(n + m) numbers whatever the sizes of the extents.
    """
    size = above.size
    low, high = below.extents, above.extents.copy()
    shifted = high["chunk"] != HOLE
    high["chunk"][shifted] += np.uint32(len(below.chunks))
    edges = np.concatenate(
        [low["offset"], low["offset"] + low["length"], high["offset"], high["offset"] + high["length"]]
    )
    edges = np.unique(np.append(np.minimum(edges, np.uint64(size)), np.uint64(size)))
    begin, end = edges[:-1], edges[1:]
    over = _covering(high, begin)
    under = _covering(low, begin)
    source = np.where(over >= 0, over, np.where(under >= 0, under + len(high), -1))
    kept = source >= 0
    both = np.concatenate([high, low])
    picked = both[source[kept]]
    out = np.empty(len(picked), dtype=EXTENT)
    out["offset"], out["length"] = begin[kept], (end - begin)[kept]
    out["chunk"] = picked["chunk"]
    inner = (begin[kept] - picked["offset"]).astype(np.uint32)
    out["start"] = np.where(picked["chunk"] == HOLE, 0, picked["start"] + inner)
    return _tidy(size, out, np.concatenate([below.chunks, above.chunks]))


def _covering(extents: NDArray[np.void], points: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each point the row of the extent that covers it, or -1."""
    if not len(extents):
        return np.full(len(points), -1, dtype=np.int64)
    row = np.searchsorted(extents["offset"], points, side="right").astype(np.int64) - 1
    ends = extents["offset"] + extents["length"]
    covered = (row >= 0) & (points < ends[np.maximum(row, 0)])
    return np.where(covered, row, -1)


def _tidy(size: int, extents: NDArray[np.void], chunks: NDArray[np.uint8]) -> ExtentMap:
    """Drop empty extents, join neighbours that continue each other, drop unused chunks."""
    extents = extents[extents["length"] > 0]
    if len(extents) > 1:
        hole = extents["chunk"] == HOLE
        ends = extents["offset"] + extents["length"]
        goes_on = (extents["offset"][1:] == ends[:-1]) & (extents["chunk"][1:] == extents["chunk"][:-1])
        in_line = extents["start"][1:].astype(np.uint64) == extents["start"][:-1] + extents["length"][:-1]
        first = np.append([True], ~(goes_on & (in_line | hole[1:])))
        groups = np.flatnonzero(first)
        merged = extents[groups].copy()
        merged["length"] = np.add.reduceat(extents["length"], groups)
        extents = merged
    used = np.unique(extents["chunk"][extents["chunk"] != HOLE])
    if len(used) < len(chunks):
        renumber = np.full(len(chunks) + 1, HOLE, dtype=np.uint32)
        renumber[used] = np.arange(len(used), dtype=np.uint32)
        extents = extents.copy()
        extents["chunk"] = renumber[np.minimum(extents["chunk"], len(chunks))]
        chunks = chunks[used]
    return ExtentMap(size, extents, chunks)

"""What a look-up in the chunk index sees: sorted segments, the latest packs, and how each pack stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.repository.index_segment import Segment, as_pack_ids, build_segment
from perdure.repository.index_snapshot import CONDEMNED, GONE, LIVE

__all__ = ["ChunkPlace", "IndexView", "JudgedSegment", "RecentPacks", "Rows", "copies_of", "standing_of"]

Rows = NDArray[np.void]
"""Index rows as a pack's footer holds them."""


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk lies: pack id (16 bytes), offset of its block header, bytes stored, bytes of content."""

    pack: bytes
    offset: int
    stored: int
    raw: int


@dataclass(frozen=True)
class JudgedSegment:
    """A segment and the standing of each of its packs.

    Args:
        segment: The segment.
        standing: One byte for each pack; single bytes are read faster from it than from an array.
    """

    segment: Segment
    standing: bytes

    def standings(self) -> NDArray[np.uint8]:
        """The standing of each pack as an array."""
        return np.frombuffer(self.standing, dtype=np.uint8)

    def place(self, row: int) -> ChunkPlace:
        """Where the chunk of a row lies."""
        segment = self.segment
        pack = segment.packs[segment.pack.item(row)].tobytes()
        return ChunkPlace(pack, segment.offset.item(row), segment.stored.item(row), segment.raw.item(row))


class RecentPacks:
    """The packs that came last, in a dictionary. Changed under the index's lock, read without it."""

    def __init__(self) -> None:
        self.places: dict[bytes, tuple[ChunkPlace, ...]] = {}
        self.packs: dict[bytes, tuple[int, Rows]] = {}
        self.rows = 0

    def add(self, pack: bytes, size: int, rows: Rows) -> None:
        """Take in a pack, in place of what was known of it."""
        self.remove(pack)
        for chunk, offset, stored, raw, *_ in rows.tolist():
            self.places[chunk] = (*self.places.get(chunk, ()), ChunkPlace(pack, offset, stored, raw))
        self.packs[pack] = (size, rows)
        self.rows += len(rows)

    def remove(self, pack: bytes) -> None:
        """Take a pack out, if it is there."""
        _, rows = self.packs.pop(pack, (0, ()))
        self.rows -= len(rows)
        for row in rows:
            chunk = row["id"].tobytes()
            left = tuple(place for place in self.places.get(chunk, ()) if place.pack != pack)
            if left:
                self.places[chunk] = left
            else:
                self.places.pop(chunk, None)

    def segment(self) -> Segment:
        """All of it, sorted."""
        return build_segment([(pack, size, rows) for pack, (size, rows) in self.packs.items()])


@dataclass(frozen=True)
class IndexView:
    """What a look-up sees: replaced as a whole, so a look-up needs no lock. No pack counts twice in it."""

    segments: tuple[JudgedSegment, ...]
    recent: RecentPacks
    condemned: frozenset[bytes]


def copies_of(view: IndexView, chunk: bytes) -> Iterator[tuple[int, ChunkPlace]]:
    """Every copy of a chunk with the standing of its pack."""
    for place in view.recent.places.get(chunk, ()):
        yield CONDEMNED if place.pack in view.condemned else LIVE, place
    prefix, rest = int.from_bytes(chunk[:8], "little"), chunk[8:]
    for judged in view.segments:
        for row in judged.segment.rows_of(prefix, rest):
            standing = judged.standing[judged.segment.pack.item(row)]
            if standing != GONE:
                yield standing, judged.place(row)


def standing_of(
    segment: Segment, condemned: frozenset[bytes], gone: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """The standing of each pack of a segment."""
    standing = np.full(len(segment.packs), LIVE, dtype=np.uint8)
    if condemned:
        hit = segment.numbers_of(as_pack_ids(list(condemned)))
        standing[hit[hit >= 0]] = CONDEMNED
    if gone is not None:
        standing[gone] = GONE
    return standing

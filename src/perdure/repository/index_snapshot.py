"""The chunk index at one moment, for work on all of it at once: every copy of a chunk has a row number.

Rows are numbered from 0 over all segments. What is in the index twice (a chunk in several packs) has several
rows, and :meth:`IndexSnapshot.rows` always names the same one of them: that in the pack with the lowest id.
So two processes that mark the same pool keep the same copies, however their caches are laid out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.extents import ID_SIZE
from perdure.repository.index_segment import ID_KEY, PACK_ID, Segment, as_pack_ids, find_packs

__all__ = ["CONDEMNED", "GONE", "LIVE", "IndexSnapshot", "PackUse", "Places"]

LIVE, CONDEMNED, GONE = 0, 1, 2
"""Standing of a pack: to be used; used only where there is no other copy; not in the pool any more."""

_BLOCK = 1 << 18
"""Rows or ids that are looked at together: bounds the memory of whatever is done to all of them."""
_NO_RANK = np.int64(2**62)
_AFTER_OTHERS = np.int64(2**32)


@dataclass(frozen=True, eq=False)
class PackUse:
    """How much of each pack is in use; arrays with one item per pack, in ascending order of their ids.

    Args:
        packs: Pack ids, dtype ``V16``; ``packs[i].tobytes()`` is one.
        sizes: Bytes of the pack as it is listed.
        condemned: Whether it is condemned.
        chunks: Chunks in it.
        live_chunks: Those of them whose row is live.
        stored: Bytes of all its chunks as stored, block headers (56 bytes each) left out.
        live_stored: The same of the live ones.
    """

    packs: NDArray[np.void]
    sizes: NDArray[np.int64]
    condemned: NDArray[np.bool_]
    chunks: NDArray[np.int64]
    live_chunks: NDArray[np.int64]
    stored: NDArray[np.int64]
    live_stored: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Places:
    """Where rows lie; arrays with one item per row.

    Args:
        pack: Numbers of their packs in :attr:`IndexSnapshot.packs`.
        offset: Offsets of the block headers.
        stored: Bytes stored.
        raw: Bytes of content.
    """

    pack: NDArray[np.int64]
    offset: NDArray[np.int64]
    stored: NDArray[np.int64]
    raw: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Part:
    """A segment inside a snapshot: number of its first row, standing and number in the snapshot of its packs."""

    segment: Segment
    base: int
    standing: NDArray[np.uint8]
    numbers: NDArray[np.int64]


class IndexSnapshot:
    """What the index held at one moment; nothing that happens to the index later changes it.

    Args:
        segments: Segments, and the standing of each of their packs.
    """

    def __init__(self, segments: Sequence[tuple[Segment, NDArray[np.uint8]]]) -> None:
        present = [segment.packs[standing != GONE] for segment, standing in segments]
        self.packs: NDArray[np.void] = np.sort(np.concatenate([np.empty(0, dtype=PACK_ID), *present]))
        """Ids of all packs, dtype ``V16``, ascending; a pack's number is its place here."""
        self._parts: list[_Part] = []
        base = 0
        for segment, standing in segments:
            numbers = np.where(standing == GONE, -1, find_packs(self.packs, segment.packs))
            self._parts.append(_Part(segment, base, standing, numbers))
            base += len(segment)
        self.row_count = base
        """Rows are numbered from 0 to this; a few of the numbers may stand for rows of packs that are gone."""
        self._bases = np.array([part.base for part in self._parts], dtype=np.int64)

    def rows(self, ids: NDArray[np.uint8], *, condemned: bool = False) -> NDArray[np.int64]:
        """For each chunk id the row of one copy of it.

        Args:
            ids: Chunk ids, shape ``(n, 32)``.
            condemned: Also take a copy in a condemned pack where there is no other.

        Returns:
            Row numbers, shape ``(n,)``; -1 where there is no copy.
        """
        keys = np.ascontiguousarray(ids, dtype=np.uint8).reshape(-1, ID_SIZE).view(ID_KEY).reshape(-1)
        ranks = [_ranks(part, condemned) for part in self._parts]
        found = np.empty(len(keys), dtype=np.int64)
        for begin in range(0, len(keys), _BLOCK):
            block = keys[begin : begin + _BLOCK]
            # In order, neighbours share the memory that their search touches.
            order = np.argsort(block["prefix"])
            found[begin : begin + _BLOCK][order] = self._rows_in_order(
                block["prefix"][order], block["rest"][order], ranks
            )
        return found

    def _rows_in_order(
        self, prefixes: NDArray[np.uint64], rests: NDArray[np.void], ranks: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        best = np.full(len(prefixes), -1, dtype=np.int64)
        best_rank = np.full(len(prefixes), _NO_RANK, dtype=np.int64)
        for part, rank in zip(self._parts, ranks, strict=True):
            segment = part.segment
            asked = np.arange(len(prefixes))
            at = segment.prefixes.searchsorted(prefixes)
            # Usually one round: another for each row that shares its prefix with the one before.
            while True:
                inside = at < len(segment)
                asked, at = asked[inside], at[inside]
                same = segment.prefixes[at] == prefixes[asked]
                asked, at = asked[same], at[same]
                if not len(asked):
                    break
                ranked = rank[segment.pack[at]]
                better = (segment.rests[at] == rests[asked]) & (ranked < best_rank[asked])
                best[asked[better]] = part.base + at[better]
                best_rank[asked[better]] = ranked[better]
                at = at + 1
        return best

    def ids(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The chunk ids of rows, shape ``(n, 32)``."""
        keys = np.empty(len(rows), dtype=ID_KEY)
        for part, here, local in self._split(rows):
            keys["prefix"][here] = part.segment.prefixes[local]
            keys["rest"][here] = part.segment.rests[local]
        return keys.view(np.uint8).reshape(-1, ID_SIZE)

    def places(self, rows: NDArray[np.int64]) -> Places:
        """Where rows lie. None of them may be -1."""
        pack, offset, stored, raw = (np.empty(len(rows), dtype=np.int64) for _ in range(4))
        for part, here, local in self._split(rows):
            segment = part.segment
            pack[here] = part.numbers[segment.pack[local]]
            offset[here], stored[here], raw[here] = segment.offset[local], segment.stored[local], segment.raw[local]
        return Places(pack, offset, stored, raw)

    def pack_of_row(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of the packs of rows (see :attr:`packs`); -1 for a pack that is gone."""
        pack = np.empty(len(rows), dtype=np.int64)
        for part, here, local in self._split(rows):
            pack[here] = part.numbers[part.segment.pack[local]]
        return pack

    def rows_of_pack(self, pack: bytes) -> NDArray[np.int64]:
        """The rows of a pack in the order in which its chunks lie, none if it is unknown. Looks at every row."""
        for part in self._parts:
            number = int(part.segment.numbers_of(as_pack_ids(pack))[0])
            if number >= 0 and part.standing[number] != GONE:
                local = np.flatnonzero(part.segment.pack == number)
                return part.base + local[np.argsort(part.segment.offset[local])]
        return np.empty(0, dtype=np.int64)

    def rows_of_packs(self, wanted: NDArray[np.bool_], live: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Some rows of several packs, in order of the packs' numbers and in each in the order in which they lie.

        Args:
            wanted: For every pack whether it is wanted, shape ``(len(packs),)``.
            live: For every row whether it is wanted if its pack is, shape ``(row_count,)``.
        """
        found = [np.empty(0, dtype=np.int64)]
        for part in self._parts:
            here = np.append(wanted, False)[part.numbers]
            for begin in range(0, len(part.segment), _BLOCK):
                pack = part.segment.pack[begin : begin + _BLOCK]
                rows = part.base + begin + np.arange(len(pack))
                found.append(rows[here[pack] & live[rows]])
        rows = np.concatenate(found)
        places = self.places(rows)
        return rows[np.lexsort((places.offset, places.pack))]

    def ids_of(self, pack: bytes) -> NDArray[np.uint8]:
        """The chunk ids of a pack, shape ``(n, 32)``, in the order in which its chunks lie. Looks at every row."""
        return self.ids(self.rows_of_pack(pack))

    def per_pack(self, live: NDArray[np.bool_]) -> PackUse:
        """How much of each pack is in use.

        Args:
            live: For every row whether it is needed, shape ``(row_count,)``.
        """
        totals = np.zeros((4, len(self.packs)), dtype=np.int64)
        sizes = np.zeros(len(self.packs), dtype=np.int64)
        condemned = np.zeros(len(self.packs), dtype=np.bool_)
        for part in self._parts:
            known = part.numbers >= 0
            sizes[part.numbers[known]] = part.segment.sizes[known]
            condemned[part.numbers[known]] = part.standing[known] == CONDEMNED
            sums = _sums_per_pack(part.segment, live[part.base : part.base + len(part.segment)])
            totals[:, part.numbers[known]] += sums[:, known]
        return PackUse(self.packs, sizes, condemned, *totals)

    def _split(self, rows: NDArray[np.int64]) -> Iterator[tuple[_Part, NDArray[np.intp], NDArray[np.int64]]]:
        """Rows by part: where they are in ``rows``, and their numbers inside the part."""
        owner = self._bases.searchsorted(rows, side="right") - 1
        for number, part in enumerate(self._parts):
            here = np.flatnonzero(owner == number)
            if len(here):
                yield part, here, rows[here] - part.base


def _ranks(part: _Part, condemned: bool) -> NDArray[np.int64]:
    """For each pack how far behind it comes when a chunk has several copies."""
    last = part.numbers + _AFTER_OTHERS if condemned else np.full(len(part.numbers), _NO_RANK)
    return np.select([part.standing == LIVE, part.standing == CONDEMNED], [part.numbers, last], _NO_RANK)


def _sums_per_pack(segment: Segment, live: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Chunks, live chunks, bytes stored and live bytes stored of each pack, shape ``(4, packs)``."""
    count = len(segment.packs)
    sums = np.zeros((4, count), dtype=np.int64)
    for begin in range(0, len(segment), _BLOCK):
        cut = slice(begin, begin + _BLOCK)
        pack, stored, used = segment.pack[cut], segment.stored[cut], live[cut]
        sums[0] += np.bincount(pack, minlength=count)
        sums[1] += np.bincount(pack[used], minlength=count)
        # The weights are summed as float64, which is exact below 2^53.
        sums[2] += np.bincount(pack, weights=stored, minlength=count).astype(np.int64)
        sums[3] += np.bincount(pack[used], weights=stored[used], minlength=count).astype(np.int64)
    return sums

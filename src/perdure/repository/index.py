"""The chunk index: where each chunk lies. A cache; packs are the truth.

The index is a few immutable sorted segments, memory-mapped from the cache directory, and a dictionary for the
packs that came last. :meth:`ChunkIndex.match` lists the pool's packs and mends the index to agree: packs it does
not know are read from their footers, packs that are gone are forgotten. A segment that fails its checksum is
thrown away and read again from the packs, so a damaged cache can cost time but not data.

Memory is bounded: the dictionary becomes a segment in the cache directory when it is full.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.repository.index_cache import IndexCache
from perdure.repository.index_listing import PackListing, each_pack_index
from perdure.repository.index_merging import due_for_merging, is_stale, plan_merge
from perdure.repository.index_segment import Segment, as_pack_ids, build_segment
from perdure.repository.index_snapshot import GONE, LIVE, IndexSnapshot
from perdure.repository.index_view import (
    ChunkPlace,
    IndexView,
    JudgedSegment,
    RecentPacks,
    Rows,
    copies_of,
    standing_of,
)

__all__ = ["ChunkIndex", "ChunkPlace", "IndexSnapshot"]


@dataclass
class _Meanwhile:
    """Packs that came and went while the pool was being listed; the listing may not show it."""

    appeared: dict[bytes, int]
    vanished: set[bytes]


class ChunkIndex:
    """Look-up by chunk id. All methods may be called from several threads.

    Args:
        directory: The cache; it is made when needed. Several processes may use it at once.
        recent_rows: Chunks of the latest packs that are kept in a dictionary (some 300 bytes each).
        batch_rows: Chunks that are read from packs before they are written to the cache (some 150 bytes each).
    """

    def __init__(self, directory: Path, *, recent_rows: int = 1 << 16, batch_rows: int = 1 << 19) -> None:
        self._cache = IndexCache(directory)
        self._recent_rows = recent_rows
        self._batch_rows = batch_rows
        self._view = IndexView((), RecentPacks(), frozenset())
        self._meanwhile: _Meanwhile | None = None
        self._lock = threading.RLock()  # for every change of the view; never held while something is read or written
        self._upkeep = threading.Lock()  # for work on the cache; taken before the other

    def __len__(self) -> int:
        """Chunks in all packs; one that lies in several packs counts for each."""
        view = self._view
        rows = (judged.segment.rows_per_pack()[judged.standings() != GONE].sum() for judged in view.segments)
        return sum(map(int, rows)) + view.recent.rows

    @property
    def pack_count(self) -> int:
        view = self._view
        present = (len(judged.standing) - judged.standing.count(GONE) for judged in view.segments)
        return sum(present) + len(view.recent.packs)

    # --- look-up ---

    def find(self, chunk: bytes) -> ChunkPlace | None:
        """Where a chunk lies, or ``None``; outside the condemned packs if it can be."""
        return self._found(chunk)[0]

    def has(self, chunk: bytes) -> bool:
        """Whether a chunk lies outside the condemned packs, so that a capture may rely on it."""
        return self._found(chunk)[1]

    def find_all(self, chunk: bytes) -> list[ChunkPlace]:
        """Every copy of a chunk, those in condemned packs last."""
        copies = sorted(copies_of(self._view, chunk), key=lambda copy: (copy[0], copy[1].pack, copy[1].offset))
        return [place for _, place in copies]

    def snapshot(self) -> IndexSnapshot:
        """The whole index as it is now, for work on many chunks at once."""
        with self._lock:
            view = self._view
            segments = [(judged.segment, judged.standings()) for judged in view.segments]
            if view.recent.packs:
                recent = view.recent.segment()
                segments.append((recent, standing_of(recent, view.condemned)))
        return IndexSnapshot(segments)

    def _found(self, chunk: bytes) -> tuple[ChunkPlace | None, bool]:
        """One copy, and whether it is outside the condemned packs."""
        fallback = None
        for standing, place in copies_of(self._view, chunk):
            if standing == LIVE:
                return place, True
            fallback = fallback or place
        return fallback, False

    # --- packs come and go ---

    def add_pack(self, pack: bytes, size: int, rows: Rows) -> None:
        """Take in the index rows of a durable pack."""
        with self._lock:
            if self._meanwhile is not None:
                self._meanwhile.appeared[pack] = size
                self._meanwhile.vanished.discard(pack)
            self._drop({pack})
            self._view.recent.add(pack, size, rows)
            full = self._view.recent.rows > self._recent_rows
        # Whoever is busy with the cache finds the rows there too; the next pack tries again.
        if full and self._upkeep.acquire(blocking=False):
            try:
                self._write_out(spilling=True)
            finally:
                self._upkeep.release()

    def forget(self, packs: Iterable[bytes]) -> None:
        """Take packs out that were deleted; effective at once."""
        with self._lock:
            gone = set(packs)
            if self._meanwhile is not None:
                self._meanwhile.vanished |= gone
                for pack in gone:
                    self._meanwhile.appeared.pop(pack, None)
            self._drop(gone)

    def avoid(self, packs: Iterable[bytes]) -> None:
        """Say which packs are condemned: all others are not, whatever was said before."""
        with self._lock:
            view, condemned = self._view, frozenset(packs)
            segments = tuple(
                JudgedSegment(
                    judged.segment, standing_of(judged.segment, condemned, judged.standings() == GONE).tobytes()
                )
                for judged in view.segments
            )
            self._view = IndexView(segments, view.recent, condemned)

    def _drop(self, packs: set[bytes]) -> None:
        """Take packs out of the view. The lock is held."""
        view = self._view
        for pack in packs & view.recent.packs.keys():
            view.recent.remove(pack)
        gone = np.sort(as_pack_ids(list(packs)))
        segments = []
        for judged in view.segments:
            hit = judged.segment.numbers_of(gone)
            standing = bytearray(judged.standing)
            for number in hit[hit >= 0].tolist():
                standing[number] = GONE
            segments.append(JudgedSegment(judged.segment, bytes(standing)) if standing != judged.standing else judged)
        self._view = IndexView(tuple(segments), view.recent, view.condemned)

    # --- agreement with the pool ---

    def match(
        self, packs: Iterable[tuple[bytes, int]], read_index: Callable[[bytes, int], Rows], *, threads: int = 4
    ) -> None:
        """Make the index agree with the pool. What is known already is not read again.

        Args:
            packs: Id and size of every pack that the pool lists. It should be the listing itself rather than a
                list made before: what happens to the index from here on is not undone by an older listing.
            read_index: Reads the index rows of a pack; called from several threads. A pack for which it raises
                ``ObjectMissing`` was deleted meanwhile.
            threads: Packs that are read at once.
        """
        with self._upkeep:
            with self._lock:
                self._meanwhile = _Meanwhile({}, set())
            try:
                # Listing waits for the storage most of the time, reading the cache for its checksum.
                with ThreadPoolExecutor(1, thread_name_prefix="read-index-cache") as reading:
                    cached = reading.submit(self._cached)
                    listed = PackListing.of(packs)
                unknown = self._agree(listed, cached.result())
                self._read(each_pack_index(unknown, read_index, threads))
            finally:
                with self._lock:
                    self._meanwhile = None

    def _cached(self) -> list[Segment]:
        """The segments of the cache, also those that another process wrote since."""
        with self._cache.locked():
            return self._cache.segments([judged.segment for judged in self._view.segments])

    def _agree(self, listed: PackListing, cached: Sequence[Segment]) -> Sequence[tuple[bytes, int]]:
        """Take over what cache and memory hold of the listed packs; returns the packs that are unknown."""
        with self._lock:
            assert self._meanwhile is not None
            listed = listed.changed(self._meanwhile.appeared, self._meanwhile.vanished)
            files = {segment.file for segment in cached}
            ours = [judged.segment for judged in self._view.segments if judged.segment.file not in files]
            unclaimed = self._arrange([*cached, *ours], listed)
            return listed.chosen(unclaimed)

    def _arrange(self, segments: Sequence[Segment], listed: PackListing) -> NDArray[np.bool_]:
        """Make a view of these segments and the recent packs that holds every listed pack once.

        Returns which of the listed packs are in none of them. The lock is held.
        """
        unclaimed = np.ones(len(listed), dtype=np.bool_)
        view, judged = self._view, []
        for segment in segments:
            at = listed.where(segment.packs, segment.sizes)
            present = at >= 0
            present[present] = unclaimed[at[present]]
            unclaimed[at[present]] = False
            if present.any():
                judged.append(JudgedSegment(segment, standing_of(segment, view.condemned, ~present).tobytes()))
        recent = RecentPacks()
        for pack, (size, rows) in view.recent.packs.items():
            at = listed.where(as_pack_ids(pack), np.array([size], dtype=np.uint64))
            if at[0] >= 0 and unclaimed[at[0]]:
                unclaimed[at[0]] = False
                recent.add(pack, size, rows)
        self._view = IndexView(tuple(judged), recent, view.condemned)
        return unclaimed

    def _read(self, found: Iterator[tuple[bytes, int, Rows]]) -> None:
        """Take in packs that were not known, in batches."""
        batch: list[tuple[bytes, int, Rows]] = []
        rows = 0
        for item in found:
            batch.append(item)
            rows += len(item[2])
            if rows >= self._batch_rows:
                self._take(batch)
                self._write_out(spilling=True)
                batch, rows = [], 0
        self._take(batch)

    def _take(self, batch: list[tuple[bytes, int, Rows]]) -> None:
        """Put packs that were read into the view, unless they came or went by another way meanwhile."""
        with self._lock:
            assert self._meanwhile is not None
            settled = self._meanwhile.appeared.keys() | self._meanwhile.vanished
            batch = [item for item in batch if item[0] not in settled]
            view = self._view
            if sum(len(rows) for _, _, rows in batch) <= self._recent_rows // 2:
                for item in batch:
                    view.recent.add(*item)
            else:
                segment = build_segment(batch)
                judged = JudgedSegment(segment, standing_of(segment, view.condemned).tobytes())
                self._view = IndexView((*view.segments, judged), view.recent, view.condemned)

    # --- the cache ---

    def save(self) -> None:
        """Write what is new to the cache. A cache that cannot be written is left as it is."""
        with self._upkeep:
            self._write_out(spilling=False)

    def _write_out(self, *, spilling: bool) -> None:
        """Bring everything that is only in memory into the cache.

        Args:
            spilling: More will come soon, so segments are merged only if there are too many.
        """
        with self._lock:
            view = self._view
            parts = [(judged.segment, judged.standings() != GONE) for judged in view.segments]
            if view.recent.packs:
                recent = view.recent.segment()
                parts.append((recent, np.ones(len(recent.packs), dtype=np.bool_)))
        cached = [(len(segment), is_stale(kept)) for segment, kept in parts if segment.file]
        if len(cached) == len(parts) and (spilling or not due_for_merging(cached, 0)):
            return
        with contextlib.suppress(OSError):
            self._cache.make()
            with self._cache.locked():
                kept_files, merged = plan_merge(
                    self._cache.segments([segment for segment, _ in parts]), parts, spilling
                )
                if merged:
                    kept_files.append(self._cache.write(merged))
                self._cache.name(kept_files)
            with self._lock:
                present = self._present()
                self._arrange([*kept_files, *(judged.segment for judged in self._view.segments)], present)

    def _present(self) -> PackListing:
        """All packs of the view. The lock is held."""
        view = self._view
        kept = [(judged.segment, judged.standings() != GONE) for judged in view.segments]
        recent = view.recent.packs
        return PackListing(
            np.concatenate([as_pack_ids(list(recent)), *(segment.packs[keep] for segment, keep in kept)]),
            np.concatenate(
                [
                    np.array([size for size, _ in recent.values()], dtype=np.uint64),
                    *(segment.sizes[keep] for segment, keep in kept),
                ]
            ),
        )

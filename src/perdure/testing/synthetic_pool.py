"""Pools of any nominal size on a small disk, to measure what grows with the size of a pool.

What is real: descriptor, keys, sources, recovery-point records, every extent map (base maps, deltas, a new base after
32 deltas) in sealed packs, the index of all chunks in the cache, and the names, number and listed sizes of all packs.
All of it is written by the code that writes it in a real pool.

What is synthetic: the packs of data are sparse files without content, and the ids of the chunks in them are random
numbers instead of hashes. The index rows that a pack's footer would give come from memory while the cache is made. So
such a pool opens, lists, matches, looks up, marks and counts like a real one as long as its cache is there; what reads
data (recovery, verification, repacking) finds it damaged.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.model.extents import EXTENT, ID_SIZE, ExtentMap
from perdure.model.points import DataSource, ImageFile, PointKind, RecoveryPoint, StreamRef
from perdure.model.positions import Position
from perdure.repository.container import BLOCK_HEADER, HEADER_SIZE
from perdure.repository.index import ChunkIndex
from perdure.repository.index_segment import PACK_ID
from perdure.repository.opening import create_pool
from perdure.repository.packs import FOOTER_ROW, pack_name
from perdure.repository.pool import Pool
from perdure.storage.local import LocalStorage

__all__ = ["SYNTHETIC_PASSPHRASE", "SyntheticPool", "make_synthetic_pool"]

SYNTHETIC_PASSPHRASE = b"synthetic"

_CHUNK = 1 << 20
_CHUNKS_PER_PACK = 64
_PACK_BYTES = HEADER_SIZE + _CHUNKS_PER_PACK * (_CHUNK + BLOCK_HEADER) + 4096
_DELTAS = 32
_RUN = 128 << 10
"""Bytes of one changed range: an express full of such a pool stores eight of them in a chunk."""
_RUNS_PER_CHUNK = _CHUNK // _RUN
_GARBAGE = 0.05
"""Share of the chunks that no point needs."""
_FIRST_IMAGE = 0.5
"""Share of a source's chunks that its first image made; the express fulls after it share the rest."""
_DAY_NS = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class SyntheticPool:
    """What was made.

    Args:
        root: The pool.
        cache: Its cache directory.
        packs: Packs in all, those with maps included.
        chunks: Chunks of data in them.
        live: Chunks of data that the points need.
        points: Recovery points.
        stored: Nominal bytes of the data.
    """

    root: Path
    cache: Path
    packs: int
    chunks: int
    live: int
    points: int
    stored: int


def make_synthetic_pool(
    folder: Path, size: int, *, sources: int = 20, points: int = 50, seed: int = 1
) -> SyntheticPool:
    """Make a pool of a nominal size.

    Args:
        folder: Where ``pool`` and ``cache`` are put.
        size: Nominal bytes of data; at least some 4 MiB for every point.
        sources: Data sources, of equal size.
        points: Recovery points of each: one image and express fulls of equal size after it.
        seed: Different seeds give different ids.

    Raises:
        ValueError: The size is too small for so many points.
    """
    rng = np.random.default_rng(seed)
    share = size // _CHUNK // sources
    garbage, first = int(share * _GARBAGE), int(share * _FIRST_IMAGE)
    later = (share - garbage - first) // max(1, points - 1)
    if not later:
        raise ValueError(f"{size} bytes are too few for {sources * points} recovery points")
    live = first + later * (points - 1)
    ids = rng.integers(0, 256, (sources, garbage + live, ID_SIZE), dtype=np.uint8)

    storage = LocalStorage(folder / "pool", create=True)
    cache = folder / "cache"
    pool, _ = create_pool(storage, SYNTHETIC_PASSPHRASE, cache)
    packs = _make_packs(storage.root, cache / "index", ids.reshape(-1, ID_SIZE), rng)
    with pool:
        for number in range(sources):
            source = DataSource(f"{number:032x}", f"source-{number:02}", "sqlite", f"/srv/{number:02}.db")
            pool.register(source)
            _commit_points(pool, source, _Image(ids[number, garbage:], first), [later] * (points - 1), rng)
        packs += sum(1 for _ in storage.list("packs")) - packs
    chunks = ids.shape[0] * ids.shape[1]
    return SyntheticPool(storage.root, cache, packs, chunks, sources * live, sources * points, chunks * _CHUNK)


def _make_packs(root: Path, index_directory: Path, ids: NDArray[np.uint8], rng: np.random.Generator) -> int:
    """Make the packs of data, and index them."""
    count = -(-len(ids) // _CHUNKS_PER_PACK)
    names = rng.integers(0, 256, (count, PACK_ID.itemsize), dtype=np.uint8)
    numbers = {names[number].tobytes(): number for number in range(count)}
    for first in range(256):
        (root / "packs" / f"{first:02x}").mkdir(parents=True, mode=0o700)
    for pack in numbers:
        descriptor = os.open(root / pack_name(pack), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, _PACK_BYTES)
        os.close(descriptor)

    def rows(pack: bytes, _: int) -> NDArray[np.void]:
        at = numbers[pack] * _CHUNKS_PER_PACK
        part = ids[at : at + _CHUNKS_PER_PACK]
        footer = np.zeros(len(part), dtype=FOOTER_ROW)
        footer["id"] = part.view("V32").reshape(-1)
        footer["offset"] = HEADER_SIZE + np.arange(len(part)) * (_CHUNK + BLOCK_HEADER)
        footer["stored"] = footer["raw"] = _CHUNK
        return footer

    index = ChunkIndex(index_directory)
    index.match(((pack, _PACK_BYTES) for pack in numbers), rows, threads=1)
    index.save()
    return count


class _Image:
    """A source's image: which part of which chunk each of its ranges of :data:`_RUN` bytes is.

    Args:
        ids: Ids of all chunks that the source's points need, in the order in which they were stored.
        first: How many of them the first image made.
    """

    def __init__(self, ids: NDArray[np.uint8], first: int) -> None:
        self.size = first * _CHUNK
        self._ids = ids
        self._chunk, self._part = np.divmod(np.arange(first * _RUNS_PER_CHUNK, dtype=np.uint32), _RUNS_PER_CHUNK)
        self._next = first

    def change(self, chunks: int, rng: np.random.Generator) -> ExtentMap:
        """Change as many ranges as so many new chunks hold; returns the delta that an express full stores."""
        ranges = chunks * _RUNS_PER_CHUNK
        places = np.sort(rng.choice(len(self._chunk), ranges, replace=False))
        number, part = np.divmod(np.arange(ranges, dtype=np.uint32), _RUNS_PER_CHUNK)
        self._chunk[places], self._part[places] = self._next + number, part
        rows = np.zeros(ranges, dtype=EXTENT)
        rows["offset"], rows["length"] = places.astype(np.uint64) * _RUN, _RUN
        rows["chunk"], rows["start"] = number, part * _RUN
        ids = self._ids[self._next : self._next + chunks]
        self._next += chunks
        return ExtentMap(self.size, rows, ids)

    def whole(self) -> ExtentMap:
        """The map of the whole image, as laying all deltas over the first map would give it."""
        goes_on = (self._chunk[1:] == self._chunk[:-1]) & (self._part[1:] == self._part[:-1] + 1)
        begin = np.flatnonzero(np.append([True], ~goes_on))
        used, number = np.unique(self._chunk[begin], return_inverse=True)
        rows = np.zeros(len(begin), dtype=EXTENT)
        rows["offset"] = begin.astype(np.uint64) * _RUN
        rows["length"] = np.diff(begin, append=len(self._chunk)).astype(np.uint64) * _RUN
        rows["chunk"], rows["start"] = number, self._part[begin] * _RUN
        return ExtentMap(self.size, rows, self._ids[used])


def _commit_points(
    pool: Pool, source: DataSource, image: _Image, changed: Sequence[int], rng: np.random.Generator
) -> None:
    """The first image, then an express full for each number of changed chunks; a new base after 32 deltas."""
    base: StreamRef | None = None
    deltas: list[StreamRef] = []
    for number, chunks in enumerate([0, *changed], 1):
        capture = pool.capture(source.id)
        delta = image.change(chunks, rng) if chunks else None
        if delta is None or len(deltas) == _DELTAS:
            extents = image.whole()
            base, deltas = capture.put_map(extents), []
        else:
            deltas.append(capture.put_map(delta))
        assert base is not None
        file = ImageFile("database", image.size, 8192, base, tuple(deltas), len(extents.extents))
        position = Position(1, number)
        capture.commit(
            RecoveryPoint(
                number, source.id, PointKind.EXPRESS_FULL, number * _DAY_NS, position, files=(file,), size=image.size
            )
        )

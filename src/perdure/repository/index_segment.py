"""One sorted, immutable part of the chunk index, in columns, and its file in the cache.

File, integers little-endian, columns one after the other so that a look-up touches little of it::

    u8[8]   "PRDINDEX"     u64 packs p     u64 rows n     u64 zero
    u8[16p] pack ids, ascending            u64[p] bytes of each pack
    u64[n]  first 8 bytes of the chunk id, ascending
    u8[24n] the rest of the chunk id
    u32[n]  number of the pack   u32[n] offset of the block header   u32[n] stored   u32[n] raw
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

__all__ = ["ID_KEY", "PACK_ID", "Segment", "as_pack_ids", "build_segment", "load_segment", "private", "write_segment"]

PACK_ID = np.dtype("V16")
ID_KEY = np.dtype([("prefix", "<u8"), ("rest", "V24")])
"""A chunk id (32 bytes) as it is looked up."""

_HEAD = struct.Struct("<8sQQQ")
_MAGIC = b"PRDINDEX"
_COLUMNS = (
    ("prefixes", "<u8"),
    ("rests", "V24"),
    ("pack", "<u4"),
    ("offset", "<u4"),
    ("stored", "<u4"),
    ("raw", "<u4"),
)
_ROW_BYTES = sum(np.dtype(kind).itemsize for _, kind in _COLUMNS)
_BLOCK_ROWS = 1 << 18
"""Rows that are merged at once, so that merging needs the same memory at every size."""
_READ = 4 << 20


@dataclass(frozen=True, eq=False)
class Segment:
    """Sorted index rows of some packs.

    Args:
        packs: Pack ids, dtype :data:`PACK_ID`, ascending.
        sizes: Bytes of each pack.
        prefixes: First 8 bytes of every chunk id as an integer, ascending.
        rests: The other 24 bytes.
        pack: Number of the row's pack in ``packs``.
        offset: Offset of the chunk's block header in its pack.
        stored: Bytes of the chunk as stored.
        raw: Bytes of its content.
        file: Its file in the cache, empty if it is only in memory.
        digest: BLAKE3 of the file.
    """

    packs: NDArray[np.void]
    sizes: NDArray[np.uint64]
    prefixes: NDArray[np.uint64]
    rests: NDArray[np.void]
    pack: NDArray[np.uint32]
    offset: NDArray[np.uint32]
    stored: NDArray[np.uint32]
    raw: NDArray[np.uint32]
    file: str = ""
    digest: bytes = field(default=b"", repr=False)

    def __len__(self) -> int:
        return len(self.prefixes)

    def numbers_of(self, packs: NDArray[np.void]) -> NDArray[np.int64]:
        """For each pack id its number here, or -1."""
        return find_packs(self.packs, packs)

    def rows_of(self, prefix: int, rest: bytes) -> Iterator[int]:
        """The rows of one chunk id: its first 8 bytes and the other 24."""
        # item() gives Python's own numbers and bytes, which are several times faster to handle one by one.
        row = self.prefixes.searchsorted(np.uint64(prefix)).item()
        while row < len(self.prefixes) and self.prefixes.item(row) == prefix:
            if self.rests.item(row) == rest:
                yield row
            row += 1

    def rows_per_pack(self) -> NDArray[np.int64]:
        """Number of rows of each pack."""
        counts = np.zeros(len(self.packs), dtype=np.int64)
        for begin in range(0, len(self), _BLOCK_ROWS):
            counts += np.bincount(self.pack[begin : begin + _BLOCK_ROWS], minlength=len(counts))
        return counts


def as_pack_ids(packs: Sequence[bytes] | bytes | bytearray) -> NDArray[np.void]:
    """Pack ids (16 bytes each, or all of them joined) as an array of :data:`PACK_ID`."""
    joined = packs if isinstance(packs, bytes | bytearray) else b"".join(packs)
    return np.frombuffer(joined, dtype=PACK_ID)


def find_packs(ascending: NDArray[np.void], packs: NDArray[np.void]) -> NDArray[np.int64]:
    """For each of ``packs`` its place in ``ascending``, or -1."""
    if not len(ascending) or not len(packs):
        return np.full(len(packs), -1, dtype=np.int64)
    at = np.minimum(ascending.searchsorted(packs), len(ascending) - 1)
    return np.where(ascending[at] == packs, at, -1)


def build_segment(packs: Sequence[tuple[bytes, int, NDArray[np.void]]]) -> Segment:
    """A segment in memory.

    Args:
        packs: Id, size and footer rows of each pack; no pack twice.
    """
    ordered = sorted(packs, key=lambda item: item[0])
    counts = [len(rows) for _, _, rows in ordered]
    keys = np.frombuffer(b"".join(rows["id"].tobytes() for _, _, rows in ordered), dtype=ID_KEY)
    order = np.argsort(keys["prefix"], kind="stable")

    def column(name: str) -> NDArray[np.uint32]:
        parts = [rows[name] for _, _, rows in ordered]
        return np.concatenate(parts)[order].astype(np.uint32) if parts else np.empty(0, dtype=np.uint32)

    return Segment(
        packs=as_pack_ids([pack for pack, _, _ in ordered]),
        sizes=np.array([size for _, size, _ in ordered], dtype=np.uint64),
        prefixes=keys["prefix"][order],
        rests=keys["rest"][order],
        pack=np.repeat(np.arange(len(ordered), dtype=np.uint32), counts)[order],
        offset=column("offset"),
        stored=column("stored"),
        raw=column("raw"),
    )


# --- files ---


def load_segment(directory: Path, file: str, digest: bytes) -> Segment | None:
    """Map a segment's file, or ``None`` if it is missing or not what was written.

    The whole file is hashed: a wrong pack number would make a chunk seem to be where it is not. At the rate of
    BLAKE3 that costs some tenths of a second for ten million chunks. It is read rather than mapped for that, so
    that the process does not count all of it as its own memory.
    """
    try:
        with (directory / file).open("rb", buffering=0) as opened:
            if _digest(opened.fileno()) != digest:
                return None
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        return _columns(mapped, file, digest)
    except (OSError, ValueError, struct.error):
        return None


def _digest(descriptor: int) -> bytes:
    hasher = blake3(max_threads=blake3.AUTO)
    buffer = bytearray(_READ)
    at = 0
    while read := os.preadv(descriptor, [buffer], at):
        hasher.update(memoryview(buffer)[:read])
        at += read
    return hasher.digest()


def _columns(mapped: mmap.mmap, file: str, digest: bytes) -> Segment:
    magic, packs, rows, _ = _HEAD.unpack_from(mapped)
    if magic != _MAGIC or len(mapped) != _HEAD.size + 24 * packs + _ROW_BYTES * rows:
        raise ValueError("not an index segment")
    at = _HEAD.size + 24 * packs
    columns = {}
    for name, kind in _COLUMNS:
        columns[name] = np.frombuffer(mapped, dtype=kind, count=rows, offset=at)
        at += rows * np.dtype(kind).itemsize
    return Segment(
        packs=np.frombuffer(mapped, dtype=PACK_ID, count=packs, offset=_HEAD.size),
        sizes=np.frombuffer(mapped, dtype="<u8", count=packs, offset=_HEAD.size + 16 * packs),
        **columns,
        file=file,
        digest=digest,
    )


def private(path: str, flags: int) -> int:
    """Open a file that only its owner may read, whatever the umask."""
    return os.open(path, flags, 0o600)


def write_segment(directory: Path, parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> Segment:
    """Merge segments into a new file, durable on return.

    Args:
        directory: The cache.
        parts: Segments, and for each which of its packs go into the new one; no pack may go into it twice.

    Raises:
        OSError: It cannot be written; nothing is left of it.
    """
    temporary = directory / f"segment.{os.getpid()}-{threading.get_ident()}.tmp"
    try:
        with open(temporary, "w+b", buffering=0, opener=private) as opened:
            _merge(opened.fileno(), parts)
            os.fsync(opened.fileno())
            digest = _digest(opened.fileno())
        file = f"{digest[:12].hex()}.idx"
        temporary.replace(directory / file)
        with (directory / file).open("rb") as written:
            return _columns(mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_READ), file, digest)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _merge(descriptor: int, parts: Sequence[tuple[Segment, NDArray[np.bool_]]]) -> None:
    """Write the merged segment range by range of prefixes."""
    ids = np.concatenate([segment.packs[keep] for segment, keep in parts])
    sizes = np.concatenate([segment.sizes[keep] for segment, keep in parts])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    total = sum(int(segment.rows_per_pack()[keep].sum()) for segment, keep in parts)
    _write_at(descriptor, 0, _HEAD.pack(_MAGIC, len(ids), total, 0) + ids.tobytes() + sizes[order].tobytes())
    renumbered = [find_packs(ids, segment.packs).astype(np.uint32) for segment, _ in parts]

    steps = max(1, sum(len(segment) for segment, _ in parts) // _BLOCK_ROWS)
    cuts = np.array([(step << 64) // steps for step in range(steps)], dtype=np.uint64)
    bounds = [np.append(segment.prefixes.searchsorted(cuts), len(segment)) for segment, _ in parts]
    done = 0
    for step in range(steps):
        pieces = []
        for (segment, keep), numbers, bound in zip(parts, renumbered, bounds, strict=True):
            cut = slice(int(bound[step]), int(bound[step + 1]))
            kept = keep[segment.pack[cut]]
            columns = {name: getattr(segment, name)[cut][kept] for name, _ in _COLUMNS}
            columns["pack"] = numbers[columns["pack"]]
            pieces.append(columns)
        order = np.argsort(np.concatenate([piece["prefixes"] for piece in pieces]), kind="stable")
        at = _HEAD.size + 24 * len(ids)
        for name, kind in _COLUMNS:
            size = np.dtype(kind).itemsize
            column = np.concatenate([piece[name] for piece in pieces])[order]
            _write_at(descriptor, at + done * size, column.tobytes())
            at += total * size
        done += len(order)


def _write_at(descriptor: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

"""The stored form of an extent map.

Integers little-endian, columns one after the other so that zstd finds their regularity::

    u8[4]  "XMAP"      u16 version = 1     u16 zero
    u64    file size   u32 extents n       u32 chunks m
    u64[n] gap between the end of the extent before and this one (first: its offset)
    u64[n] length
    u32[n] chunk number minus that of the extent before, modulo 2^32 (first: the number itself)
    u32[n] start in the chunk
    m * 32 chunk ids
"""

from __future__ import annotations

import struct

import numpy as np

from perdure.model.errors import Damaged
from perdure.model.extents import EXTENT, HOLE, ID_SIZE, ExtentMap

__all__ = ["decode_map", "encode_map"]

_HEAD = struct.Struct("<4sHHQII")
_MAX_SIZE = 1 << 62
_LONGEST = 64 << 20
"""No chunk has more bytes, so no extent reaches farther into one."""


def encode_map(extents: ExtentMap) -> bytes:
    """The stored form of a map."""
    rows = extents.extents
    ends = rows["offset"] + rows["length"]
    gap = rows["offset"].copy()
    gap[1:] -= ends[:-1]
    chunk = rows["chunk"].copy()
    chunk[1:] -= rows["chunk"][:-1]
    head = _HEAD.pack(b"XMAP", 1, 0, extents.size, len(rows), len(extents.chunks))
    columns = (gap.astype("<u8"), rows["length"].astype("<u8"), chunk.astype("<u4"), rows["start"].astype("<u4"))
    return b"".join([head, *(column.tobytes() for column in columns), extents.chunks.tobytes()])


def decode_map(data: bytes) -> ExtentMap:
    """Read a map back.

    Raises:
        Damaged: These bytes are no map, or one whose extents overlap, overflow or name chunks that it has not.
    """
    try:
        magic, version, zero, size, n, m = _HEAD.unpack_from(data)
    except struct.error as error:
        raise Damaged("an extent map is cut off", code="damaged-map") from error
    if magic != b"XMAP" or version != 1 or zero or len(data) != _HEAD.size + 24 * n + ID_SIZE * m or size > _MAX_SIZE:
        raise Damaged("an extent map is damaged: its header does not fit its length", code="damaged-map")
    at = _HEAD.size
    gap = np.frombuffer(data, "<u8", n, at)
    length = np.frombuffer(data, "<u8", n, at + 8 * n)
    chunk = np.cumsum(np.frombuffer(data, "<u4", n, at + 16 * n), dtype=np.uint32)
    start = np.frombuffer(data, "<u4", n, at + 20 * n)
    chunks = np.frombuffer(data, np.uint8, ID_SIZE * m, at + 24 * n).reshape(-1, ID_SIZE)
    sane = (gap <= size) & (length <= size) & (length > 0)
    if not sane.all() or float(gap.sum(dtype=np.float64) + length.sum(dtype=np.float64)) > size + 4096.0:
        raise Damaged("an extent map is damaged: its extents leave the file", code="damaged-map")
    if not ((chunk == HOLE) | (length + start <= _LONGEST)).all():
        raise Damaged("an extent map is damaged: an extent is longer than any chunk", code="damaged-map")
    rows = np.empty(n, dtype=EXTENT)
    ends = np.cumsum(gap + length, dtype=np.uint64)
    rows["offset"], rows["length"], rows["chunk"], rows["start"] = ends - length, length, chunk, start
    if n and (int(ends[-1]) > size or not ((chunk < m) | (chunk == HOLE)).all()):
        raise Damaged("an extent map is damaged: it names chunks that it does not list", code="damaged-map")
    return ExtentMap(size, rows, chunks)

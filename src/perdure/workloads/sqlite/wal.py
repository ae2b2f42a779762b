"""The format of SQLite's write-ahead log: header, frames, salts and the cumulative checksum. Pure; no I/O.

Source of the format: "WAL-mode File Format" in SQLite's documentation (``walformat.html``) and ``fileformat2.html`` §4.

A WAL is a 32-byte header and then frames; all numbers are big-endian:

======  =====  ===============================================================
header  bytes  meaning
======  =====  ===============================================================
0       4      magic ``0x377f0682`` (checksum words little-endian) or ``…83`` (big-endian)
4       4      format version 3007000
8       4      page size in bytes
12      4      checkpoint sequence number
16      8      salt 1 (grows by one with each restart) and salt 2 (random)
24      8      checksum of the first 24 bytes
======  =====  ===============================================================

======  =====  ===============================================================
frame   bytes  meaning
======  =====  ===============================================================
0       4      page number, from 1
4       4      database size in pages after the commit, or 0 if this frame commits nothing
8       8      the header's salts
16      8      checksum of everything so far: header, then per frame bytes 0 to 7 and the page
24      page   the page
======  =====  ===============================================================

The checksum runs over pairs of 32-bit words ``(a, b)``: ``s0 += a + s1; s1 += b + s0`` modulo 2**32. One
step is linear, ``s' = M s + (a, a + b)`` with ``M = [[1, 1], [1, 2]]``, so a whole frame adds a weighted sum of its
words to ``M**n s``. With the weights computed once for a page size, numpy checks thousands of frames in two dot
products; a frame is right if its stored checksum follows from the *stored* checksum of the frame before it, which by
induction is the same as running the loop from the start.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FRAME_HEADER",
    "WAL_HEADER",
    "Frames",
    "WalHeader",
    "checksum",
    "frame_offset",
    "parse_frames",
    "parse_header",
]

WAL_HEADER = 32
FRAME_HEADER = 24
_MAGIC_LITTLE = 0x377F0682
_MAGIC_BIG = 0x377F0683
_MASK = 0xFFFFFFFF

Checksum = tuple[int, int]


@dataclass(frozen=True, slots=True)
class WalHeader:
    """A checked WAL header.

    Args:
        big_endian: Whether checksum words are read big-endian.
        page_size: Bytes per page.
        salts: The two salts, 8 bytes as they lie in the file.
        checksum: The header's checksum, where the frames' cumulative checksum starts.
    """

    big_endian: bool
    page_size: int
    salts: bytes
    checksum: Checksum


@dataclass(frozen=True, eq=False, slots=True)
class Frames:
    """A run of checked frames.

    Args:
        pages: Page number of every frame, shape ``(n,)``, uint32.
        sizes: Database size in pages where a frame commits, else 0; shape ``(n,)``, uint32.
        checksums: Cumulative checksum at every frame, shape ``(n, 2)``, uint32.
        images: The page images, shape ``(n, page size)``, uint8; a view of the bytes that were parsed.
        good: How many frames from the start carry the right salts and checksum; ``n`` if all do.
    """

    pages: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    checksums: NDArray[np.uint32]
    images: NDArray[np.uint8]
    good: int


def checksum(data: bytes, start: Checksum = (0, 0), *, big_endian: bool) -> Checksum:
    """SQLite's checksum of ``data`` (a multiple of 8 bytes) by the reference loop."""
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    s0, s1 = start
    for i in range(0, len(words), 2):
        s0 = (s0 + words[i] + s1) & _MASK
        s1 = (s1 + words[i + 1] + s0) & _MASK
    return s0, s1


def frame_offset(frame: int, page_size: int) -> int:
    """Where frame number ``frame`` (from 1) starts in the file."""
    return WAL_HEADER + (frame - 1) * (FRAME_HEADER + page_size)


def parse_header(data: bytes) -> WalHeader | None:
    """Read a WAL header; ``None`` if it is short, torn or no WAL header."""
    if len(data) < WAL_HEADER:
        return None
    magic, _version, page_size, _sequence = struct.unpack_from(">4I", data)
    if magic not in (_MAGIC_LITTLE, _MAGIC_BIG) or page_size < 512 or page_size > 65536 or page_size & (page_size - 1):
        return None
    big_endian = magic == _MAGIC_BIG
    stored: Checksum = struct.unpack_from(">2I", data, 24)
    if checksum(data[:24], big_endian=big_endian) != stored:
        return None
    return WalHeader(big_endian, page_size, data[16:24], stored)


def parse_frames(
    data: bytes | bytearray | memoryview, page_size: int, salts: bytes, before: Checksum, *, big_endian: bool
) -> Frames:
    """Read and check a run of whole frames.

    Args:
        data: ``n`` frames; a cut-off frame at the end is left out.
        page_size: Bytes per page.
        salts: The salts that every frame must carry.
        before: Cumulative checksum at the frame before the first one (the header's for frame 1).
        big_endian: As in :class:`WalHeader`.
    """
    frame_size = FRAME_HEADER + page_size
    count = len(data) // frame_size
    raw = np.frombuffer(data, np.uint8, count * frame_size).reshape(count, frame_size)
    header = raw[:, :FRAME_HEADER].copy().view(">u4").astype(np.uint32)
    checksums = np.ascontiguousarray(header[:, 4:6])
    salted = np.all(raw[:, 8:16] == np.frombuffer(salts, np.uint8), axis=1)
    previous = np.empty_like(checksums)
    previous[:1] = before
    previous[1:] = checksums[:-1]
    right = salted & np.all(_expected(raw, previous, page_size, big_endian=big_endian) == checksums, axis=1)
    good = count if right.all() else int(np.argmin(right))
    return Frames(header[:, 0].copy(), header[:, 1].copy(), checksums, raw[:, FRAME_HEADER:], good)


def _expected(
    raw: NDArray[np.uint8], previous: NDArray[np.uint32], page_size: int, *, big_endian: bool
) -> NDArray[np.uint32]:
    """The checksum that each frame must have after the one before it, shape ``(n, 2)``."""
    weights, power = _weights(page_size)
    words: NDArray[Any] = raw.view(">u4" if big_endian else "<u4")
    native = words.astype(np.uint32, copy=False)
    expected = np.empty_like(previous)
    for row in (0, 1):
        own = np.einsum("ij,j->i", native, weights[row])
        expected[:, row] = own + power[row, 0] * previous[:, 0] + power[row, 1] * previous[:, 1]
    return expected


@lru_cache(maxsize=8)
def _weights(page_size: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Weights of a frame's words, shape ``(2, words)``, and ``M**steps``; salt and checksum words weigh nothing."""
    steps = (8 + page_size) // 8
    weights = np.zeros((2, 2 * steps), np.uint32)
    m00, m01, m11 = 1, 0, 1  # powers of M are symmetric
    for pair in range(steps - 1, -1, -1):
        weights[:, 2 * pair] = ((m00 + m01) & _MASK, (m01 + m11) & _MASK)
        weights[:, 2 * pair + 1] = (m01, m11)
        m00, m01, m11 = (m00 + m01) & _MASK, (m00 + 2 * m01) & _MASK, (m01 + 2 * m11) & _MASK
    spread = np.zeros((2, FRAME_HEADER // 4 + page_size // 4), np.uint32)
    spread[:, :2] = weights[:, :2]
    spread[:, 6:] = weights[:, 2:]
    return spread, np.array([[m00, m01], [m01, m11]], np.uint32)

"""Segments of a version 8 log: records cut into them, and their checksums."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import block_checksums

__all__ = ["RECORDS_START", "SEGMENT_SIZE", "empty_segment", "sealed_segments", "unused_segments"]

SEGMENT_SIZE = 4096
RECORDS_START = 40
"""Where a segment's records begin."""

_ECC = 0x2000
_HEAD = struct.Struct("<QHHi8s12sI")


def empty_segment(generation: int, sector: int, started: bytes) -> bytearray:
    """The header of a segment, to which records are added."""
    return bytearray(_HEAD.pack(0, 0, sector, generation, started, bytes(12), _ECC))


def sealed_segments(bodies: list[bytearray], first: int) -> tuple[bytes, list[int]]:
    """Segments that follow each other, filled up with zeros (no operation) and with their checksums.

    Args:
        bodies: Header and records of each.
        first: Sector number of the first.

    Returns:
        Their bytes, and the checksum of each.
    """
    content = bytearray().join(body.ljust(SEGMENT_SIZE, b"\0") for body in bodies)
    pages: NDArray[np.uint8] = np.frombuffer(content, np.uint8).reshape(len(bodies), SEGMENT_SIZE)
    numbers = np.arange(first, first + len(bodies), dtype=np.uint32)
    checksums = block_checksums(pages, numbers)[:, 0]
    pages[:, :8] = checksums.astype("<u8").view(np.uint8).reshape(len(bodies), 8)
    return bytes(content), [int(checksum) for checksum in checksums]


def unused_segments(count: int) -> bytes:
    """What the engine fills a new log with: 0xDA, and at every 16th byte of 512 another value."""
    pattern = bytearray(b"\xda" * 512)
    for at in range(0, 512, 16):
        pattern[at] = (0xDA + at) & 0xFF
    return bytes(pattern) * (SEGMENT_SIZE // 512 * count)

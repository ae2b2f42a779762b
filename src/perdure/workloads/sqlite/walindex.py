"""The head of SQLite's WAL-index (the ``-shm`` file), read through a memory map.

Source of the format: "WAL-Index File Format" in SQLite's ``walformat.html``. All numbers are in native byte order.
The first 48 bytes are stored twice; a writer changes the second copy first, so equal copies are a whole header.

======  =====  =====================================================
offset  bytes  meaning
======  =====  =====================================================
12      1      non-zero once initialised
13      1      non-zero if the WAL's checksum words are big-endian
14      2      page size; 1 means 65536
16      4      mxFrame: number of the last committed frame
20      4      database size in pages at that frame
24      8      cumulative checksum at that frame
32      8      salts, as they lie in the WAL's header
40      8      checksum of bytes 0 to 39
96      4      nBackfill: frames that checkpoints have copied into the database
======  =====  =====================================================

mxFrame is the only truth about what is committed: the WAL may hold valid-looking frames behind it that were rolled
back.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass

from perdure.workloads.sqlite.wal import checksum

__all__ = ["HEAD_SIZE", "IndexHeader", "read_index_header"]

HEAD_SIZE = 136
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class IndexHeader:
    """What the WAL-index says is committed.

    Args:
        big_endian: Whether the WAL's checksum words are big-endian.
        page_size: Bytes per page; 0 while the WAL has never been written.
        last_frame: Last committed frame; 0 if the WAL is empty.
        pages: Database size in pages at that frame; 0 while the WAL has never been written.
        checksum: Cumulative checksum at that frame.
        salts: The WAL's salts.
        backfilled: Frames already copied into the database.
    """

    big_endian: bool
    page_size: int
    last_frame: int
    pages: int
    checksum: tuple[int, int]
    salts: bytes
    backfilled: int


def read_index_header(shm: bytes | memoryview) -> IndexHeader | None:
    """Read the header; ``None`` if it is being changed all the while or not initialised.

    Args:
        shm: The map of the file, at least :data:`HEAD_SIZE` bytes.
    """
    for _ in range(_ATTEMPTS):
        head = bytes(shm[:HEAD_SIZE])
        # Looked at again, so that nBackfill is of the same moment as the header.
        if head[:48] == head[48:96] == bytes(shm[:48]):
            break
    else:
        return None
    size, last, pages, c0, c1 = struct.unpack_from("=H4I", head, 14)
    own: tuple[int, int] = struct.unpack_from("=2I", head, 40)
    if head[12] == 0 or checksum(head[:40], big_endian=sys.byteorder == "big") != own:
        return None
    (backfilled,) = struct.unpack_from("=I", head, 96)
    return IndexHeader(
        head[13] != 0, (size & 0xFE00) + ((size & 1) << 16), last, pages, (c0, c1), head[32:40], backfilled
    )

"""How a SQLite log segment is written: its index, and its blocks.

A segment is a run of WAL frames that ends with a commit. Its *blocks* are the page images of the frames in order, one
after the other without anything between them, cut at page boundaries into blocks of at most 1 MiB. Its *index* says
what they are (little-endian):

======  ======  ===============================================================
offset  bytes   meaning
======  ======  ===============================================================
0       4       version, 1
4       4       page size in bytes
8       4       n, number of frames
12      4       m, number of commits
16      4 x n   page number of each frame, from 1
…       4 x m   number of each commit's frame inside the segment, from 0
…       4 x m   database size in pages after each commit
======  ======  ===============================================================

The place of frame ``i`` in the WAL is ``last place - n + 1 + i``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged

__all__ = ["BLOCK_SIZE", "SegmentIndex", "decode_index", "encode_index", "frames_per_block"]

BLOCK_SIZE = 1 << 20
_VERSION = 1
_HEAD = struct.Struct("<4I")


@dataclass(frozen=True, eq=False, slots=True)
class SegmentIndex:
    """What a segment's payload is.

    Args:
        page_size: Bytes per page.
        pages: Page number of every frame, shape ``(n,)``, uint32, from 1.
        commits: Frames that commit, shape ``(m,)``, uint32, from 0, ascending.
        sizes: Database size in pages after each commit, shape ``(m,)``, uint32.
    """

    page_size: int
    pages: NDArray[np.uint32]
    commits: NDArray[np.uint32]
    sizes: NDArray[np.uint32]

    def changed(self) -> NDArray[np.int64]:
        """The 0-based numbers of the pages that the segment writes, sorted, each once."""
        return np.unique(self.pages).astype(np.int64) - 1


def frames_per_block(page_size: int) -> int:
    """How many pages make a full block."""
    return max(1, BLOCK_SIZE // page_size)


def encode_index(index: SegmentIndex) -> bytes:
    """Write an index."""
    head = _HEAD.pack(_VERSION, index.page_size, len(index.pages), len(index.commits))
    columns = (index.pages, index.commits, index.sizes)
    return head + b"".join(column.astype("<u4").tobytes() for column in columns)


def decode_index(data: bytes) -> SegmentIndex:
    """Read an index.

    Raises:
        Damaged: It is not one, or its parts contradict each other.
    """
    if len(data) < _HEAD.size:
        raise Damaged("a log segment of a SQLite database has no index", code="bad-segment-index")
    version, page_size, frames, commits = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise Damaged(
            f"a log segment of a SQLite database has index version {version}; this perdure reads version {_VERSION}",
            code="bad-segment-index",
            hint="a newer perdure wrote it: use that version",
        )
    if len(data) != _HEAD.size + 4 * (frames + 2 * commits):
        raise Damaged("the index of a SQLite log segment is cut off", code="bad-segment-index")
    words = np.frombuffer(data, "<u4", offset=_HEAD.size).astype(np.uint32)
    index = SegmentIndex(page_size, words[:frames], words[frames : frames + commits], words[frames + commits :])
    if commits == 0 or frames == 0 or int(index.commits[-1]) != frames - 1 or not index.pages.all():
        raise Damaged("the index of a SQLite log segment contradicts itself", code="bad-segment-index")
    return index

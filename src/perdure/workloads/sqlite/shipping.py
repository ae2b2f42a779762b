"""Cutting the WAL into log segments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from perdure.workloads.sqlite.payload import frames_per_block
from perdure.workloads.sqlite.wal import FRAME_HEADER, Checksum, Frames, WalHeader, frame_offset, parse_frames

__all__ = ["SEGMENT_SIZE", "CutSegment", "WalDamaged", "cut_segment"]

SEGMENT_SIZE = 8 << 20
"""Bytes of WAL in one segment, unless a single transaction is larger."""


class WalDamaged(Exception):
    """A committed frame does not carry the salts and the checksum that it must have."""

    def __init__(self, frame: int) -> None:
        super().__init__(f"the WAL is damaged at frame {frame}")
        self.frame = frame


@dataclass(frozen=True, eq=False, slots=True)
class CutSegment:
    """A run of frames that ends with a commit.

    Args:
        last: Place of its last frame.
        checksum: Cumulative checksum there.
        pages: Page number of every frame, uint32.
        commits: Frames that commit, counted from 0, uint32.
        sizes: Database size in pages after each commit, uint32.
        blocks: Page images, about 1 MiB each.
    """

    last: int
    checksum: Checksum
    pages: NDArray[np.uint32]
    commits: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    blocks: Sequence[bytes | bytearray | memoryview]


def cut_segment(wal: int, header: WalHeader, place: int, before: Checksum, limit: int) -> CutSegment:
    """Read and check the frames of the next segment after ``place``.

    A transaction larger than a segment is read once to check it, keeping only its page numbers; its blocks
    are then read, and checked again, one at a time when they are asked for.

    Args:
        wal: Descriptor of the WAL.
        header: Its header.
        place: Last frame that is shipped.
        before: Cumulative checksum there.
        limit: Last committed frame.

    Raises:
        WalDamaged: A frame is not what its checksum says.
    """
    step = max(1, SEGMENT_SIZE // (FRAME_HEADER + header.page_size))
    first, start = place + 1, before
    parts: list[Frames] = []
    while True:
        frames = _read_frames(wal, header, place + 1, min(step, limit - place), before)
        ends = np.flatnonzero(frames.sizes)
        if len(ends):
            count = int(ends[-1] if not parts else ends[0]) + 1
            break
        place += len(frames.pages)
        before = _pair(frames.checksums[-1])
        parts.append(Frames(frames.pages, frames.sizes, frames.checksums, _NO_IMAGES, frames.good))
        if place >= limit:
            raise WalDamaged(place)
    pages = np.concatenate([*(part.pages for part in parts), frames.pages[:count]])
    sizes = np.concatenate([*(part.sizes for part in parts), frames.sizes[:count]])
    commits = np.flatnonzero(sizes).astype(np.uint32)
    per_block = frames_per_block(header.page_size)
    blocks: Sequence[bytes | bytearray | memoryview]
    if parts:
        chained = [np.array([start], np.uint32), *(part.checksums for part in parts), frames.checksums[:count]]
        blocks = _LazyBlocks(wal, header, first, np.concatenate(chained), per_block)
    else:
        blocks = [
            np.ascontiguousarray(frames.images[at : min(at + per_block, count)]).reshape(-1).data
            for at in range(0, count, per_block)
        ]
    return CutSegment(
        place + count, _pair(frames.checksums[count - 1]), pages, commits, sizes[commits].astype(np.uint32), blocks
    )


class _LazyBlocks(Sequence[bytes | bytearray | memoryview]):
    """The blocks of one large transaction, read when they are asked for and checked against what was cut.

    Args:
        wal: Descriptor of the WAL.
        header: Its header.
        first: Place of the first frame.
        checksums: Cumulative checksum before the first frame and at every frame, shape ``(n + 1, 2)``.
        per_block: Frames in a block.
    """

    def __init__(self, wal: int, header: WalHeader, first: int, checksums: NDArray[np.uint32], per_block: int) -> None:
        self._wal = wal
        self._header = header
        self._first = first
        self._checksums = checksums
        self._per_block = per_block

    def __len__(self) -> int:
        return (len(self._checksums) - 2) // self._per_block + 1

    @overload
    def __getitem__(self, index: int) -> bytes | bytearray | memoryview: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | bytearray | memoryview]: ...

    def __getitem__(
        self, index: int | slice
    ) -> bytes | bytearray | memoryview | Sequence[bytes | bytearray | memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(index)
        at = number * self._per_block
        count = min(self._per_block, len(self._checksums) - 1 - at)
        frames = _read_frames(self._wal, self._header, self._first + at, count, _pair(self._checksums[at]))
        if _pair(frames.checksums[-1]) != _pair(self._checksums[at + count]):
            raise WalDamaged(self._first + at + count - 1)
        return np.ascontiguousarray(frames.images).reshape(-1).data


_NO_IMAGES = np.empty((0, 0), np.uint8)


def _pair(row: NDArray[np.uint32]) -> Checksum:
    return int(row[0]), int(row[1])


def _read_frames(wal: int, header: WalHeader, first: int, count: int, before: Checksum) -> Frames:
    data = os.pread(wal, count * (FRAME_HEADER + header.page_size), frame_offset(first, header.page_size))
    frames = parse_frames(data, header.page_size, header.salts, before, big_endian=header.big_endian)
    if frames.good < count:
        raise WalDamaged(first + frames.good)
    return frames

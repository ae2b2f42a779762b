"""A frozen image of a live database at a commit, put together from the database file and the WAL.

The image at place P of a WAL generation is: for every page, its newest frame in 1..P, else the page in the database
file.
It is frozen for as long as the hold is, whose frame H is at most P:

* Checkpoints copy only frames up to H, so a page without a frame in 1..P is not written in the file. A page that a
  checkpoint is writing has a frame up to H and is read from the WAL, so a torn read of the file cannot show.
* A checkpoint that stops at H copies a page only if its *newest* frame lies in 1..H. SQLite then counts all frames up
  to H as copied, but a page with a frame behind H as well is still old in the file: its frame in 1..H is read from the
  WAL.
* A checkpoint cuts the file only if it copies everything, that is at H = P, and then to the size of this very image.
* The WAL does not restart, except under read lock 0 and exactly at H. Then the database file is frozen and complete: an
  image at the end of the old generation needs no frame of it (``frames`` is 0).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.positions import Position
from perdure.workloads.contract import ImageReader
from perdure.workloads.sqlite.wal import FRAME_HEADER, frame_offset

__all__ = ["DATABASE", "DatabaseReader", "SqliteImage", "newest_frames"]

DATABASE = "database"
"""Name of the only file of an image."""

_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class SqliteImage:
    """An image; valid while the context manager that yielded it is open."""

    position: Position
    chain: bytes
    time_ns: int
    files: Sequence[ImageReader]


@dataclass(frozen=True, eq=False, slots=True)
class DatabaseReader:
    """Reads the database as it was at a commit. Thread-safe: it keeps no file position.

    Args:
        database: Descriptor of the database file.
        wal: Descriptor of the WAL.
        page_size: Bytes per page.
        pages: Pages of the image.
        newest: Newest frame of every page, 0 if the database file has it; shape ``(pages,)``, uint32.
        changed: As in the contract.
    """

    database: int
    wal: int
    page_size: int
    pages: int
    newest: NDArray[np.uint32]
    changed: NDArray[np.int64] | None

    @property
    def name(self) -> str:
        return DATABASE

    @property
    def size(self) -> int:
        return self.pages * self.page_size

    def read(self, offset: int, length: int) -> bytes | bytearray | memoryview:
        length = max(0, min(length, self.size - offset))
        first, last = offset // self.page_size, -(-(offset + length) // self.page_size)
        frames = self.newest[first:last]
        overlaid = np.flatnonzero(frames)
        if not len(overlaid):
            data = os.pread(self.database, length, offset)
            if len(data) == length:
                return data
        whole = bytearray((last - first) * self.page_size)
        view = memoryview(whole)
        # Short where the file ends before the image does: those pages are in the WAL, or were never written and are
        # zero.
        os.preadv(self.database, [view], first * self.page_size)
        for page in overlaid.tolist():
            place = frame_offset(int(frames[page]), self.page_size) + FRAME_HEADER
            start = page * self.page_size
            os.preadv(self.wal, [view[start : start + self.page_size]], place)
        skip = offset - first * self.page_size
        return view[skip : skip + length]


def newest_frames(wal: int, page_size: int, frames: int, pages: int) -> NDArray[np.uint32]:
    """For every page of a database of ``pages`` pages its newest frame in ``1..frames``, or 0.

    Args:
        wal: Descriptor of the WAL.
        page_size: Bytes per page.
        frames: Frames to look at.
        pages: Size of the database.
    """
    newest = np.zeros(pages, np.uint32)
    frame_size = FRAME_HEADER + page_size
    step = max(1, _PIECE // frame_size)
    for first in range(1, frames + 1, step):
        count = min(step, frames + 1 - first)
        data = os.pread(wal, count * frame_size, frame_offset(first, page_size))
        raw = np.frombuffer(data, np.uint8, count * frame_size).reshape(count, frame_size)
        numbers = raw[:, :4].copy().view(">u4")[:, 0].astype(np.int64) - 1
        inside = numbers < pages
        # With a repeated index numpy keeps the last value: the newest frame.
        newest[numbers[inside]] = np.arange(first, first + count, dtype=np.uint32)[inside]
    return newest

"""Rolling a restored database file forward through its log.

Only the newest image of each page is written, once: a first pass over the segments' indexes finds for every page its
last frame up to the target, a second pass over the payload writes just those. Memory is four bytes per page of the
database
and one block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import BadInput, Damaged
from perdure.model.logs import StoredSegment
from perdure.model.positions import Position
from perdure.workloads.contract import LogReader
from perdure.workloads.sqlite.payload import SegmentIndex, decode_index, frames_per_block

__all__ = ["roll_forward"]


@dataclass(frozen=True, eq=False, slots=True)
class _Part:
    """A segment, or its beginning up to the target."""

    segment: StoredSegment
    index: SegmentIndex
    frames: int
    size: int


def roll_forward(database: Path, log: LogReader, upto: Position) -> None:
    """Write the log up to ``upto`` into a restored database and make it durable.

    Args:
        database: The restored file.
        log: The segments after the image that was restored.
        upto: A commit in the log, or a position before all of it.

    Raises:
        BadInput: ``upto`` is not the place of a commit.
        Damaged: A segment's payload is not what its index says, or the log has a gap.
    """
    reach = 0
    size = 0
    page_size = 0
    for part in _parts(log, upto):
        reach = max(reach, int(part.index.pages[: part.frames].max()))
        size, page_size = part.size, part.index.page_size
    if not size:
        return
    newest = np.zeros(reach + 1, np.uint32)
    start = 1
    for part in _parts(log, upto):
        # With a repeated index numpy keeps the last value: the newest frame.
        newest[part.index.pages[: part.frames]] = np.arange(start, start + part.frames, dtype=np.uint32)
        start += part.frames
    newest[size + 1 :] = 0
    fd = os.open(database, os.O_RDWR | os.O_CLOEXEC)
    try:
        start = 1
        for part in _parts(log, upto):
            _write_part(fd, log, part, newest, start)
            start += part.frames
        os.ftruncate(fd, size * page_size)
        os.fsync(fd)
    finally:
        os.close(fd)


def _parts(log: LogReader, upto: Position) -> Iterator[_Part]:
    """What of each segment is to be applied."""
    reached: Position | None = None
    for segment in log.segments():
        if segment.after >= upto:
            return
        if reached is not None and segment.after != reached:
            raise Damaged(f"the log has a gap between {reached} and {segment.after}", code="log-gap")
        reached = segment.last
        index = decode_index(segment.index)
        frames = len(index.pages)
        if segment.last > upto:
            frames -= segment.last.place - upto.place
        commit = int(np.searchsorted(index.commits, frames - 1))
        if segment.last.generation != upto.generation and segment.last > upto:
            raise BadInput(f"{upto} is not a place in this log")
        if commit >= len(index.commits) or int(index.commits[commit]) != frames - 1:
            raise BadInput(f"{upto} is not the end of a transaction", hint="choose one of the listed points or times")
        yield _Part(segment, index, frames, int(index.sizes[commit]))


def _write_part(fd: int, log: LogReader, part: _Part, newest: NDArray[np.uint32], start: int) -> None:
    page_size = part.index.page_size
    expected = np.arange(start, start + part.frames, dtype=np.uint32)
    pages = part.index.pages[: part.frames]
    wanted = newest[pages] == expected
    per_block = frames_per_block(page_size)
    at = 0
    for block in log.blocks(part.segment):
        if at >= part.frames:
            return
        count = min(per_block, len(part.index.pages) - at)
        if len(block) != count * page_size:
            raise Damaged(f"a block of log segment {part.segment.span.name} has the wrong size", code="bad-segment")
        images = np.frombuffer(block, np.uint8).reshape(count, page_size)
        inside = slice(at, min(at + count, part.frames))
        _write_pages(fd, pages[inside], np.flatnonzero(wanted[inside]), images)
        at += count
    if at < part.frames:
        raise Damaged(f"log segment {part.segment.span.name} is cut off", code="bad-segment")


def _write_pages(fd: int, pages: NDArray[np.uint32], chosen: NDArray[np.intp], images: NDArray[np.uint8]) -> None:
    """Write the chosen pages of a block in file order, neighbours together."""
    if not len(chosen):
        return
    order = chosen[np.argsort(pages[chosen])]
    numbers = pages[order].astype(np.int64) - 1
    content = np.ascontiguousarray(images[order]).reshape(-1).data
    page_size = images.shape[1]
    starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
    for first, last in zip(starts, [*starts[1:], len(numbers)], strict=True):
        view = content[first * page_size : last * page_size]
        offset = int(numbers[first]) * page_size
        while view:
            written = os.pwrite(fd, view, offset)
            view, offset = view[written:], offset + written

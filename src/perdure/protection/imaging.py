"""From a frozen image to extent maps: storing whole files and storing changed pages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from perdure.model.extents import ExtentMap, build, overlay
from perdure.model.points import ImageFile
from perdure.protection.defragmenting import defragmented
from perdure.protection.parallel import for_each_number
from perdure.protection.progress import Progress, quiet
from perdure.protection.vault import Capture, Vault
from perdure.workloads.contract import ImageReader

__all__ = ["CHUNK", "MAX_DELTAS", "first_file", "is_zero", "next_file", "read_exactly", "store_changes", "store_whole"]

CHUNK = 1 << 20
"""Bytes of content in a chunk."""

SEGMENT = 4 << 20
"""Bytes that a thread takes at once when it stores a whole file: long reads, and whole runs of chunks per thread."""

MAX_DELTAS = 32
SMALL_MAPS = 64 << 10
"""Deltas of fewer encoded bytes than this never call for a new base map."""

_Piece = tuple[int, int, bytes | None, int]


def store_whole(
    reader: ImageReader, capture: Capture, threads: int = 2, progress: Progress = quiet, *, stage: str = "copying"
) -> ExtentMap:
    """Store every byte of a file in chunks of 1 MiB; blocks of zeros become holes.

    Args:
        reader: The file.
        capture: Where the chunks go.
        threads: How many threads read, compress and store.
        progress: Told of every segment.
        stage: What progress is told that this is.

    Returns:
        The complete extent map.
    """
    size = reader.size
    segments = -(-size // SEGMENT)
    pieces: list[list[_Piece]] = [[] for _ in range(segments)]

    def store(number: int) -> None:
        begin = number * SEGMENT
        content = memoryview(read_exactly(reader, begin, min(SEGMENT, size - begin)))
        for at in range(0, len(content), CHUNK):
            block = content[at : at + CHUNK]
            if not is_zero(block):
                pieces[number].append((begin + at, len(block), capture.put(block), 0))
        progress(stage, len(content), size)

    for_each_number(segments, store, threads)
    return build(size, [piece for part in pieces for piece in part])


def store_changes(
    reader: ImageReader,
    pages: NDArray[np.int64],
    capture: Capture,
    threads: int = 2,
    progress: Progress = quiet,
    *,
    stage: str = "storing changes",
) -> ExtentMap:
    """Store the given pages, packed together by offset into chunks of about 1 MiB.

    Args:
        reader: The file.
        pages: Sorted 0-based page numbers; those beyond the end of the file are left out.
        capture: Where the chunks go.
        threads: How many threads read, compress and store.
        progress: Told of every chunk.
        stage: What progress is told that this is.

    Returns:
        A delta: extents for these pages only, pages of zeros as explicit holes, ``size`` the file's size.
    """
    page_size, size = reader.page_size, reader.size
    pages = pages[pages < -(-size // page_size)]
    per_chunk = max(1, CHUNK // page_size)
    groups = -(-len(pages) // per_chunk)
    pieces: list[list[_Piece]] = [[] for _ in range(groups)]
    total = len(pages) * page_size

    def store(number: int) -> None:
        group = pages[number * per_chunk : (number + 1) * per_chunk]
        pieces[number] = _store_group(reader, group, capture)
        progress(stage, len(group) * page_size, total)

    for_each_number(groups, store, threads)
    return build(size, [piece for part in pieces for piece in part])


def _store_group(reader: ImageReader, pages: NDArray[np.int64], capture: Capture) -> list[_Piece]:
    page_size, size = reader.page_size, reader.size
    content = np.zeros((len(pages), page_size), dtype=np.uint8)
    flat = content.reshape(-1)
    for first, count in _runs(pages):
        offset = int(pages[first]) * page_size
        length = min(count * page_size, size - offset)
        at = first * page_size
        flat[at : at + length] = np.frombuffer(read_exactly(reader, offset, length), dtype=np.uint8)
    filled = content.any(axis=1)
    holes, kept = pages[~filled], pages[filled]
    pieces: list[_Piece] = []
    for first, count in _runs(holes):
        offset = int(holes[first]) * page_size
        pieces.append((offset, min(count * page_size, size - offset), None, 0))
    if len(kept):
        # Only the last page of a file may be cut short, and it is the last of its group.
        length = min(len(kept) * page_size, (len(kept) - 1) * page_size + size - int(kept[-1]) * page_size)
        packed = flat if len(kept) == len(pages) else content[filled].reshape(-1)
        chunk = capture.put(packed[:length].data)
        for first, count in _runs(kept):
            offset = int(kept[first]) * page_size
            pieces.append((offset, min(count * page_size, size - offset), chunk, first * page_size))
    return pieces


def _runs(pages: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of consecutive page numbers as ``(row of the first, how many)``."""
    if not len(pages):
        return
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pages) != 1) + 1])
    lengths = np.diff(np.append(starts, len(pages)))
    yield from zip(starts.tolist(), lengths.tolist(), strict=True)


def first_file(reader: ImageReader, whole: ExtentMap, capture: Capture) -> ImageFile:
    """The first image of a file: a base map and no deltas."""
    return ImageFile(reader.name, whole.size, reader.page_size, capture.put_map(whole), extents=len(whole.extents))


def next_file(
    previous: ImageFile | None,
    delta: ExtentMap,
    capture: Capture,
    vault: Vault,
    *,
    name: str = "",
    page_size: int = 0,
) -> ImageFile:
    """The image of a file after a delta: one delta more, or a new base map when there are too many.

    A new base is a new map over the chunks that are there already; data is stored again only where the image has
    become fragmented (see :mod:`perdure.protection.defragmenting`).

    Args:
        previous: The file in the image before; ``None`` if it had none, and then ``delta`` is its whole map.
        delta: What changed.
        capture: Where the maps go.
        vault: Where the previous maps are read.
        name: The file's name, needed when there is no previous one.
        page_size: Its page size now, in bytes; 0 keeps the previous one.
    """
    if previous is None:
        return ImageFile(name, delta.size, page_size, capture.put_map(delta), extents=len(delta.extents))
    before = vault.image_map(previous)
    page_size = page_size or previous.page_size
    carried = sum(ref.size for ref in previous.deltas)
    if len(previous.deltas) >= MAX_DELTAS or carried > max(SMALL_MAPS, previous.base.size // 2):
        # The delta's own chunks are full, and cannot be read before they are durable.
        resolved = overlay(defragmented(before, capture, vault), delta)
        base = capture.put_map(resolved)
        return ImageFile(previous.name, resolved.size, page_size, base, extents=len(resolved.extents))
    resolved = overlay(before, delta)
    deltas = (*previous.deltas, capture.put_map(delta))
    return ImageFile(previous.name, resolved.size, page_size, previous.base, deltas, len(resolved.extents))


def read_exactly(reader: ImageReader, offset: int, length: int) -> bytes | bytearray | memoryview:
    """Read a range that lies inside the file.

    Raises:
        EOFError: The image gave fewer bytes than its size promises; it is not frozen.
    """
    content = reader.read(offset, length)
    if len(content) != length:
        raise EOFError(f"{reader.name}: {len(content)} of {length} bytes at offset {offset}; the image is not frozen")
    return content


def is_zero(block: memoryview) -> bool:
    """Whether a block holds nothing but zeros."""
    row = np.frombuffer(block, dtype=np.uint8)
    # Nearly every block that is not all zeros shows it at its beginning.
    return not row[:4096].any() and not row.any()

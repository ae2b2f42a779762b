"""Comparing a frozen image with what the pool holds of it, exactly and block by block.

No page hashes are kept anywhere. A chunk that lies in the file as one run is compared by its id, without
decoding it; every other chunk is decoded once, and all runs of it are compared with the source. Memory is
bounded by a chunk and a read per thread, whatever the size of the file.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from perdure.model.extents import HOLE, ExtentMap
from perdure.protection.imaging import CHUNK, read_exactly
from perdure.protection.parallel import for_each_number
from perdure.protection.progress import Progress, quiet
from perdure.protection.vault import Vault
from perdure.workloads.contract import ImageReader

__all__ = ["changed_by_comparing"]

JOIN = 64 << 10
"""Runs of one chunk that lie closer than this in the file are read in one read."""

LONGEST_READ = 4 << 20

_WORD = 8


def changed_by_comparing(
    reader: ImageReader,
    resolved: ExtentMap,
    vault: Vault,
    threads: int = 2,
    progress: Progress = quiet,
    *,
    stage: str = "comparing",
) -> tuple[NDArray[np.int64], int]:
    """Find the pages of a file that differ from what the pool holds.

    Args:
        reader: The file, in its own page size.
        resolved: What the pool holds of it.
        vault: Where the chunks are read.
        threads: How many threads read and compare.
        progress: Told of every range compared.
        stage: What progress is told that this is.

    Returns:
        The sorted 0-based numbers of differing pages, pages beyond the end of ``resolved`` among them, and
        how many bytes of the source were read.
    """
    return _Comparison(reader, resolved, vault, threads, progress=progress, stage=stage).run()


class _Comparison:
    def __init__(
        self, reader: ImageReader, resolved: ExtentMap, vault: Vault, threads: int, *, progress: Progress, stage: str
    ) -> None:
        self._reader = reader
        self._vault = vault
        self._threads = threads
        self._progress = progress
        self._stage = stage
        self._page = reader.page_size
        self._common = min(reader.size, resolved.size)
        self._known = resolved.slice(0, self._common)
        self._differs = np.zeros(-(-reader.size // self._page), dtype=bool)
        if reader.size > resolved.size:
            self._differs[resolved.size // self._page :] = True
        self._read = 0
        self._guard = threading.Lock()

    def run(self) -> tuple[NDArray[np.int64], int]:
        extents = self._known.extents
        rows = np.flatnonzero(extents["chunk"] != HOLE)
        rows = rows[np.argsort(extents["chunk"][rows], kind="stable")]
        numbers, first, count = np.unique(extents["chunk"][rows], return_index=True, return_counts=True)
        runs = [extents[rows[begin : begin + n]] for begin, n in zip(first.tolist(), count.tolist(), strict=True)]
        whole = [(int(number), run) for number, run in zip(numbers, runs, strict=True) if _is_whole(run)]
        # In file order, so that the source is read from front to back.
        whole.sort(key=lambda pair: int(pair[1]["offset"][0]))
        cut = [(int(number), run) for number, run in zip(numbers, runs, strict=True) if not _is_whole(run)]
        self._compare_whole(whole)
        self._compare_cut(cut)
        self._compare_zeros(list(self._uncovered()))
        return np.flatnonzero(self._differs).astype(np.int64), self._read

    def _compare_whole(self, chunks: list[tuple[int, NDArray[np.void]]]) -> None:
        def compare(row: int) -> None:
            number, run = chunks[row]
            offset, length = int(run["offset"][0]), int(run["length"][0])
            content = self._source(offset, length)
            chunk = self._chunk(number)
            if self._vault.chunk_id(content.data) == chunk:
                self._progress(self._stage, length, self._common)
                return
            stored = np.frombuffer(self._vault.read_chunk(chunk), dtype=np.uint8)
            self._note(offset, content, stored[:length])

        for_each_number(len(chunks), compare, self._threads)

    def _compare_cut(self, chunks: list[tuple[int, NDArray[np.void]]]) -> None:
        def compare(row: int, content: bytes) -> None:
            stored = np.frombuffer(content, dtype=np.uint8)
            for group in _close_together(chunks[row][1]):
                begin = int(group["offset"][0])
                source = self._source(begin, int(group["offset"][-1] + group["length"][-1]) - begin)
                for offset, length, start in zip(
                    group["offset"].tolist(), group["length"].tolist(), group["start"].tolist(), strict=True
                ):
                    self._note(offset, source[offset - begin :][:length], stored[start : start + length])

        ids = [self._chunk(number) for number, _ in chunks]
        self._vault.for_each_chunk(ids, compare, threads=self._threads)

    def _compare_zeros(self, ranges: list[tuple[int, int]]) -> None:
        def compare(row: int) -> None:
            offset, length = ranges[row]
            content = self._source(offset, length)
            self._note(offset, content, np.zeros(length, dtype=np.uint8))

        for_each_number(len(ranges), compare, self._threads)

    def _uncovered(self) -> Iterator[tuple[int, int]]:
        """The ranges that the pool holds as zeros, in pieces of at most a chunk."""
        extents = self._known.extents
        extents = extents[extents["chunk"] != HOLE]
        begins = np.append(extents["offset"], np.uint64(self._common)).astype(np.int64)
        ends = np.concatenate([[0], (extents["offset"] + extents["length"]).astype(np.int64)])
        for begin, end in zip(ends.tolist(), begins.tolist(), strict=True):
            for offset in range(begin, end, CHUNK):
                yield offset, min(CHUNK, end - offset)

    def _chunk(self, number: int) -> bytes:
        return bytes(self._known.chunks[number].tobytes())

    def _source(self, offset: int, length: int) -> NDArray[np.uint8]:
        content = np.frombuffer(read_exactly(self._reader, offset, length), dtype=np.uint8)
        with self._guard:
            self._read += length
        return content

    def _note(self, offset: int, source: NDArray[np.uint8], stored: NDArray[np.uint8]) -> None:
        """Mark the pages of a range in which source and pool differ."""
        self._progress(self._stage, len(source), self._common)
        first = offset // self._page
        last = (offset + len(source) - 1) // self._page
        if len(stored) != len(source):
            found = np.ones(last + 1 - first, dtype=bool)
        elif offset % self._page == 0 and len(source) % self._page == 0 and self._page % _WORD == 0:
            # Whole pages, compared by words: an eighth of the work.
            words = source.view(np.uint64) != stored.view(np.uint64)
            found = words.reshape(-1, self._page // _WORD).any(axis=1)
        else:
            starts = np.maximum(np.arange(first, last + 1, dtype=np.int64) * self._page - offset, 0)
            found = np.logical_or.reduceat(source != stored, starts)
        if not found.any():
            return
        with self._guard:
            self._differs[first : last + 1] |= found


def _is_whole(run: NDArray[np.void]) -> bool:
    """Whether this may be all of a chunk, so that its id is worth computing."""
    return len(run) == 1 and int(run["start"][0]) == 0


def _close_together(run: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
    """Split the runs of a chunk, sorted by offset, into groups that are cheap to read at once."""
    begin = 0
    for row in range(1, len(run) + 1):
        if row < len(run):
            gap = int(run["offset"][row]) - int(run["offset"][row - 1] + run["length"][row - 1])
            span = int(run["offset"][row] + run["length"][row]) - int(run["offset"][begin])
            if gap <= JOIN and span <= LONGEST_READ:
                continue
        yield run[begin:row]
        begin = row

"""How the files of a cluster share one address space of pages.

A cluster has thousands of files that come and go. In the pool an image is one file of pages, ``data``: one extent map,
one delta per express full. A file keeps its pages there from image to image, takes more when it grows, and gives them
back when it is gone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PAGE", "Allocation", "Layout", "pages_of", "place_files", "virtual_pages"]

PAGE = 8192
_MOST_SLACK = 1024


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where files lie.

    Args:
        runs: For each file first page and number of pages of every run, alternating.
        freed: Runs of files that are gone, in the same form; others may have them now.
        pages: Pages of the whole space.
    """

    runs: Mapping[str, list[int]]
    freed: list[int]
    pages: int


def pages_of(size: int) -> int:
    """Pages that so many bytes take."""
    return -(-size // PAGE)


def place_files(sizes: Mapping[str, int], before: Mapping[str, Sequence[int]]) -> Allocation:
    """Give every file pages enough.

    Args:
        sizes: Bytes of every file, in the order in which new ones are placed.
        before: The runs that files of the image before had.
    """
    free = _Free(before)
    gone = [run for path, runs in before.items() if path not in sizes for run in _pairs(runs)]
    for first, count in gone:
        free.give(first, count)
    placed: dict[str, list[int]] = {}
    for path, size in sizes.items():
        runs = list(before.get(path, ()))
        missing = pages_of(size) - sum(runs[1::2])
        if missing > 0:
            # What has grown once grows again: room beside itself keeps its runs few, and costs nothing.
            slack = min(pages_of(size) // 8, _MOST_SLACK) if runs else 0
            for first, count in free.take(missing + slack):
                if runs and runs[-2] + runs[-1] == first:
                    runs[-1] += count
                else:
                    runs += [first, count]
        placed[path] = runs
    return Allocation(placed, [number for run in gone for number in run], free.end)


class _Free:
    """The free pages: those given back, and all beyond the end."""

    def __init__(self, before: Mapping[str, Sequence[int]]) -> None:
        taken = sorted(run for runs in before.values() for run in _pairs(runs))
        self.free: list[tuple[int, int]] = []
        self.end = 0
        for first, count in taken:
            if first > self.end:
                self.free.append((self.end, first - self.end))
            self.end = max(self.end, first + count)

    def give(self, first: int, count: int) -> None:
        self.free.append((first, count))

    def take(self, count: int) -> Iterable[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while count and self.free:
            first, room = self.free.pop()
            used = min(room, count)
            taken.append((first, used))
            if used < room:
                self.free.append((first + used, room - used))
            count -= used
        if count:
            taken.append((self.end, count))
            self.end += count
        return sorted(taken)


class Layout:
    """Finds files by pages of the common space.

    Args:
        runs: For each file its runs.
    """

    def __init__(self, runs: Mapping[str, Sequence[int]]) -> None:
        table: list[tuple[int, int, str, int]] = []
        for path, flat in runs.items():
            at = 0
            for first, count in _pairs(flat):
                table.append((first, count, path, at))
                at += count
        table.sort()
        self._table = table
        self._firsts = [row[0] for row in table]

    def parts(self, offset: int, length: int) -> Iterable[tuple[str, int, int, int]]:
        """The parts of a byte range that lie in files: path, offset in the file, offset in the range, and bytes."""
        end = offset + length
        row = max(0, bisect_right(self._firsts, offset // PAGE) - 1)
        while row < len(self._table):
            first, count, path, at = self._table[row]
            begin, stop = max(offset, first * PAGE), min(end, (first + count) * PAGE)
            if first * PAGE >= end:
                return
            if begin < stop:
                yield path, at * PAGE + begin - first * PAGE, begin - offset, stop - begin
            row += 1


def virtual_pages(runs: Sequence[int], pages: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where pages of a file lie in the common space; those beyond its runs are left out."""
    firsts, counts = np.array(runs[0::2], np.int64), np.array(runs[1::2], np.int64)
    ends = np.cumsum(counts)
    pages = pages[pages < (ends[-1] if len(ends) else 0)]
    row = np.searchsorted(ends, pages, side="right")
    return np.asarray(firsts[row] + pages - (ends[row] - counts[row]), np.int64)


def _pairs(flat: Sequence[int]) -> Iterable[tuple[int, int]]:
    return zip(flat[0::2], flat[1::2], strict=True)

"""The pages of a database under replay: read when they are needed, kept while they are in use, written in order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import PageState, verify_pages
from perdure.ese.database import HEADER_PAGES
from perdure.ese.editing import EditablePage
from perdure.ese.errors import EseDamaged
from perdure.ese.repair import correct_page, page_state, seal_pages

__all__ = ["PageCache"]

_BYTES_PER_BYTE = 4
"""How much memory a byte of a page takes when its nodes are Python objects, roughly."""

_FEWEST = 512
_WRITTEN_AT_ONCE = 4 << 20
_NEAR = 8
"""Pages this close to each other are read at once, with what lies between."""


class PageCache:
    """Pages of one database file that is open for writing.

    Pages in use move to a young half, and the old half is dropped when the young one is full; changed pages are written
    before they are dropped. So a page that a caller holds stays the one in the cache while it uses fewer than
    ``_FEWEST / 2`` others.

    Args:
        descriptor: The open file.
        page_size: In bytes.
        file: The database's name, for messages.
        memory: Bytes that pages may take, roughly.

    Attributes:
        corrected: Pages in which a flipped bit was corrected when they were read.
        page_count: Pages that the file has.
    """

    def __init__(self, descriptor: int, page_size: int, file: str, memory: int) -> None:
        self._descriptor, self._size, self.file = descriptor, page_size, file
        self._half = max(_FEWEST, memory // (_BYTES_PER_BYTE * page_size)) // 2
        self._blank = bytes(page_size)
        self._young: dict[int, EditablePage] = {}
        self._old: dict[int, EditablePage] = {}
        self._changed: set[int] = set()
        self.corrected: dict[int, tuple[int, ...]] = {}
        self.page_count = max(0, os.fstat(descriptor).st_size // page_size - HEADER_PAGES)

    @property
    def page_size(self) -> int:
        return self._size

    def page(self, number: int) -> EditablePage:
        """A page as it is now; one that was never written, or that lies beyond the end of the file, is blank.

        Raises:
            EseDamaged: Its checksum does not hold.
        """
        page = self._young.get(number)
        if page is None:
            page = self._old.pop(number, None)
            if page is None:
                page = self._read(number)
            self._keep(number, page)
        return page

    def kept(self, number: int) -> EditablePage | None:
        """A page if it is in memory."""
        page = self._young.get(number)
        return page if page is not None else self._old.get(number)

    def put(self, page: EditablePage) -> None:
        """Put a page in place of whatever was there; it counts as changed."""
        self._old.pop(page.number, None)
        self._keep(page.number, page)
        self._changed.add(page.number)

    def change(self, number: int) -> None:
        """Note that a page that is in memory was changed."""
        self._changed.add(number)

    def prefetch(self, numbers: NDArray[np.uint32]) -> None:
        """Read pages that will be needed soon, many at once.

        Args:
            numbers: Ascending, ``uint32[n]``.
        """
        wanted = [
            number
            for number in numbers.tolist()
            if number not in self._young and number not in self._old and 1 <= number <= self.page_count
        ]
        for first, last in _runs(wanted[: self._half // 2], _NEAR):
            self._read_run(first, last)

    def truncate(self, page_count: int) -> None:
        """Cut the file, and forget the pages behind."""
        for number in [*self._young, *self._old]:
            if number > page_count:
                self._young.pop(number, None)
                self._old.pop(number, None)
                self._changed.discard(number)
        os.ftruncate(self._descriptor, (page_count + HEADER_PAGES) * self._size)
        self.page_count = page_count

    def extend(self, page_count: int) -> None:
        """Make the file at least so many pages long."""
        if page_count > self.page_count:
            os.ftruncate(self._descriptor, (page_count + HEADER_PAGES) * self._size)
            self.page_count = page_count

    @property
    def changed(self) -> frozenset[int]:
        """Pages that differ from the file."""
        return frozenset(self._changed)

    def write(self, keep: Collection[int] = ()) -> dict[int, EditablePage]:
        """Write every changed page, in the order of the file.

        Args:
            keep: Pages that stay as they are in the file.

        Returns:
            Those of them that were changed, by number.
        """
        self._write(sorted(self._changed.difference(keep)))
        return {number: self._held(number) for number in sorted(self._changed)}

    def _keep(self, number: int, page: EditablePage) -> None:
        self._young[number] = page
        if len(self._young) > self._half:
            self._write(sorted(number for number in self._changed if number in self._old))
            self._old, self._young = self._young, {}

    def _read(self, number: int) -> EditablePage:
        content = os.pread(self._descriptor, self._size, (number + HEADER_PAGES - 1) * self._size)
        if len(content) < self._size or content == self._blank:
            return EditablePage(self._size, number, file=self.file)
        if page_state(content, number) is PageState.DAMAGED:
            fixed = correct_page(content, number)
            if fixed is None:
                raise EseDamaged(
                    f"{self.file}: page {number}: its checksum does not hold",
                    code="ese-page-damaged",
                    hint="the image is damaged; replay from another recovery point",
                )
            self.corrected[number] = fixed.bits
            content = fixed.content
        return EditablePage.parse(content, number, self.file)

    def _read_run(self, first: int, last: int) -> None:
        """Read pages behind each other; those that are damaged are left to whoever asks for them."""
        count = last - first + 1
        # Decided before anything is read: keeping pages can write others of the run, newer than what was read.
        lacking = [number for number in range(first, last + 1) if self.kept(number) is None]
        content = os.pread(self._descriptor, count * self._size, (first + HEADER_PAGES - 1) * self._size)
        count = len(content) // self._size
        rows = np.frombuffer(content, np.uint8, count * self._size).reshape(count, self._size)
        damaged = (verify_pages(rows, np.arange(first, first + count, dtype=np.uint32)) == PageState.DAMAGED).tolist()
        for number in lacking:
            start = (number - first) * self._size
            if number - first < count and not damaged[number - first]:
                self._keep(number, EditablePage.parse(content[start : start + self._size], number, self.file))

    def _write(self, numbers: list[int]) -> None:
        batch = max(1, _WRITTEN_AT_ONCE // self._size)
        for start in range(0, len(numbers), batch):
            some = numbers[start : start + batch]
            encoded = b"".join(self._held(number).encode(seal=False) for number in some)
            sealed = seal_pages(np.frombuffer(encoded, np.uint8).reshape(len(some), -1), np.array(some, np.uint32))
            at = 0
            for first, last in _runs(some, 1):
                count = last - first + 1
                self._write_all(sealed[at : at + count].tobytes(), (first + HEADER_PAGES - 1) * self._size)
                at += count
            self.page_count = max(self.page_count, some[-1])
        self._changed.difference_update(numbers)

    def _held(self, number: int) -> EditablePage:
        page = self.kept(number)
        assert page is not None, f"page {number} was changed after it was dropped"
        return page

    def _write_all(self, content: bytes, offset: int) -> None:
        view = memoryview(content)
        while view:
            done = os.pwrite(self._descriptor, view, offset)
            view, offset = view[done:], offset + done


def _runs(numbers: list[int], near: int) -> Iterator[tuple[int, int]]:
    """Ascending numbers as spans (first, last) that bridge gaps of less than ``near``."""
    first = last = 0
    for number in numbers:
        if last and number - last <= near:
            last = number
            continue
        if last:
            yield first, last
        first = last = number
    if last:
        yield first, last

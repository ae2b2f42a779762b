"""A database file and the pages of it in memory: which are dirty, since when, and how they reach the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from perdure.testing.information_store.disk import Disk, DiskFile
from perdure.testing.information_store.header_fields import DatabaseFields
from perdure.testing.information_store.tree_pages import TreePage, read_tree_page, sealed_pages

__all__ = ["PagedFile"]

_HEADER_PAGES = 2
_BATCH = 32


@dataclass(eq=False, repr=False)
class PagedFile:
    """The pages of one database.

    A page reaches the file only when the log up to its last change is durable, and when the header says that the
    generation of that change is needed.

    Args:
        disk: Where the file lies.
        file: The database file.
        fields: Its header.
        last_page: Its last page.
        before_write: Called with the pages that are about to be written, before the log is made durable for them.
        make_durable: Makes the log durable up to a place.
        created_of: When the log of a generation was made.
        reserved: Bytes of a page that rollbacks may need.
        keep: Pages that stay in memory.
    """

    disk: Disk
    file: DiskFile
    fields: DatabaseFields
    last_page: int
    before_write: Callable[[list[TreePage]], None]
    make_durable: Callable[[int], None]
    created_of: Callable[[int], bytes]
    reserved: Callable[[TreePage], int]
    keep: int = 4096
    log_resilience: int = 0
    generation: Callable[[], int] = lambda: 0
    dirty: dict[int, TreePage] = field(default_factory=dict)
    written_pages: int = 0
    _pages: dict[int, TreePage] = field(default_factory=dict)

    @property
    def page_size(self) -> int:
        return self.fields.page_size

    def page(self, number: int) -> TreePage:
        """A page, read from the file if it is not in memory."""
        page = self._pages.get(number)
        return page if page is not None else self._load(number)

    def put(self, page: TreePage) -> None:
        """A page that is new, or new again."""
        self._pages[page.number] = page

    def take_over(self, page: TreePage, since: int) -> None:
        """A page that is newer than in the file, by records from a place on that are durable."""
        self.put(page)
        self.changed(page, since, since)

    def changed(self, page: TreePage, place: int, since: int) -> None:
        """A page was changed by the record at a place, in a transaction that began at ``since``."""
        page.last_place = place
        number = page.number
        if number not in self.dirty:
            self.dirty[number] = page
            page.dirty_since = since
        elif since < page.dirty_since:
            page.dirty_since = since
        elif self.dirty[number] is not page:
            page.dirty_since = min(since, self.dirty[number].dirty_since)
            self.dirty[number] = page

    def oldest_dirty(self, otherwise: int) -> int:
        """Where replay has to start because of pages that the file does not have."""
        return min((page.dirty_since for page in self.dirty.values()), default=otherwise)

    def write(self, numbers: Iterable[int]) -> int:
        """Write dirty pages, in the order given; those that the needed logs may not yet grow for stay dirty.

        Returns:
            How many were written. They are durable after the file is synced.
        """
        chosen = [self.dirty[number] for number in numbers if number in self.dirty]
        for at in range(0, len(chosen), _BATCH):
            self._write(chosen[at : at + _BATCH])
        return len(chosen)

    def write_some(self, count: int, chance: Random) -> int:
        """Write so many of the dirty pages, in any order."""
        if not self.dirty:
            return 0
        some = chance.sample(list(self.dirty), min(count, len(self.dirty)))
        return self.write([number for number in some if self._within_resilience(self.dirty[number])])

    def write_until(self, place: int) -> int:
        """Write every page that is dirty since before a place."""
        return self.write([number for number, page in self.dirty.items() if page.dirty_since < place])

    def write_all(self) -> int:
        """Write every dirty page."""
        return self.write(list(self.dirty))

    def write_header(self) -> None:
        """Write both copies of the header, one durable before the other is touched."""
        content = self.fields.encode()
        for offset in (self.page_size, 0):
            self.file.write(offset, content)
            self.file.sync()

    def extend(self, last: int) -> None:
        """Let the file end with a page."""
        self.last_page = last
        self.file.extend((last + _HEADER_PAGES) * self.page_size)

    def shed(self) -> None:
        """Forget clean pages beyond those that stay in memory; no caller may hold a page across this."""
        if len(self._pages) <= self.keep + self.keep // 8:
            return
        clean = [number for number in self._pages if number not in self.dirty]
        for number in clean[: len(self._pages) - self.keep]:
            del self._pages[number]

    def _load(self, number: int) -> TreePage:
        assert 1 <= number <= self.last_page, f"page {number} is beyond the end of the database"
        content = self.file.read((number + _HEADER_PAGES - 1) * self.page_size, self.page_size)
        page = read_tree_page(content, number, self.file.path.name)
        self._pages[number] = page
        return page

    def _within_resilience(self, page: TreePage) -> bool:
        """Whether the page may be written while the newest generations are still allowed to be lost."""
        return page.last_place >> 32 <= self.generation() - self.log_resilience

    def _write(self, pages: list[TreePage]) -> None:
        self.before_write(pages)
        newest = max(page.last_place for page in pages)
        self.make_durable(newest)
        if newest >> 32 > self.fields.max_required:
            self.fields.max_required = newest >> 32
            self.fields.max_required_time = self.created_of(newest >> 32)
            self.write_header()
        for page in pages:
            page.written()
        contents = [page.content(reserved=self.reserved(page)) for page in pages]
        for page, content in zip(pages, sealed_pages(contents, [page.number for page in pages]), strict=True):
            self.file.write((page.number + _HEADER_PAGES - 1) * self.page_size, content)
            del self.dirty[page.number]
            page.dirty_since = 0
        self.written_pages += len(pages)

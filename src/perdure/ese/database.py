"""A database opened for reading: its header, and its pages, each checked when it is read."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Self

from perdure.ese.checksums import PageState
from perdure.ese.errors import EseDamaged, NotAnEseFile
from perdure.ese.headers.copies import CopiesState
from perdure.ese.headers.database import DatabaseHeader, read_database_header
from perdure.ese.pages import Page
from perdure.ese.repair import correct_page, page_state

__all__ = ["HEADER_PAGES", "Database"]

HEADER_PAGES = 2
"""The header and its shadow lie before page 1."""

_HEAD = 1 << 16
_KEPT_PAGES = 1024


class Database:
    """A database file, read only. Close it, or use it in a ``with`` statement.

    A page whose checksum does not hold but names a single flipped bit is read as it was written, and noted in
    :attr:`corrected`. Any other damaged page raises when it is read.

    Args:
        path: The file. It may be clean or dirty; the pages of a dirty one may contradict each other, because the
            changes that make them whole are still in the log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.name
        size = path.stat().st_size
        if size == 0:
            raise NotAnEseFile(f"{self.file} is empty", hint="name an .edb file")
        self._file = path.open("rb")
        try:
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self.header: DatabaseHeader
            self.copies: CopiesState
            self.header, self.copies = read_database_header(self._map[:_HEAD], self.file)
        except BaseException:
            self._file.close()
            raise
        self.page_size = self.header.page_size
        self.page_count = max(0, size // self.page_size - HEADER_PAGES)
        self.corrected: dict[int, tuple[int, ...]] = {}
        self._kept: OrderedDict[int, Page] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        self._file.close()

    def page(self, number: int) -> Page:
        """A page by its number, from 1 to :attr:`page_count`.

        Raises:
            EseDamaged: There is no such page, or it is damaged beyond correction.
        """
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        if not 1 <= number <= self.page_count:
            raise EseDamaged(
                f"{self.file}: page {number} is referred to, and the file ends at page {self.page_count}",
                code="ese-page-missing",
                hint="the file is cut short, or a page is damaged; recover the database from a recovery point",
            )
        page = Page(self._sound(number), number, self.file)
        self._kept[number] = page
        if len(self._kept) > _KEPT_PAGES:
            self._kept.popitem(last=False)
        return page

    def _sound(self, number: int) -> bytes:
        start = (number + HEADER_PAGES - 1) * self.page_size
        content = self._map[start : start + self.page_size]
        if page_state(content, number) is not PageState.DAMAGED:
            return content
        corrected = correct_page(content, number)
        if corrected is None:
            raise EseDamaged(
                f"{self.file}: page {number}: its checksum does not hold",
                code="ese-page-damaged",
                hint="recover the database from a recovery point; perdure ese verify shows all damaged pages",
            )
        self.corrected[number] = corrected.bits
        return corrected.content

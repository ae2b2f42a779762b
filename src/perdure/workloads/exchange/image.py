"""A frozen image of a database: its file and the logs that it needs, checked as they are read."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perdure.ese.checksums import PageState, verify_pages, xor32
from perdure.ese.repair import correct_page
from perdure.model.errors import ImageFailed
from perdure.model.positions import Position
from perdure.workloads.contract import ImageReader
from perdure.workloads.exchange.tokens import StreamToken, encode_token

__all__ = ["HEAD", "HEADER_PAGES", "LOG_PAGE", "DatabaseReader", "ExchangeImage", "LogFileReader", "dbtimes"]

HEADER_PAGES = 2
"""The header and its shadow come before page 1 in the file."""

LOG_PAGE = 4096
"""Granularity of changes in a log that is a file of an image, bytes."""

HEAD = 16
"""Bytes of a page's checksum and count of changes."""

_DBTIME = slice(8, 16)


def dbtimes(heads: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The counts of changes in the heads of pages; 0 where a page was never written."""
    found: NDArray[np.uint64] = np.ascontiguousarray(heads[:, _DBTIME]).view("<u8")[:, 0]
    return found


@dataclass(frozen=True, slots=True)
class ExchangeImage:
    """An image; valid while the context manager that yielded it is open.

    Args:
        token: Where the log that continues it starts.
        time_ns: When it was frozen.
        files: The database, then the logs that it needs.
        found: Lines for people, filled while it is read.
        remarks: Lines for people that were known when it was frozen.
    """

    token: StreamToken
    time_ns: int
    files: Sequence[ImageReader]
    found: list[str] = field(default_factory=list)
    remarks: tuple[str, ...] = ()

    @property
    def position(self) -> Position:
        return self.token.position

    @property
    def chain(self) -> bytes:
        return encode_token(self.token)

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self.remarks, *self.found)


@dataclass(frozen=True, eq=False, slots=True)
class LogFileReader:
    """A log that belongs to the image; it was read and checked whole."""

    name: str
    content: bytes
    changed: NDArray[np.int64] | None
    page_size: int = LOG_PAGE

    @property
    def size(self) -> int:
        return len(self.content)

    def read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


@dataclass(eq=False, slots=True)
class DatabaseReader:
    """Reads a frozen database file and checks every page. Thread-safe.

    Args:
        name: Name in the image.
        descriptor: The frozen file.
        size: Its bytes.
        page_size: Bytes per page.
        changed: As in the contract, in pages of the file.
        check: Whether a page that does not hold ends the image; else it is only noted.
        found: Is told what a person should know.
        unchanged_since: Modification time that the file must still have after a read, nanoseconds; 0 if it is frozen.
    """

    name: str
    descriptor: int
    size: int
    page_size: int
    changed: NDArray[np.int64] | None
    check: bool
    found: list[str]
    unchanged_since: int = 0
    read_bytes: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def read(self, offset: int, length: int) -> bytes | memoryview:
        first = offset // self.page_size
        last = -(-min(offset + length, self.size) // self.page_size)
        content = os.pread(self.descriptor, (last - first) * self.page_size, first * self.page_size)
        self._still_unchanged()
        self._check(content, first)
        with self._guard:
            self.read_bytes += len(content)
        skip = offset - first * self.page_size
        return content if not skip and len(content) <= length else memoryview(content)[skip : skip + length]

    def heads(self, pages: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The first 16 bytes of pages of the file, checksum and count of changes, ``uint8[n, 16]``."""
        found = np.zeros((len(pages), HEAD), np.uint8)
        for index, page in enumerate(pages.tolist()):
            head = os.pread(self.descriptor, HEAD, page * self.page_size)
            found[index, : len(head)] = np.frombuffer(head, np.uint8)
        with self._guard:
            self.read_bytes += len(pages) * 4096
        return found

    def _still_unchanged(self) -> None:
        if self.unchanged_since and os.fstat(self.descriptor).st_mtime_ns != self.unchanged_since:
            raise ImageFailed(
                f"{self.name} was written while it was read: the database was mounted; nothing of this image counts",
                code="source-changed",
                hint="run the command again: a mounted database is captured with the help of its writer",
            )

    def _check(self, content: bytes, first: int) -> None:
        whole = len(content) // self.page_size
        pages = np.frombuffer(content, np.uint8, whole * self.page_size).reshape(whole, self.page_size)
        heads = max(0, HEADER_PAGES - first)
        if heads and not any(self._sound_header(page) for page in pages[:heads]):
            self._damaged(first, "the database header's checksum does not hold")
        body = pages[heads:]
        numbers = np.arange(first + heads, first + whole, dtype=np.uint32) - np.uint32(HEADER_PAGES - 1)
        states = verify_pages(body, numbers)
        for index in np.flatnonzero(states == PageState.DAMAGED).tolist():
            number = int(numbers[index])
            if correct_page(body[index].tobytes(), number) is not None:
                self._note(f"page {number} of {self.name} has a flipped bit, which its checksum can correct")
            else:
                self._damaged(number, "its checksum does not hold")

    @staticmethod
    def _sound_header(page: NDArray[np.uint8]) -> bool:
        return int.from_bytes(page[:4].tobytes(), "little") == xor32(page)

    def _damaged(self, number: int, why: str) -> None:
        what = f"page {number} of {self.name} is damaged in production: {why}"
        if not self.check:
            self._note(what)
            return
        raise ImageFailed(
            f"{what}; the image does not count, and the recovery points before it stay",
            code="source-damaged",
            hint="in an availability group fail over or reseed this copy; else recover the database, since the damage "
            "is in the live one. '--check logs' when protecting captures it as it is",
        )

    def _note(self, what: str) -> None:
        with self._guard:
            if len(self.found) < 100 and what not in self.found:
                self.found.append(what)

"""Pages of the write-ahead log: their headers, and places with and without them.

PostgreSQL counts a *place* in two ways. An LSN counts every byte of the WAL. A *byte position* counts only the bytes
of records, without page headers: 24 bytes at the beginning of each page, 40 in the first page of a segment.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONG_HEADER", "PAGE", "SHORT_HEADER", "PageHeader", "Places", "read_header"]

PAGE = 8192
SHORT_HEADER = 24
LONG_HEADER = 40
_USABLE = PAGE - SHORT_HEADER

FIRST_IS_CONTINUED = 0x0001
FIRST_OVERWRITES_BROKEN = 0x0008

_HEADER = struct.Struct("<HHIQI")


@dataclass(frozen=True, slots=True)
class PageHeader:
    """The header of a WAL page.

    Args:
        magic: Depends on the major version; 0 in the padding after a log switch.
        info: Flags.
        timeline: On which it was written.
        address: LSN of the page.
        remaining: Bytes of the record that continues from the page before.
    """

    magic: int
    info: int
    timeline: int
    address: int
    remaining: int


def read_header(page: bytes | bytearray | memoryview, offset: int = 0) -> PageHeader:
    """Read a header, of which at least 24 bytes must be there."""
    return PageHeader(*_HEADER.unpack_from(page, offset))


@dataclass(frozen=True, slots=True)
class Places:
    """Converts places for one segment size in bytes."""

    segment_size: int

    @property
    def _in_segment(self) -> int:
        return self.segment_size // PAGE * _USABLE - (LONG_HEADER - SHORT_HEADER)

    def header_size(self, page: int) -> int:
        """Bytes of the header of the page at this LSN."""
        return LONG_HEADER if page % self.segment_size == 0 else SHORT_HEADER

    def byte_position(self, lsn: int) -> int:
        """The byte position of an LSN; inside a header it is that of the page's first byte."""
        segment, rest = divmod(lsn, self.segment_size)
        page, offset = divmod(rest, PAGE)
        before = segment * self._in_segment
        if page == 0:
            return before + max(0, offset - LONG_HEADER)
        return before + PAGE - LONG_HEADER + (page - 1) * _USABLE + max(0, offset - SHORT_HEADER)

    def starts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """LSNs of records that begin at byte positions."""
        return self._lsns(positions, at_end=False)

    def ends(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """LSNs of records that end at byte positions: a record that fills a page ends before the next header."""
        return self._lsns(positions, at_end=True)

    def start(self, position: int) -> int:
        """The LSN of a record that begins at a byte position."""
        return int(self.starts(np.array([position], np.int64))[0])

    def end(self, position: int) -> int:
        """The LSN of a record that ends at a byte position."""
        return int(self.ends(np.array([position], np.int64))[0])

    def _lsns(self, positions: NDArray[np.int64], *, at_end: bool) -> NDArray[np.int64]:
        first = PAGE - LONG_HEADER
        segment, rest = np.divmod(positions, self._in_segment)
        page, offset = np.divmod(rest - first, _USABLE)
        header = np.full(len(positions), SHORT_HEADER, np.int64)
        if at_end:
            header[offset == 0] = 0
        later = segment * self.segment_size + (page + 1) * PAGE + header + offset
        head = 0 if at_end else LONG_HEADER
        sooner = segment * self.segment_size + rest + np.where(rest == 0, head, LONG_HEADER)
        return np.where(rest < first, sooner, later)

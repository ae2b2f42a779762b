"""Walking the records of a WAL stream as it comes in, a piece at a time.

Page headers are taken out first, which makes records contiguous. They lie at multiples of 8 bytes, each as long as its
first word says, so that one pass over those words finds them all; what is in them is then read for all at once. Every
record names the place of the one before: no record can be skipped, and no wrong length stays unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.model.errors import Damaged
from perdure.workloads.postgresql.lsn import format_lsn
from perdure.workloads.postgresql.wal_pages import (
    FIRST_IS_CONTINUED,
    FIRST_OVERWRITES_BROKEN,
    PAGE,
    SHORT_HEADER,
    Places,
    read_header,
)

__all__ = ["RECORD_HEADER", "RecordWalker", "Records"]

RECORD_HEADER = 24
_LARGEST_RECORD = 1 << 30


@dataclass(frozen=True, eq=False, slots=True)
class Records:
    """Whole records of one stretch of WAL, in order; arrays of equal length.

    Args:
        content: The bytes without page headers, uint8.
        offsets: Where each record begins in ``content``.
        lengths: Its bytes, without padding.
        starts: LSN of its first byte.
        ends: LSN of the end, padding included: what PostgreSQL calls its position.
        xids: Its transaction.
        managers: Its resource manager.
        infos: Its kind; the low four bits are not part of that.
        checks: Its CRC-32C.
    """

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    xids: NDArray[np.uint32]
    managers: NDArray[np.uint8]
    infos: NDArray[np.uint8]
    checks: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.offsets)


class RecordWalker:
    """Finds the records in a WAL stream.

    Args:
        segment_size: Bytes of a WAL segment.
        lsn: Where the stream begins: at a page, or where a record begins.
        synchronized: A record begins there. Else the first one that begins at or after it is found.
    """

    def __init__(self, segment_size: int, lsn: int, *, synchronized: bool) -> None:
        self._places = Places(segment_size)
        self._segment_size = segment_size
        self._lsn = lsn
        self._raw = bytearray()
        self._stripped = bytearray()
        self._base = self._places.byte_position(lsn)
        self._next: int | None = self._base if synchronized else None
        self._previous: int | None = None
        self._broken: list[int] = []

    @property
    def next_record(self) -> int | None:
        """LSN at which the next record begins; ``None`` before the first was found."""
        return None if self._next is None else self._places.start(self._next)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take in the bytes that continue the stream.

        Raises:
            Damaged: A page is not what belongs there.
        """
        self._raw += data
        view = memoryview(self._raw)
        at = 0
        try:
            while at < len(view):
                offset = self._lsn % PAGE
                if offset == 0:
                    size = self._places.header_size(self._lsn)
                    if len(view) - at < size:
                        break
                    self._enter_page(view, at)
                    at += size
                    self._lsn += size
                    offset = size
                take = min(PAGE - offset, len(view) - at)
                self._stripped += view[at : at + take]
                at += take
                self._lsn += take
        finally:
            view.release()
        del self._raw[:at]

    def _enter_page(self, view: memoryview, at: int) -> None:
        header = read_header(view, at)
        position = self._base + len(self._stripped)
        if header.magic == 0 and not any(view[at : at + SHORT_HEADER]):
            return
        if header.address != self._lsn:
            raise Damaged(
                f"the WAL page at {format_lsn(self._lsn)} says that it belongs to {format_lsn(header.address)}",
                code="damaged-wal",
                hint="check the server's disk and log; the replica is left as it is",
            )
        if header.info & FIRST_OVERWRITES_BROKEN:
            self._broken.append(position)
        if self._next is None and not header.info & FIRST_OVERWRITES_BROKEN:
            rest = header.remaining if header.info & FIRST_IS_CONTINUED else 0
            self._next = position + (rest + 7) // 8 * 8
        elif self._next is None:
            self._next = position

    def records(self) -> Records | None:
        """The whole records that came in since the last call; ``None`` if there is none.

        Raises:
            Damaged: What lies there is no record.
        """
        if self._next is None:
            return None
        found, after, last_end = self._walk(self._next)
        if not found:
            self._next = after
            return None
        content = np.frombuffer(bytes(self._stripped), np.uint8)
        offsets = np.array(found, np.int64) - self._base
        records = self._described(content, offsets, last_end)
        self._check_chain(records)
        self._next = after
        self._previous = int(records.starts[-1])
        keep = after - self._base
        if keep <= len(self._stripped):
            del self._stripped[:keep]
            self._base = after
        return records

    def _walk(self, position: int) -> tuple[list[int], int, int]:
        """Byte positions of whole records, that of the next one, and where the last one ends."""
        base = self._base
        limit = base + len(self._stripped) // 8 * 8
        found: list[int] = []
        end = position
        words = memoryview(self._stripped)[: limit - base].cast("I")
        try:
            while position + 8 <= limit:
                if self._broken and self._broken[0] >= position:
                    position = self._skip_broken(words, position, limit)
                    if position < 0:
                        position = -position
                        break
                    if position + 8 > limit:
                        break
                length = words[(position - base) >> 2]
                if length == 0:
                    position = self._after_padding(position)
                    # Padding belongs to the record before it, once it is here.
                    if found and position <= limit:
                        end = position
                    continue
                if not RECORD_HEADER <= length <= _LARGEST_RECORD:
                    raise self._not_a_record(position)
                end_of_this = position + (length + 7) // 8 * 8
                if end_of_this > limit:
                    break
                found.append(position)
                position = end = end_of_this
        finally:
            words.release()
        return found, position, end

    def _skip_broken(self, words: memoryview, position: int, limit: int) -> int:
        """Where to go on when a record was left unfinished by a crash; negative: nothing more is known yet."""
        broken = self._broken[0]
        if broken == position:
            self._broken.pop(0)
            return position
        length = words[(position - self._base) >> 2]
        if length and position + (length + 7) // 8 * 8 <= broken:
            return position
        if length == 0:
            return position
        self._broken.pop(0)
        return broken if broken <= limit else -broken

    def _after_padding(self, position: int) -> int:
        """After a log switch the rest of the segment is zeros."""
        start = self._places.start(position)
        return self._places.byte_position(-(-start // self._segment_size) * self._segment_size)

    def _not_a_record(self, position: int) -> Damaged:
        return Damaged(
            f"there is no WAL record at {format_lsn(self._places.start(position))}, where one has to begin",
            code="damaged-wal",
            hint="check the server's disk and log; the replica is left as it is",
        )

    def _described(self, content: NDArray[np.uint8], offsets: NDArray[np.int64], last_end: int) -> Records:
        words = content[: len(content) // 4 * 4].view("<u4")
        first = offsets >> 2
        kinds = words[first + 4]
        ends = np.append(offsets[1:] + self._base, last_end)
        return Records(
            content,
            offsets,
            words[first].astype(np.int64),
            self._places.starts(offsets + self._base),
            self._places.ends(ends),
            words[first + 1].copy(),
            ((kinds >> 8) & 0xFF).astype(np.uint8),
            (kinds & 0xFF).astype(np.uint8),
            words[first + 5].copy(),
        )

    def _check_chain(self, records: Records) -> None:
        words = records.content[: len(records.content) // 4 * 4].view("<u4")
        first = records.offsets >> 2
        named = words[first + 2].astype(np.int64) | (words[first + 3].astype(np.int64) << 32)
        before = np.append(named[0] if self._previous is None else self._previous, records.starts[:-1])
        wrong = np.flatnonzero(named != before)
        if len(wrong):
            row = int(wrong[0])
            raise Damaged(
                f"the WAL record at {format_lsn(int(records.starts[row]))} follows one at "
                f"{format_lsn(int(named[row]))}, not the one at {format_lsn(int(before[row]))}",
                code="damaged-wal",
                hint="check the server's disk and log; the replica is left as it is",
            )

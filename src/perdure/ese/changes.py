"""Which pages of which databases a range of logs changes.

Every change of a page of a logged database passes through the log, so an image taken at a later position differs from
an earlier one in these pages only, but for what is never logged: the two header pages, the checksum and flush bits of
pages that were written again unchanged, scrubbing, and bits that the engine corrected. Use it to plan what to read, and
confirm by checksum and ``dbtime``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perdure.ese.errors import EseDamaged
from perdure.ese.headers.attachments import path_text
from perdure.ese.logs.files import Log
from perdure.ese.logs.record_types import RECORD_TYPES, Head
from perdure.ese.logs.records import LogRecord, Records
from perdure.ese.logs.segments import SEGMENT_SIZE
from perdure.ese.structures import Fields, LogPosition, Signature

__all__ = ["DatabaseChanges", "changed_pages"]

Pages = NDArray[np.uint32]

_CREATE, _ATTACH, _DETACH = 14, 15, 16
_UNDO_INFO, _EMPTY_TREE, _EXTEND, _TRIM, _PATCH, _NEW_PAGE = 36, 48, 68, 81, 66, 95
_SHRINKS = (78, 94, 99)
_EXTENTS = (100, 101)
_NONE = 0xFFFFFFFF
_VERSION_FOLLOWS, _UTF16_PATH = 4, 8

_PAGE_AT: dict[int, tuple[int, ...]] = {
    **{kind.number: (4,) for kind in RECORD_TYPES.values() if kind.head is not Head.NONE and kind.number != _UNDO_INFO},
    **dict.fromkeys((24, 26, 58), (4, 36, 40)),
    **dict.fromkeys((27, 62), (4, 32, 36, 48)),
    **dict.fromkeys((28, 63), (4, 32, 44, 56)),
    65: (4, 32, 36, 40, 44),
    _NEW_PAGE: (4,),
}
"""Where page numbers are in records whose database number is at offset 3."""

_NAMES = np.zeros((5, 256), np.int64)
"""The same as columns: the first place in a record of every type, the second, and so on; 0 where there is none."""
for _kind, _places in _PAGE_AT.items():
    _NAMES[: len(_places), _kind] = _places

_BEGINS_OR_ENDS = (_CREATE, _ATTACH, _DETACH)
"""Records that change which database a number means."""


@dataclass(frozen=True, slots=True)
class DatabaseChanges:
    """What a range of logs changes in one database.

    Args:
        signature: Identity of the database; unset if the logs do not tell.
        dbid: Its number in the logs.
        path: Where it lay.
        pages: Numbers of the pages that change, ascending, ``uint32[n]``.
        last_page: The last page of the file after these logs, ``None`` if they do not change its size.
        created: Whether it was made in these logs: then these are all its pages.
    """

    signature: Signature
    dbid: int
    path: str
    pages: Pages
    last_page: int | None
    created: bool


def changed_pages(logs: Iterable[Log], *, start: LogPosition | None = None) -> list[DatabaseChanges]:
    """The pages that a range of logs changes, for every database that it touches.

    Args:
        logs: In order, without a gap.
        start: Leave out records before this position.

    Raises:
        EseDamaged: A log is not readable to its end, of version 7, or does not continue the one before: the map would
            be incomplete.
    """
    following = _Following()
    last: int | None = None
    for log in logs:
        if not log.readable or log.records is None or log.header is None:
            raise _incomplete(log, "cannot be read to its end, or is of version 7")
        if last is not None and log.header.generation != last + 1:
            raise _incomplete(log, f"does not follow generation {last:X}")
        last = log.header.generation
        for attachment in log.header.attached:
            following.attach(attachment.dbid, attachment.signature, attachment.path)
        following.read(log.records, start)
    return following.result()


@dataclass(slots=True)
class _Collected:
    dbid: int
    signature: Signature
    path: str
    parts: list[Pages] = field(default_factory=list)
    last_page: int | None = None
    created: bool = False

    def changes(self) -> DatabaseChanges:
        pages = np.unique(np.concatenate(self.parts)) if self.parts else np.empty(0, np.uint32)
        return DatabaseChanges(self.signature, self.dbid, self.path, pages, self.last_page, self.created)


class _Following:
    """Follows which database a number means, and collects its pages."""

    def __init__(self) -> None:
        self._all: dict[tuple[int, bytes], _Collected] = {}
        self._meant: dict[int, _Collected] = {}

    def attach(self, dbid: int, signature: Signature, path: str) -> None:
        key = (dbid, signature.raw)
        self._meant[dbid] = self._all.setdefault(key, _Collected(dbid, signature, path))

    def result(self) -> list[DatabaseChanges]:
        found = [collected.changes() for collected in self._all.values()]
        return [changes for changes in found if len(changes.pages) or changes.created or changes.last_page is not None]

    def read(self, records: Records, start: LogPosition | None) -> None:
        """Collect from the records of one log; a database number keeps its meaning from one attachment to the next."""
        types = records.types
        first = _first_from(records, start)
        begin = 0
        for mark in np.flatnonzero(_IS_RARE[types]).tolist():
            if types[mark] in _BEGINS_OR_ENDS:
                self._collect(records, types, max(begin, first), mark)
                begin = mark + 1
            self._mark(records.record(mark), counts=mark >= first)
        self._collect(records, types, max(begin, first), len(records))

    def _collect(self, records: Records, types: NDArray[np.uint8], begin: int, end: int) -> None:
        starts, kinds = records.starts[begin:end], types[begin:end]
        named = _NAMES[0, kinds] > 0
        starts, kinds = starts[named], kinds[named]
        if not len(starts):
            return
        dbids = records.content[starts + 3]
        pages = [_numbers(records.content, starts + _NAMES[0, kinds])]
        owners = [dbids]
        several = np.flatnonzero(_NAMES[1, kinds])
        for column in _NAMES[1:]:
            offsets = column[kinds[several]]
            more = several[offsets > 0]
            pages.append(_numbers(records.content, starts[more] + offsets[offsets > 0]))
            owners.append(dbids[more])
        self._add(np.concatenate(owners), np.concatenate(pages))

    def _add(self, dbids: NDArray[np.uint8], pages: Pages) -> None:
        real = (pages != 0) & (pages != _NONE)
        dbids, pages = dbids[real], pages[real]
        for dbid in np.flatnonzero(np.bincount(dbids)).tolist():
            self._of(dbid).parts.append(np.unique(pages[dbids == dbid]))

    def _mark(self, record: LogRecord, *, counts: bool) -> None:
        """A record that changes what a number means, or that names its pages in a way of its own."""
        at = Fields(record.content)
        if record.type in (_CREATE, _ATTACH):
            self._begin(record, at, counts=counts)
        elif record.type == _DETACH:
            self._meant.pop(at.u8(3), None)
        elif counts:
            for dbid, pages in _pages_named(record, at):
                self._of(dbid).parts.append(pages)
            size = _size_after(record, at)
            if size is not None:
                dbid, last = size
                self._of(dbid).last_page = last

    def _begin(self, record: LogRecord, at: Fields, *, counts: bool) -> None:
        made = record.type == _CREATE
        signature = at.signature(12 if made else 16)
        flags_at, path_at = (42, 47 if at.u8(42) & _VERSION_FOLLOWS else 43) if made else (74, 75)
        utf16 = bool(at.u8(flags_at) & _UTF16_PATH)
        self.attach(at.u8(3), signature, path_text(record.content[path_at:], utf16=utf16))
        if made and counts:
            collected = self._of(at.u8(3))
            collected.parts, collected.last_page, collected.created = [], None, True

    def _of(self, dbid: int) -> _Collected:
        if dbid not in self._meant:
            self.attach(dbid, Signature(bytes(28)), "")
        return self._meant[dbid]


_RARE = (_CREATE, _ATTACH, _DETACH, _EMPTY_TREE, _EXTEND, _TRIM, _PATCH, *_SHRINKS, *_EXTENTS)
_IS_RARE = np.isin(np.arange(256), _RARE)


def _pages_named(record: LogRecord, at: Fields) -> Iterator[tuple[int, Pages]]:
    """Pages that a rare record names: the number of the database, and the pages."""
    if record.type == _EMPTY_TREE:
        listed = [at.u32(place + 8) for place in range(46, len(record.content) - 15, 16)]
        yield at.u8(3), np.array([at.u32(4), *listed], np.uint32)
    elif record.type == _PATCH:
        yield at.u8(1), np.array([at.u32(2)], np.uint32)
    elif record.type == _TRIM or record.type in _EXTENTS:
        yield at.u8(1), np.arange(at.u32(2), at.u32(2) + at.u32(6), dtype=np.uint32)


def _size_after(record: LogRecord, at: Fields) -> tuple[int, int] | None:
    """The number of the database and its last page, if the record sets that."""
    if record.type == _EXTEND:
        return at.u8(5), at.u32(6)
    if record.type in _SHRINKS:
        return at.u8(1), at.u32(2)
    return None


def _first_from(records: Records, start: LogPosition | None) -> int:
    """The index of the first record at or behind a position."""
    if start is None or records.generation > start.generation:
        return 0
    if records.generation < start.generation:
        return len(records)
    return int(np.searchsorted(records.places, start.sector * SEGMENT_SIZE + start.offset))


def _numbers(content: NDArray[np.uint8], starts: NDArray[np.int64]) -> Pages:
    """The 32-bit numbers at many places."""
    found: Pages = np.ndarray((len(content) - 3,), "<u4", content, strides=(1,))[starts]
    return found


def _incomplete(log: Log, what: str) -> EseDamaged:
    return EseDamaged(
        f"{log.file}: this log {what}, so the pages that changed are not all known",
        code="ese-log-incomplete",
        hint="compare the whole database instead",
    )

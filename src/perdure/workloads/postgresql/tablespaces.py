"""Tablespaces that the log makes: a recovered cluster must never reach into those of its origin.

The record of CREATE TABLESPACE names the directory. A server that replays it makes a link to that directory, even where
the origin's server is at work in it, and then writes there. So before a recovered directory is started, such records in
its ``pg_wal`` lose the name. PostgreSQL then keeps the tablespace's files below ``pg_tblspc`` itself ("in place").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from perdure.workloads.postgresql.lsn import segment_start
from perdure.workloads.postgresql.records import RECORD_HEADER, Records, RecordWalker
from perdure.workloads.postgresql.wal_pages import PAGE, Places

__all__ = ["Creation", "creations", "keep_tablespaces_inside"]

_TABLESPACE, _CREATE = 5, 0x00
_CHECK_AT = 20
_DATA_LONG, _DATA_SHORT = 254, 255
_ORIGIN, _TOP_TRANSACTION = 253, 252
_FILE = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True, slots=True)
class Creation:
    """A record of CREATE TABLESPACE.

    Args:
        directory: The directory that it names.
        changes: What takes that name out: for each place in the log the byte to be written there.
    """

    directory: str
    changes: tuple[tuple[int, int], ...]


def creations(content: bytes | bytearray | memoryview, begin: int, segment_size: int) -> list[Creation]:
    """The records of CREATE TABLESPACE that lie whole in a stretch of WAL and name a directory.

    Args:
        content: The stretch. Such a record is shorter than a page, so a page more on both sides has them all.
        begin: The LSN of its first byte, where a page begins.
        segment_size: Bytes of a WAL file.

    Raises:
        Damaged: It is not WAL. Noticed only where something looks like such a record.
    """
    if not _may_create(content):
        return []
    walker = RecordWalker(segment_size, begin, synchronized=False)
    walker.feed(content)
    records = walker.records()
    if records is None:
        return []
    found = (_creation(records, row, segment_size) for row in _rows(records))
    return [each for each in found if each.directory]


def _may_create(content: bytes | bytearray | memoryview) -> bool:
    """Whether anything looks like such a record: few stretches do, and walking all records takes long.

    Records begin at multiples of 8 bytes, page headers are such multiples, and the kind is the fifth word.
    """
    words = np.frombuffer(content, "<u4", len(content) // 4)[0::2]
    return bool(np.any((words & 0xFFFFFFF0) == (_TABLESPACE << 8 | _CREATE)))


def keep_tablespaces_inside(directory: Path, start: int, end: int, segment_size: int) -> list[str]:
    """Take the directories out of the records of CREATE TABLESPACE.

    Args:
        directory: A recovered data directory.
        start: LSN from which replay starts; a record begins there.
        end: LSN at which the WAL ends.
        segment_size: Bytes of a WAL file.

    Returns:
        The directories that were named.

    Raises:
        Damaged: The WAL is not whole.
    """
    files = _newest_files(directory / "pg_wal", segment_size)
    named: list[str] = []
    begin = segment_start(start, segment_size)
    before = b""
    while begin < end and begin in files:
        following = files.get(begin + segment_size)
        after = b"" if following is None else _read(following[-1], PAGE)
        here = _read(files[begin][-1], segment_size)
        stretch = before + here + after
        for creation in creations(stretch[: end - begin + len(before)], begin - len(before), segment_size):
            _write(files, creation, segment_size)
            named.append(creation.directory)
        # Read again: the next stretch must not find a record that has just been changed.
        before = _read(files[begin][-1], segment_size)[-PAGE:]
        begin += segment_size
    return named


def _read(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return file.read(length)


def _write(files: dict[int, list[Path]], creation: Creation, segment_size: int) -> None:
    for lsn, byte in creation.changes:
        for path in files[segment_start(lsn, segment_size)]:
            with path.open("r+b") as file:
                file.seek(lsn % segment_size)
                file.write(bytes([byte]))


def _rows(records: Records) -> Iterator[int]:
    chosen = (records.managers == _TABLESPACE) & ((records.infos & 0xF0) == _CREATE)
    yield from chosen.nonzero()[0].tolist()


def _creation(records: Records, row: int, segment_size: int) -> Creation:
    begin, length = int(records.offsets[row]), int(records.lengths[row])
    record = bytearray(records.content[begin : begin + length].tobytes())
    at = _path_at(record)
    name = record[at:].split(b"\0", 1)[0].decode("utf-8", "replace")
    record[at] = 0
    check = int(google_crc32c.value(bytes(record[RECORD_HEADER:] + record[:_CHECK_AT])))
    record[_CHECK_AT : _CHECK_AT + 4] = check.to_bytes(4, "little")
    places = Places(segment_size)
    first = places.byte_position(int(records.starts[row]))
    changed = (*range(_CHECK_AT, _CHECK_AT + 4), at)
    return Creation(name, tuple((places.start(first + offset), record[offset]) for offset in changed))


def _path_at(record: bytearray) -> int:
    """Where the directory's name begins: after the header of the record's data and the tablespace's OID."""
    at = RECORD_HEADER
    while record[at] in (_ORIGIN, _TOP_TRANSACTION):
        at += 3 if record[at] == _ORIGIN else 5
    return at + (2 if record[at] == _DATA_SHORT else 5) + 4


def _newest_files(folder: Path, segment_size: int) -> dict[int, list[Path]]:
    """The WAL files by the LSN at which they begin; where timelines share a place, the one that is replayed last."""
    found: dict[int, list[Path]] = {}
    per_name = (1 << 32) // segment_size
    for path in sorted(folder.iterdir()):
        if _FILE.fullmatch(path.name):
            number = int(path.name[8:16], 16) * per_name + int(path.name[16:], 16)
            found.setdefault(number * segment_size, []).append(path)
    return found

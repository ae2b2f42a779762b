"""Tablespaces that the log makes: a recovered cluster must never reach into those of its origin.

The record of CREATE TABLESPACE names the directory. A server that replays it makes a link to that directory, even where
the origin's server is at work in it, and then writes there. So before a recovered directory is started, such records in
its ``pg_wal`` lose the name. PostgreSQL then keeps the tablespace's files below ``pg_tblspc`` itself ("in place").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from perdure.workloads.postgresql.lsn import segment_start
from perdure.workloads.postgresql.records import RECORD_HEADER, Records, RecordWalker
from perdure.workloads.postgresql.wal_pages import Places

__all__ = ["crc32c", "keep_tablespaces_inside"]

_TABLESPACE, _CREATE = 5, 0x00
_CHECK_AT = 20
_DATA_LONG, _DATA_SHORT = 254, 255
_ORIGIN, _TOP_TRANSACTION = 253, 252
_FILE = re.compile(r"[0-9A-F]{24}")

_POLYNOMIAL = 0x82F63B78


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
    walker = RecordWalker(segment_size, start, synchronized=True)
    named: list[str] = []
    at = start
    while at < end and (begin := segment_start(at, segment_size)) in files:
        stop = min(end, begin + segment_size)
        with files[begin][-1].open("rb") as file:
            file.seek(at - begin)
            walker.feed(file.read(stop - at))
        records = walker.records()
        if records is not None:
            named += [_take_out(records, row, files, segment_size) for row in _creations(records)]
        at = stop
    return named


def _creations(records: Records) -> Iterator[int]:
    chosen = (records.managers == _TABLESPACE) & ((records.infos & 0xF0) == _CREATE)
    yield from chosen.nonzero()[0].tolist()


def _take_out(records: Records, row: int, files: dict[int, list[Path]], segment_size: int) -> str:
    begin, length = int(records.offsets[row]), int(records.lengths[row])
    record = bytearray(records.content[begin : begin + length].tobytes())
    at = _path_at(record)
    name = record[at:].split(b"\0", 1)[0].decode("utf-8", "replace")
    record[at] = 0
    check = crc32c(record[RECORD_HEADER:] + record[:_CHECK_AT])
    record[_CHECK_AT : _CHECK_AT + 4] = check.to_bytes(4, "little")
    places = Places(segment_size)
    first = places.byte_position(int(records.starts[row]))
    for offset in (*range(_CHECK_AT, _CHECK_AT + 4), at):
        lsn = places.start(first + offset)
        for path in files[segment_start(lsn, segment_size)]:
            with path.open("r+b") as file:
                file.seek(lsn % segment_size)
                file.write(record[offset : offset + 1])
    return name


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


def crc32c(data: bytes | bytearray) -> int:
    """The checksum of WAL records; for short ones."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value >> 8) ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def _entry(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (_POLYNOMIAL if number & 1 else 0)
    return number


_TABLE = [_entry(number) for number in range(256)]

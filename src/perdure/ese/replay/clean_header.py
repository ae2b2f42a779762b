"""The header of a database after its replay: clean shutdown at the position that was reached."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from perdure.ese.checksums import xor32
from perdure.ese.headers.database import VERSION, DatabaseState
from perdure.ese.headers.kinds import DATABASE_MAGIC, FileType
from perdure.ese.structures import LogPosition, LogTime, Signature

__all__ = ["CleanHeader", "blank_header", "write_header"]

_STATE = 52
_CONSISTENT, _CONSISTENT_TIME, _DETACH_TIME, _DETACH = 56, 64, 88, 96
_RANGES = ((296, 8), (348, 8), (416, 4), (536, 4), (640, 4), (672, 16))
"""Required logs, their times, committed logs, recovering and consistent generations: a clean database has none."""

_RUNNING_BACKUPS = ((184, 24), (316, 24))
_FLUSH_SIGNATURES = ((584, 28), (612, 28))
"""They pair the database with a flush map; the one that may lie beside the original does not fit the copy."""


@dataclass(frozen=True, slots=True)
class CleanHeader:
    """What a replay brings a header to.

    Args:
        position: Up to where the log was replayed.
        time: When the segment at that position was begun.
        dbtime: The highest of the database.
        last_objid: The highest object number.
        version: Format that the log upgraded it to, ``None`` for none.
    """

    position: LogPosition
    time: LogTime
    dbtime: int
    last_objid: int
    version: tuple[int, int] | None

    def applied_to(self, header: bytes) -> bytes:
        """The header brought to it, with its checksum."""
        changed = bytearray(header)
        struct.pack_into("<Q", changed, 16, self.dbtime)
        struct.pack_into("<I", changed, _STATE, DatabaseState.CLEAN_SHUTDOWN)
        place = struct.pack("<HHi", self.position.offset, self.position.sector, self.position.generation)
        for offset in (_CONSISTENT, _DETACH):
            changed[offset : offset + 8] = place
        for offset in (_CONSISTENT_TIME, _DETACH_TIME):
            changed[offset : offset + 8] = self.time.raw
        for offset, size in (*_RANGES, *_RUNNING_BACKUPS, *_FLUSH_SIGNATURES):
            changed[offset : offset + size] = bytes(size)
        if self.last_objid > int.from_bytes(changed[212:216], "little"):
            struct.pack_into("<I", changed, 212, self.last_objid)
        if self.version is not None and self.version > _version(changed):
            struct.pack_into("<I", changed, 232, self.version[0])
            struct.pack_into("<I", changed, 644, self.version[1])
        struct.pack_into("<I", changed, 0, xor32(bytes(changed)))
        return bytes(changed)


def blank_header(page_size: int, signature: Signature, log_signature: Signature, dbid: int) -> bytes:
    """The header of a database that was just made, without a checksum."""
    header = bytearray(page_size)
    struct.pack_into("<II", header, 4, DATABASE_MAGIC, VERSION)
    header[24:52] = signature.raw
    struct.pack_into("<I", header, _STATE, DatabaseState.JUST_CREATED)
    struct.pack_into("<I", header, 104, dbid)
    header[108:136] = log_signature.raw
    struct.pack_into("<II", header, 232, _FIRST_UPDATE, page_size)
    struct.pack_into("<II", header, 340, VERSION, _FIRST_UPDATE)
    struct.pack_into("<I", header, 667, FileType.DATABASE)
    return bytes(header)


_FIRST_UPDATE = 20
"""The format of databases when version 8 logs began; a record in the log says so if it is newer."""


def write_header(descriptor: int, header: bytes) -> None:
    """Write both copies, one after the other, each durable before the next."""
    for offset in (len(header), 0):
        os.pwrite(descriptor, header, offset)
        os.fsync(descriptor)


def _version(header: bytes | bytearray) -> tuple[int, int]:
    return int.from_bytes(header[232:236], "little"), int.from_bytes(header[644:648], "little")

"""Headers of databases, logs and checkpoints, written field by field as the engine keeps them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from perdure.ese.checksums import xor32
from perdure.ese.structures import LogPosition

__all__ = [
    "NOWHERE",
    "AttachedDatabase",
    "BackupStamp",
    "CheckpointFields",
    "DatabaseFields",
    "LogFields",
    "log_position_bytes",
    "log_time_bytes",
    "parameters_bytes",
    "signature_bytes",
    "time_of",
]

NOWHERE = LogPosition(0, 0, 0)
_NO_TIME = bytes(8)
_HEADER = 4096
_DATABASE_VERSION = (0x620, 110, 240)
_LOG_VERSION = (8, 4000, 60, 140)
_ATTACH_LIST = 2048
_ENGINE_FORMAT = 9180


def log_time_bytes(moment: datetime) -> bytes:
    """A moment as the engine stores it, in UTC to the millisecond."""
    milliseconds = moment.microsecond // 1000
    return bytes(
        (
            moment.second,
            moment.minute,
            moment.hour,
            moment.day,
            moment.month,
            moment.year - 1900,
            1 | (milliseconds & 0x7F) << 1,
            milliseconds >> 7 << 1,
        )
    )


def time_of(raw: bytes) -> datetime:
    """The moment in 8 stored bytes that are set."""
    second, minute, hour, day, month, year = raw[:6]
    milliseconds = raw[6] >> 1 | (raw[7] >> 1 & 7) << 7
    whole = datetime(1900 + year, month, day, hour, minute, second, tzinfo=UTC)
    return whole + timedelta(milliseconds=milliseconds)


def log_position_bytes(position: LogPosition) -> bytes:
    """The 8 bytes of a position."""
    return struct.pack("<HHi", position.offset, position.sector, position.generation)


def signature_bytes(number: int, created: datetime) -> bytes:
    """The 28 bytes of a signature."""
    return struct.pack("<I", number) + log_time_bytes(created) + bytes(16)


def parameters_bytes(log_folder: str, *, circular: bool, segments: int) -> bytes:
    """The 567 bytes of the engine's parameters; the paths only inform."""
    path = log_folder.encode("ascii", "replace")[:260].ljust(261, b"\0")
    return path * 2 + struct.pack("<BIIIIIII", circular, 16, 300, 64, 300, 80, segments, 512) + bytes(16)


@dataclass(frozen=True, slots=True)
class BackupStamp:
    """What a header remembers of a backup (BKINFO)."""

    position: LogPosition = NOWHERE
    time: bytes = _NO_TIME
    first: int = 0
    last: int = 0

    def encode(self) -> bytes:
        """Its 24 bytes."""
        return log_position_bytes(self.position) + self.time + struct.pack("<II", self.first, self.last)

    @staticmethod
    def decode(raw: bytes) -> BackupStamp:
        """From its 24 bytes."""
        offset, sector, generation = struct.unpack_from("<HHi", raw)
        return BackupStamp(LogPosition(generation, sector, offset), raw[8:16], *struct.unpack_from("<II", raw, 16))

    def __bool__(self) -> bool:
        return self.last != 0


@dataclass(slots=True)
class DatabaseFields:
    """The header of a database; generations are 0 where no log is meant."""

    page_size: int
    signature: bytes
    log_signature: bytes
    state: int = 1
    dbtime: int = 0
    dbid: int = 1
    consistent: LogPosition = NOWHERE
    consistent_time: bytes = _NO_TIME
    attach: LogPosition = NOWHERE
    attach_time: bytes = _NO_TIME
    detach: LogPosition = NOWHERE
    detach_time: bytes = _NO_TIME
    full: BackupStamp = BackupStamp()
    incremental: BackupStamp = BackupStamp()
    current_full: BackupStamp = BackupStamp()
    snapshot: BackupStamp = BackupStamp()
    copy: BackupStamp = BackupStamp()
    last_objid: int = 0
    repairs: int = 0
    repair_time: bytes = _NO_TIME
    min_required: int = 0
    max_required: int = 0
    max_committed: int = 0
    max_required_time: bytes = _NO_TIME
    max_committed_time: bytes = _NO_TIME
    min_consistent: int = 0

    def encode(self) -> bytes:
        """One copy of the header, as large as a page."""
        header = bytearray(self.page_size)
        version, major, minor = _DATABASE_VERSION
        struct.pack_into("<IIiQ", header, 4, 0x89ABCDEF, version, 0, self.dbtime)
        header[24:52] = self.signature
        struct.pack_into("<I", header, 52, self.state)
        header[56:64], header[64:72] = log_position_bytes(self.consistent), self.consistent_time
        header[72:80], header[80:88] = self.attach_time, log_position_bytes(self.attach)
        header[88:96], header[96:104] = self.detach_time, log_position_bytes(self.detach)
        struct.pack_into("<I", header, 104, self.dbid)
        header[108:136] = self.log_signature
        header[136:160], header[160:184] = self.full.encode(), self.incremental.encode()
        header[184:208] = self.current_full.encode()
        struct.pack_into("<IIIIIIII", header, 208, 0x06000000, self.last_objid, 10, 0, 17763, 0, major, self.page_size)
        struct.pack_into("<I", header, 240, self.repairs)
        header[244:252] = self.repair_time
        struct.pack_into("<ii", header, 296, self.min_required, self.max_required)
        header[316:340] = self.snapshot.encode()
        struct.pack_into("<II", header, 340, version, major)
        header[348:356] = self.max_committed_time
        # Types of the last full and incremental backup: through the operating system's snapshots.
        struct.pack_into("<II", header, 356, int(bool(self.full)), int(bool(self.incremental)))
        struct.pack_into("<i", header, 416, self.max_committed)
        header[420:444] = self.copy.encode()
        struct.pack_into("<I", header, 468, int(bool(self.copy)))
        struct.pack_into("<Q", header, 508, 0xFFFFFFFFFFFFFFFF)
        struct.pack_into("<iII", header, 640, self.min_consistent, minor, _ENGINE_FORMAT)
        struct.pack_into("<I", header, 667, 1)
        header[672:680] = self.max_required_time
        struct.pack_into("<I", header, 0, xor32(bytes(header)))
        return bytes(header)

    @staticmethod
    def decode(raw: bytes) -> DatabaseFields:
        """From one sound copy of a header that this module or a replay of its database wrote."""

        def position(at: int) -> LogPosition:
            offset, sector, generation = struct.unpack_from("<HHi", raw, at)
            return LogPosition(generation, sector, offset)

        def number(at: int) -> int:
            return int.from_bytes(raw[at : at + 4], "little")

        return DatabaseFields(
            page_size=number(236),
            signature=raw[24:52],
            log_signature=raw[108:136],
            state=number(52),
            dbtime=int.from_bytes(raw[16:24], "little"),
            dbid=number(104),
            consistent=position(56),
            consistent_time=raw[64:72],
            attach=position(80),
            attach_time=raw[72:80],
            detach=position(96),
            detach_time=raw[88:96],
            full=BackupStamp.decode(raw[136:160]),
            incremental=BackupStamp.decode(raw[160:184]),
            current_full=BackupStamp.decode(raw[184:208]),
            snapshot=BackupStamp.decode(raw[316:340]),
            copy=BackupStamp.decode(raw[420:444]),
            last_objid=number(212),
            repairs=number(240),
            repair_time=raw[244:252],
            min_required=number(296),
            max_required=number(300),
            max_committed=number(416),
            max_required_time=raw[672:680],
            max_committed_time=raw[348:356],
            min_consistent=number(640),
        )


@dataclass(frozen=True, slots=True)
class AttachedDatabase:
    """One entry of an attach list."""

    dbid: int
    dbtime: int
    last_objid: int
    attach: LogPosition
    consistent: LogPosition
    signature: bytes
    path: str

    def encode(self) -> bytes:
        """Its bytes."""
        name = self.path.encode("utf-16-le") + b"\0\0"
        head = struct.pack("<BBHQII", self.dbid, 0x20, len(name), self.dbtime, self.last_objid, 0)
        places = log_position_bytes(self.attach) + log_position_bytes(self.consistent)
        return head + places + self.signature + name


def _attach_list(attached: Sequence[AttachedDatabase]) -> bytes:
    content = b"".join(entry.encode() for entry in attached)
    assert len(content) < _ATTACH_LIST, "too many databases, or paths too long, for an attach list"
    return content.ljust(_ATTACH_LIST, b"\0")


@dataclass(frozen=True, slots=True)
class LogFields:
    """The header of a log; ``previous_segments`` is the XOR of the checksums of the segments of the log before."""

    generation: int
    created: bytes
    signature: bytes
    page_size: int
    segments: int
    parameters: bytes
    previous_created: bytes = _NO_TIME
    previous_segments: int = 0
    checkpoint: LogPosition = NOWHERE
    flags: int = 0
    attached: tuple[AttachedDatabase, ...] = field(default=())

    def encode(self) -> bytes:
        """The 4096 bytes."""
        header = bytearray(_HEADER)
        major, minor, update_major, update_minor = _LOG_VERSION
        page_size = 0 if self.page_size == _HEADER else self.page_size
        struct.pack_into("<iHHHH", header, 4, self.generation, _HEADER, 1, self.segments, page_size)
        header[16:24], header[24:32] = self.created, self.previous_created
        struct.pack_into("<III", header, 32, major, minor, update_major)
        header[44:72] = self.signature
        header[72:639] = self.parameters
        header[639] = self.flags
        header[640:648] = log_position_bytes(self.checkpoint)
        struct.pack_into("<IBQI", header, 648, update_minor, 0, self.previous_segments, _ENGINE_FORMAT)
        struct.pack_into("<I", header, 667, 3)
        header[671 : 671 + _ATTACH_LIST] = _attach_list(self.attached)
        struct.pack_into("<I", header, 0, xor32(bytes(header)))
        return bytes(header)


@dataclass(frozen=True, slots=True)
class CheckpointFields:
    """A checkpoint file."""

    checkpoint: LogPosition
    signature: bytes
    parameters: bytes
    last_full: BackupStamp = BackupStamp()
    last_incremental: BackupStamp = BackupStamp()
    attached: tuple[AttachedDatabase, ...] = field(default=())

    def encode(self) -> bytes:
        """Both copies, 8192 bytes."""
        copy = bytearray(_HEADER)
        copy[12:20] = log_position_bytes(self.checkpoint)
        copy[20:48] = self.signature
        copy[48:615] = self.parameters
        copy[615:623], copy[623:631] = log_position_bytes(self.last_full.position), self.last_full.time
        copy[631:639], copy[639:647] = log_position_bytes(self.last_incremental.position), self.last_incremental.time
        copy[647] = 1
        copy[648:656] = log_position_bytes(self.checkpoint)
        struct.pack_into("<I", copy, 667, 4)
        copy[679 : 679 + _ATTACH_LIST] = _attach_list(self.attached)
        struct.pack_into("<I", copy, 0, xor32(bytes(copy)))
        return bytes(copy) * 2

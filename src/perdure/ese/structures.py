"""The small structures that all ESE headers are made of, and a reader of packed little-endian fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["BackupMark", "EngineParameters", "EventCount", "Fields", "LogPosition", "LogTime", "Signature"]

_TIME_SIZE = 8
_SIGNATURE_SIZE = 28


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A place in a log stream (LGPOS), ordered as the engine orders it.

    Args:
        generation: Number of the log file.
        sector: Sector in the file; a segment of 4096 bytes in version 8 logs.
        offset: Byte in the sector.
    """

    generation: int
    sector: int
    offset: int

    def __str__(self) -> str:
        return f"{self.generation:X},{self.sector:X},{self.offset:X}"

    def __bool__(self) -> bool:
        return (self.generation, self.sector, self.offset) != (0, 0, 0)


@dataclass(frozen=True, slots=True)
class LogTime:
    """A moment as ESE stores it (LOGTIME).

    Two are equal only if all 8 bytes are, which is what the rules of a log chain ask for.

    Args:
        raw: The 8 bytes.
    """

    raw: bytes

    def __bool__(self) -> bool:
        return any(self.raw)

    @property
    def utc(self) -> bool:
        """Whether the engine noted that the time is in UTC; older logs hold local time."""
        return bool(self.raw[6] & 1)

    @property
    def milliseconds(self) -> int:
        """The fraction of the second."""
        return self.raw[6] >> 1 | (self.raw[7] >> 1 & 7) << 7

    @property
    def moment(self) -> datetime | None:
        """The moment, ``None`` if it is unset or no date. A local time is given as if it were UTC."""
        second, minute, hour, day, month, year = self.raw[:6]
        try:
            return datetime(1900 + year, month, day, hour, minute, second, self.milliseconds * 1000, tzinfo=UTC)
        except ValueError:
            return None

    def __str__(self) -> str:
        if not self:
            return ""
        moment = self.moment
        if moment is None:
            return f"no date ({self.raw.hex()})"
        return f"{moment:%Y-%m-%d %H:%M:%S}.{self.milliseconds:03d}{'Z' if self.utc else ' local'}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The identity of a database, log stream or flush map. Two are equal only if all 28 bytes are.

    Args:
        raw: The 28 bytes.
    """

    raw: bytes

    def __bool__(self) -> bool:
        return any(self.raw)

    @property
    def random(self) -> int:
        """The random number drawn when the thing was made."""
        return int.from_bytes(self.raw[:4], "little")

    @property
    def created(self) -> LogTime:
        """When the thing was made."""
        return LogTime(self.raw[4:12])

    @property
    def computer(self) -> str:
        """The computer that made it; blank since Exchange 2000."""
        return _text(self.raw[12:])

    def __str__(self) -> str:
        if not self:
            return ""
        made_by = f" on {self.computer}" if self.computer else ""
        return f"{self.random:08x} of {self.created}{made_by}"


@dataclass(frozen=True, slots=True)
class BackupMark:
    """When a backup was taken and which logs it held (BKINFO).

    Args:
        position: The log position of the backup's mark.
        time: When the mark was made.
        first_generation: First log that the backup held.
        last_generation: Last log that the backup held.
    """

    position: LogPosition
    time: LogTime
    first_generation: int
    last_generation: int

    def __bool__(self) -> bool:
        return bool(self.position) or bool(self.time) or (self.first_generation, self.last_generation) != (0, 0)

    def __str__(self) -> str:
        if not self:
            return ""
        return f"{self.time} at {self.position}, logs {self.first_generation:X}-{self.last_generation:X}"


@dataclass(frozen=True, slots=True)
class EventCount:
    """How often something happened to a database, and when last.

    Args:
        count: Since the header was last reset.
        time: The last one.
        before: Before the header was last reset.
    """

    count: int
    time: LogTime
    before: int = 0

    def __bool__(self) -> bool:
        return bool(self.count or self.before or self.time)

    def __str__(self) -> str:
        if not self:
            return ""
        return f"{self.count}{f' (before: {self.before})' if self.before else ''}, last {self.time}"


@dataclass(frozen=True, slots=True)
class EngineParameters:
    """How the engine was set up when it wrote a log or checkpoint (DBMS_PARAM). The paths inform only."""

    system_path: str
    log_path: str
    circular: bool
    sessions: int
    open_tables: int
    version_pages: int
    cursors: int
    log_buffers: int
    sectors_per_log: int
    cache_pages: int


class Fields:
    """Reads packed little-endian fields at fixed offsets. Numbers beyond the end of the bytes are 0.

    Args:
        content: The bytes; offsets count from their start.
    """

    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def u8(self, offset: int) -> int:
        return int.from_bytes(self.content[offset : offset + 1], "little")

    def u16(self, offset: int) -> int:
        return int.from_bytes(self.content[offset : offset + 2], "little")

    def u32(self, offset: int) -> int:
        return int.from_bytes(self.content[offset : offset + 4], "little")

    def i32(self, offset: int) -> int:
        return int.from_bytes(self.content[offset : offset + 4], "little", signed=True)

    def u64(self, offset: int) -> int:
        return int.from_bytes(self.content[offset : offset + 8], "little")

    def position(self, offset: int) -> LogPosition:
        place, sector, generation = struct.unpack_from("<HHi", self.content, offset)
        return LogPosition(generation, sector, place)

    def time(self, offset: int) -> LogTime:
        return LogTime(bytes(self.content[offset : offset + _TIME_SIZE]))

    def signature(self, offset: int) -> Signature:
        return Signature(bytes(self.content[offset : offset + _SIGNATURE_SIZE]))

    def backup(self, offset: int) -> BackupMark:
        """Read the 24 bytes of a backup mark."""
        return BackupMark(self.position(offset), self.time(offset + 8), self.u32(offset + 16), self.u32(offset + 20))

    def event(self, offset: int, *, before: bool = True) -> EventCount:
        """Read a count, a time and, if there is one, the count before the last reset."""
        return EventCount(self.u32(offset), self.time(offset + 4), self.u32(offset + 12) if before else 0)

    def parameters(self, offset: int) -> EngineParameters:
        """Read the 567 bytes of the engine's parameters."""
        return EngineParameters(
            system_path=_text(self.content[offset : offset + 261]),
            log_path=_text(self.content[offset + 261 : offset + 522]),
            circular=bool(self.u8(offset + 522) & 1),
            sessions=self.u32(offset + 523),
            open_tables=self.u32(offset + 527),
            version_pages=self.u32(offset + 531),
            cursors=self.u32(offset + 535),
            log_buffers=self.u32(offset + 539),
            sectors_per_log=self.u32(offset + 543),
            cache_pages=self.u32(offset + 547),
        )


def _text(content: bytes) -> str:
    return bytes(content).split(b"\0", 1)[0].decode("latin-1")

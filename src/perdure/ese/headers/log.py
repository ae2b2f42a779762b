"""The header of a log file: 4096 bytes in every version of the format."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.ese.checksums import xor32
from perdure.ese.errors import EseDamaged, EseUnsupported
from perdure.ese.headers.attachments import ATTACH_LIST_SIZE, Attachment, attachments
from perdure.ese.structures import EngineParameters, Fields, LogPosition, LogTime, Signature

__all__ = ["LOG_HEADER_SIZE", "LogHeader", "read_log_header"]

LOG_HEADER_SIZE = 4096
_RESERVE_USED, _CIRCULAR, _WAS_CIRCULAR = 1, 2, 4
_ACCUMULATOR_SINCE = 13
"""The minor update of the format with which logs began to hold the checksum of the log before."""
_NEWEST_MAJOR = {7: 3704, 8: 4000}


@dataclass(frozen=True, slots=True)
class LogHeader:
    """Every field of a log header.

    Args:
        checksum: XOR32 of the header.
        generation: Number of the log in its stream.
        sector_size: Bytes in a sector: 512 in version 7, 4096 in version 8, where a sector is a segment.
        header_sectors: Sectors before the first that holds records.
        sectors: Sectors in the file.
        page_size: Page size of the stream's databases, bytes.
        created: When the log was made.
        previous_created: When the log before was made; unset in the first of a stream.
        version: Major, minor, major update, minor update.
        signature: Identity of the stream.
        parameters: How the engine was set up.
        flags: 1 the reserve was used, 2 circular logging, 4 circular logging at some time before.
        checkpoint: The checkpoint when the log was made.
        sector_size_mismatch: As stored.
        previous_segments: XOR of the checksums of all segments of the log before, where the format has it.
        engine_format: Diagnostic.
        file_type: 3; old logs hold 0.
        attached: Databases attached when the log was made.
    """

    checksum: int
    generation: int
    sector_size: int
    header_sectors: int
    sectors: int
    page_size: int
    created: LogTime
    previous_created: LogTime
    version: tuple[int, int, int, int]
    signature: Signature
    parameters: EngineParameters
    flags: int
    checkpoint: LogPosition
    sector_size_mismatch: int
    previous_segments: int
    engine_format: int
    file_type: int
    attached: tuple[Attachment, ...]

    @property
    def segmented(self) -> bool:
        """Whether records lie in checked segments (version 8) rather than in sectors between checksum records."""
        return self.version[0] >= 8

    @property
    def holds_previous_segments(self) -> bool:
        """Whether the format has :attr:`previous_segments`."""
        return self.segmented and self.version[3] >= _ACCUMULATOR_SINCE

    @property
    def circular(self) -> bool:
        """Whether old logs are or were thrown away: no log backup can be complete then."""
        return bool(self.flags & (_CIRCULAR | _WAS_CIRCULAR)) or self.parameters.circular

    @property
    def circular_now(self) -> bool:
        """Whether old logs are thrown away now."""
        return bool(self.flags & _CIRCULAR) or self.parameters.circular

    @property
    def reserve_used(self) -> bool:
        """Whether the disk was full and the log was made from the reserve."""
        return bool(self.flags & _RESERVE_USED)

    @property
    def file_size(self) -> int:
        """Bytes that the whole file should have."""
        return self.sectors * self.sector_size

    @property
    def format_text(self) -> str:
        """The version as eseutil shows it: ``8.4000.60.140``."""
        return ".".join(map(str, self.version))


def read_log_header(head: bytes, file: str) -> LogHeader:
    """Check and decode the header of a log.

    Args:
        head: The first 4096 bytes of the file or more.
        file: Its name, for messages.

    Raises:
        EseDamaged: It is cut short, its checksum does not hold, or what it says about itself cannot be.
        EseUnsupported: The format has another major version.
    """
    content = head[:LOG_HEADER_SIZE]
    at = Fields(content)
    if len(content) < LOG_HEADER_SIZE or not any(content) or at.u32(0) != xor32(content):
        what = "cut short" if len(content) < LOG_HEADER_SIZE else "damaged: its checksum does not hold"
        raise EseDamaged(
            f"{file}: the log header is {what}; no record of this log can be trusted",
            code="ese-header-damaged",
            hint="take the log from another copy; without it recovery ends at the log before",
        )
    header = LogHeader(
        checksum=at.u32(0),
        generation=at.i32(4),
        sector_size=at.u16(8),
        header_sectors=at.u16(10),
        sectors=at.u16(12),
        page_size=at.u16(14) or 4096,
        created=at.time(16),
        previous_created=at.time(24),
        version=(at.u32(32), at.u32(36), at.u32(40), at.u32(648)),
        signature=at.signature(44),
        parameters=at.parameters(72),
        flags=at.u8(639),
        checkpoint=at.position(640),
        sector_size_mismatch=at.u8(652),
        previous_segments=at.u64(653),
        engine_format=at.u32(661),
        file_type=at.u32(667),
        attached=attachments(content[671 : 671 + ATTACH_LIST_SIZE]),
    )
    if _NEWEST_MAJOR.get(header.version[0]) != header.version[1]:
        raise EseUnsupported(
            f"{file} has log format {header.format_text}; only 7.3704 and 8.4000 are known",
            code="ese-version-unsupported",
            hint="use a newer perdure",
        )
    geometry = (header.sector_size, header.header_sectors * header.sector_size)
    if geometry not in ((512, 4096), (4096, 4096)) or (header.segmented and header.sector_size != 4096):
        raise EseDamaged(
            f"{file}: the log header has a sound checksum but states {header.header_sectors} header sectors "
            f"of {header.sector_size} bytes, which cannot be",
            code="ese-header-damaged",
        )
    return header

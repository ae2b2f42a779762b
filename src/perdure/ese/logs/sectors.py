"""Version 7 logs (Exchange 2000 to 2010): ranges of sectors, each covered by a checksum record.

Not proven on real files: the format is taken from the engine's source alone. The records between the checksum records
are not decoded, because the older forms of their heads are not specified.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perdure.ese.findings import Finding
from perdure.ese.structures import Fields, LogPosition

__all__ = ["CHECKSUM_RECORD_SIZE", "CoveredRange", "SectorLog", "examine_sectors"]

CHECKSUM_RECORD = 42
CHECKSUM_RECORD_SIZE = 22
_RANGE_SEED, _SHORT_SEED, _SHADOW = 0xFEEDBEAF, 0xDEADC0DE, 0x5AD05EC7
_SHORT_ON, _SHORT_OFF = 0x9A, 0xD1


@dataclass(frozen=True, slots=True)
class CoveredRange:
    """What one checksum record covers.

    Args:
        position: Of the checksum record.
        backward: Bytes covered before it.
        forward: Bytes covered behind it.
    """

    position: LogPosition
    backward: int
    forward: int


@dataclass(frozen=True, slots=True)
class SectorLog:
    """What the checksum records of a version 7 log say.

    Args:
        ranges: Those that hold, in order.
        findings: What is wrong.
    """

    ranges: tuple[CoveredRange, ...]
    findings: tuple[Finding, ...]


def examine_sectors(content: bytes, generation: int, sector: int, start: int, file: str) -> SectorLog:
    """Follow the chain of checksum records and check every range.

    Args:
        content: The whole file.
        generation: The log's, from its header; it is part of every checksum.
        sector: Bytes in a sector.
        start: Where the records begin.
        file: Its name, for findings.
    """
    ranges: list[CoveredRange] = []
    at = start
    while True:
        position = LogPosition(generation, at // sector, at % sector)
        problem = _problem(content, at, generation, sector)
        if problem and not ranges and not any(content[at : at + sector]):
            return SectorLog((), ())  # a log in which nothing was written yet
        if problem:
            finding = Finding(
                code="ese-log-record-damaged",
                file=file,
                place=f"record {position}",
                what=f"{problem}; the records from here on are not known, and recovery ends here",
            )
            return SectorLog(tuple(ranges), (finding,))
        fields = Fields(content[at : at + CHECKSUM_RECORD_SIZE])
        ranges.append(CoveredRange(position, fields.u32(1), fields.u32(5)))
        if not fields.u32(9):
            return SectorLog(tuple(ranges), ())
        at += CHECKSUM_RECORD_SIZE + fields.u32(9)


def checksum_record(content: bytes, at: int, generation: int, sector: int, *, forward: int, next_: int) -> bytes:
    """The checksum record that belongs at a place, covering everything before it in its sector."""
    backward = at % sector
    head = bytes([CHECKSUM_RECORD]) + b"".join(n.to_bytes(4, "little") for n in (backward, forward, next_))
    blank = head + bytes(8) + bytes([_SHORT_OFF])
    whole = content[:at] + blank + content[at + CHECKSUM_RECORD_SIZE :]
    value = _range_checksum(whole, at, generation)
    return head + value.to_bytes(4, "little") + bytes(4) + bytes([_SHORT_OFF])


def _problem(content: bytes, at: int, generation: int, sector: int) -> str:
    """What is wrong with the checksum record at a place, empty if nothing is."""
    record = content[at : at + CHECKSUM_RECORD_SIZE]
    if len(record) < CHECKSUM_RECORD_SIZE or record[0] != CHECKSUM_RECORD:
        return "there is no checksum record here, and the one before leads here"
    fields = Fields(record)
    backward, forward = fields.u32(1), fields.u32(5)
    if backward > sector - CHECKSUM_RECORD_SIZE or backward > at:
        return "the checksum record covers more than its sector before it"
    if at + CHECKSUM_RECORD_SIZE + forward > len(content):
        return "the checksum record covers more than the file holds"
    if fields.u8(21) not in (_SHORT_ON, _SHORT_OFF):
        return "the checksum record is damaged"
    expected = _range_checksum(content, at, generation)
    if fields.u32(13) in (expected, expected ^ _SHADOW):
        return ""
    return "the checksum of the range does not hold"


def _range_checksum(content: bytes, at: int, generation: int) -> int:
    fields = Fields(content[at : at + CHECKSUM_RECORD_SIZE])
    backward, forward, next_ = fields.u32(1), fields.u32(5), fields.u32(9)
    end = at + CHECKSUM_RECORD_SIZE
    sums = _words(content[at - backward : at]) ^ _words(content[end : end + forward])
    return _RANGE_SEED ^ sums ^ backward ^ forward ^ next_ ^ fields.u8(21) ^ (generation & 0xFFFFFFFF)


def _words(content: bytes) -> int:
    """XOR of all 32-bit words, the last filled up with zero bytes."""
    padded = content + bytes(-len(content) % 4)
    return int(np.bitwise_xor.reduce(np.frombuffer(padded, "<u4"))) if padded else 0

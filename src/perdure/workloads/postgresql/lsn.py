"""Log sequence numbers and the names of WAL files."""

from __future__ import annotations

import re

from perdure.model.errors import BadInput

__all__ = ["format_lsn", "history_name", "parse_lsn", "segment_name", "segment_start"]

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def parse_lsn(text: str) -> int:
    """Read ``0/3000148``.

    Raises:
        BadInput: It is not a log sequence number.
    """
    match = _LSN.fullmatch(text.strip())
    if match is None:
        raise BadInput(f"{text!r} is not a log sequence number", hint="write it as PostgreSQL does, like 0/3000148")
    return (int(match[1], 16) << 32) | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """The form that PostgreSQL shows."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def segment_start(lsn: int, segment_size: int) -> int:
    """Where the WAL file begins that holds the byte at ``lsn``."""
    return lsn // segment_size * segment_size


def segment_name(timeline: int, lsn: int, segment_size: int) -> str:
    """Name of the WAL file that holds the byte at ``lsn``."""
    number = lsn // segment_size
    per_name = (1 << 32) // segment_size
    return f"{timeline:08X}{number // per_name:08X}{number % per_name:08X}"


def history_name(timeline: int) -> str:
    """Name of a timeline's history file."""
    return f"{timeline:08X}.history"

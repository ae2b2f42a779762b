"""What kind of ESE file a file is, told by its content and, where that is damaged, by its name."""

from __future__ import annotations

from enum import Enum, IntEnum
from pathlib import PurePath

from perdure.ese.checksums import xor32
from perdure.ese.structures import Fields

__all__ = ["DATABASE_MAGIC", "HEADER_PAGE_SIZES", "FileKind", "FileType", "kind_by_content", "kind_by_name"]

DATABASE_MAGIC = 0x89ABCDEF
HEADER_PAGE_SIZES = (4096, 8192, 16384, 32768, 2048)
"""Page sizes that a database can have, the likely ones first."""

_TYPE_OFFSET = 667
_HEADER = 4096


class FileType(IntEnum):
    """The file type that every header holds; old files hold 0."""

    UNKNOWN = 0
    DATABASE = 1
    STREAMING = 2
    LOG = 3
    CHECKPOINT = 4
    TEMPORARY_DATABASE = 5
    FLUSH_MAP = 7
    REVERT_SNAPSHOT = 10


class FileKind(Enum):
    """What a file is to a reader."""

    DATABASE = "database"
    LOG = "log"
    CHECKPOINT = "checkpoint"
    FLUSH_MAP = "flush map"
    REVERT_SNAPSHOT = "revert snapshot"
    STREAMING = "streaming file"
    RESERVE_LOG = "reserve log"
    UNFINISHED_LOG = "log being made"


_BY_TYPE = {
    FileType.DATABASE: FileKind.DATABASE,
    FileType.TEMPORARY_DATABASE: FileKind.DATABASE,
    FileType.STREAMING: FileKind.STREAMING,
    FileType.LOG: FileKind.LOG,
    FileType.CHECKPOINT: FileKind.CHECKPOINT,
    FileType.FLUSH_MAP: FileKind.FLUSH_MAP,
    FileType.REVERT_SNAPSHOT: FileKind.REVERT_SNAPSHOT,
}
_BY_SUFFIX = {
    ".edb": FileKind.DATABASE,
    ".stm": FileKind.STREAMING,
    ".log": FileKind.LOG,
    ".jtx": FileKind.LOG,
    ".chk": FileKind.CHECKPOINT,
    ".jcp": FileKind.CHECKPOINT,
    ".jfm": FileKind.FLUSH_MAP,
    ".jrs": FileKind.RESERVE_LOG,
    ".rbs": FileKind.REVERT_SNAPSHOT,
}
_LOG_VERSIONS = {7: 3704, 8: 4000}


def kind_by_content(head: bytes) -> FileKind | None:
    """Tell a file by its first bytes.

    Args:
        head: The first 64 KiB and a little more, or all of a smaller file.

    Returns:
        Its kind, or ``None`` if the content does not show one. One flipped bit does not hide a database, whose
        header is stored twice, nor a log or checkpoint of which either the type or the checksum is sound.
    """
    if len(head) < _TYPE_OFFSET + 4:
        return None
    fields = Fields(head)
    copies = (0, *HEADER_PAGE_SIZES)
    if any(len(head) >= at + 8 and fields.u32(at + 4) == DATABASE_MAGIC for at in copies):
        streaming = fields.u32(_TYPE_OFFSET) == FileType.STREAMING
        return FileKind.STREAMING if streaming else FileKind.DATABASE
    whole = len(head) >= _HEADER and any(head[:_HEADER]) and fields.u32(0) == xor32(head[:_HEADER])
    versioned = _LOG_VERSIONS.get(fields.u32(32)) == fields.u32(36)
    sectors = (fields.u16(8), fields.u16(10)) in ((512, 8), (4096, 1))
    try:
        kind = _BY_TYPE.get(FileType(fields.u32(_TYPE_OFFSET)))
    except ValueError:
        kind = None
    if kind is not None and whole:
        return kind
    if (versioned, sectors, kind is FileKind.LOG).count(True) >= 2:
        return FileKind.LOG
    if len(head) >= 2 * _HEADER and fields.u32(_HEADER + _TYPE_OFFSET) == FileType.CHECKPOINT:
        second = head[_HEADER : 2 * _HEADER]
        return FileKind.CHECKPOINT if whole or Fields(second).u32(0) == xor32(second) else None
    if whole and fields.u32(_TYPE_OFFSET) == FileType.UNKNOWN and len(head) == 2 * _HEADER:
        return FileKind.CHECKPOINT
    return None


def kind_by_name(name: str) -> FileKind | None:
    """Tell a file by its name: its suffix, and the words that mark logs that are in reserve or not finished."""
    path = PurePath(name.lower())
    kind = _BY_SUFFIX.get(path.suffix)
    if kind is not FileKind.LOG:
        return kind
    rest = path.stem[3:]
    if rest.startswith("tmp") or path.stem == "tmp":
        return FileKind.UNFINISHED_LOG
    if rest.startswith("res") or path.stem in ("res1", "res2"):
        return FileKind.RESERVE_LOG
    return FileKind.LOG

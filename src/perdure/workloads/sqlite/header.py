"""What the first 100 bytes of a SQLite database say (``fileformat2.html`` §1.3)."""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from perdure.model.errors import SourceUnusable
from perdure.workloads.sqlite.files import read_head, source_missing

__all__ = ["HEADER_SIZE", "DatabaseHeader", "parse_database_header", "read_database_header"]

HEADER_SIZE = 100
_MAGIC = b"SQLite format 3\x00"
_WAL = 2


@dataclass(frozen=True, slots=True)
class DatabaseHeader:
    """The header of a database file.

    Args:
        page_size: Bytes per page.
        wal: Whether the database is in WAL mode.
        pages: Size in pages that the header states.
        writer: Number of the SQLite version that wrote last, for example 3040001.
    """

    page_size: int
    wal: bool
    pages: int
    writer: int


def parse_database_header(data: bytes) -> DatabaseHeader | None:
    """Read a header; ``None`` if this is no SQLite database."""
    if len(data) < HEADER_SIZE or data[:16] != _MAGIC:
        return None
    (size,) = struct.unpack_from(">H", data, 16)
    (pages,) = struct.unpack_from(">I", data, 28)
    (writer,) = struct.unpack_from(">I", data, 96)
    page_size = 65536 if size == 1 else size
    if page_size < 512 or page_size & (page_size - 1):
        return None
    return DatabaseHeader(page_size, data[18] == _WAL and data[19] == _WAL, pages, writer)


def read_database_header(path: Path, *, wal_required: bool = True) -> DatabaseHeader:
    """Read a database's header from its file and say in plain words what is wrong with it.

    Raises:
        SourceUnusable: Missing, not a file, unreadable, empty, not a database, or (``wal_required``) not in WAL mode.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise SourceUnusable(
                f"{path} is {what}, not a SQLite database",
                code="not-a-file",
                hint="name the database file; a folder is protected as files:PATH",
            )
        data = read_head(path, HEADER_SIZE)
    except FileNotFoundError:
        raise source_missing(path) from None
    except OSError as error:
        raise SourceUnusable(
            f"{path} cannot be read: {error.strerror}",
            code="no-permission",
            hint="run perdure as a user who may read and write the database",
        ) from error
    if not data:
        raise SourceUnusable(
            f"{path} is empty: no table was ever created in it",
            code="empty-file",
            hint="protect it once the application has created its tables",
        )
    header = parse_database_header(data)
    if header is None:
        raise SourceUnusable(
            f"{path} is not a SQLite database: it does not begin like one (another file, damaged, encrypted)",
            code="not-a-database",
            hint="check the path; an encrypted database at rest can be protected with files:PATH",
        )
    if wal_required and not header.wal:
        raise SourceUnusable(
            f"{path} is not in WAL mode, so it has no log to ship",
            code="not-wal",
            hint=f"`perdure protect sqlite:{path} --prepare` switches it to WAL mode; the setting stays in the file",
        )
    return header

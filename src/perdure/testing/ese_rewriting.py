"""Logs written anew from other records, and databases compared page by page: for tests of what a replay notices."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from perdure.ese.checksums import xor32
from perdure.ese.database import HEADER_PAGES
from perdure.ese.editing import EditablePage
from perdure.ese.headers.log import LOG_HEADER_SIZE
from perdure.ese.logs.files import log_name, read_logs
from perdure.ese.pages import PageFlag
from perdure.testing.ese_logs import LogMaker

__all__ = ["PageContent", "RewrittenLogs", "pages_of"]

PageContent: TypeAlias = tuple[int, int, int, int, int, bytes, tuple[tuple[bytes, bytes, int], ...]]
"""dbtime, flags, siblings, owner, external header and nodes of a page: all but what differs with every write."""

_PAGE_SIZE_AT = 14
_PER_WRITE = int(PageFlag.FLUSH_TYPE_LOW | PageFlag.FLUSH_TYPE_HIGH | PageFlag.PREINITIALISED)
_SEGMENTS = 2048


class RewrittenLogs:
    """The records of a stream, to be written again after they were tampered with, with checksums that hold.

    Args:
        folder: Where the logs lie.
        page_size: Of the databases, bytes.

    Attributes:
        generations: The records of every log.
    """

    def __init__(self, folder: Path, page_size: int) -> None:
        logs = list(read_logs(_in_order(folder)))
        headers = [log.header for log in logs if log.header is not None]
        self._signature = headers[0].signature.raw
        self._created = [header.created.raw for header in headers]
        self._first = headers[0].generation
        self._page_size = page_size
        self.generations = [
            [log.records.record(index).content for index in range(len(log.records))]
            for log in logs
            if log.records is not None
        ]

    def places(self) -> list[tuple[int, int]]:
        """Log and index of every record."""
        return [(log, index) for log, records in enumerate(self.generations) for index in range(len(records))]

    def copies(self) -> list[list[bytes]]:
        """The records of every log, to be changed."""
        return [list(records) for records in self.generations]

    def write(self, folder: Path, generations: Sequence[Sequence[bytes]]) -> None:
        """Write logs that hold these records into an empty folder."""
        maker = LogMaker(self._signature, sectors=_SEGMENTS)
        for index, log in enumerate(maker.chain(generations, self._first, self._created)):
            content = bytearray(log)
            struct.pack_into("<H", content, _PAGE_SIZE_AT, self._page_size)
            content[:4] = xor32(bytes(content[:LOG_HEADER_SIZE])).to_bytes(4, "little")
            (folder / f"E00{self._first + index:08X}.log").write_bytes(content)


def pages_of(database: Path, page_size: int) -> dict[int, PageContent]:
    """Every page of a database that was ever written and has not been given up since: nobody reads those."""
    content = database.read_bytes()
    found: dict[int, PageContent] = {}
    for number in range(1, len(content) // page_size - HEADER_PAGES + 1):
        start = (number + HEADER_PAGES - 1) * page_size
        raw = content[start : start + page_size]
        if any(raw):
            page = EditablePage.parse(raw, number, database.name)
            if page.flags & PageFlag.EMPTY:
                continue
            nodes = tuple((node.key, node.data, node.flags) for node in page.nodes)
            links = (page.previous, page.next, page.object_id)
            found[number] = (page.dbtime, page.flags & ~_PER_WRITE, *links, page.external_header, nodes)
    return found


def _in_order(folder: Path) -> list[Path]:
    """The logs of a folder, the one that is being written last."""
    logs = [path for path in folder.iterdir() if path.suffix == ".log" and log_name(path.name).base]
    return sorted(logs, key=lambda path: (log_name(path.name).current, path.name))

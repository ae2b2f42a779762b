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
from perdure.testing.ese_logs import LogMaker, segment_checksums

__all__ = ["PageContent", "RewrittenLogs", "pages_of"]

PageContent: TypeAlias = tuple[int, int, int, int, int, bytes, tuple[tuple[bytes, bytes, int], ...]]
"""dbtime, flags, siblings, owner, external header and nodes of a page: all but what differs with every write."""

_SECTORS_AT, _PREVIOUS_SEGMENTS_AT = 12, 653
_MORE_SEGMENTS = 4
"""Room for a record that is there twice."""
_PER_WRITE = int(PageFlag.FLUSH_TYPE_LOW | PageFlag.FLUSH_TYPE_HIGH | PageFlag.PREINITIALISED)


class RewrittenLogs:
    """The records of a stream, to be written again after they were tampered with, with checksums that hold.

    Args:
        folder: Where the logs lie.

    Attributes:
        generations: The records of every log.
        first: Generation of the first log.
    """

    def __init__(self, folder: Path) -> None:
        logs = [log for log in read_logs(_in_order(folder)) if log.header is not None and log.records is not None]
        self.generations: list[list[bytes]] = []
        self._logs: list[tuple[str, bytes]] = []
        self._created: list[bytes] = []
        for log in logs:
            assert log.header is not None
            assert log.records is not None
            self._logs.append((log.file, log.path.read_bytes()[:LOG_HEADER_SIZE]))
            self._created.append(log.header.created.raw)
            self.generations.append([log.records.record(index).content for index in range(len(log.records))])
        assert logs[0].header is not None
        self.first = logs[0].header.generation
        self._signature = logs[0].header.signature.raw

    def places(self) -> list[tuple[int, int]]:
        """Log and index of every record."""
        return [(log, index) for log, records in enumerate(self.generations) for index in range(len(records))]

    def copies(self) -> list[list[bytes]]:
        """The records of every log, to be changed."""
        return [list(records) for records in self.generations]

    def write(self, folder: Path, generations: Sequence[Sequence[bytes]]) -> None:
        """Write logs that hold these records into an empty folder; their headers say what they said before."""
        before = b""
        for index, ((name, old), records) in enumerate(zip(self._logs, generations, strict=True)):
            sectors = int.from_bytes(old[_SECTORS_AT : _SECTORS_AT + 2], "little") + _MORE_SEGMENTS
            maker = LogMaker(self._signature, sectors=sectors)
            body = maker.log(records, self.first + index, self._created[index])[LOG_HEADER_SIZE:]
            header = bytearray(old)
            struct.pack_into("<H", header, _SECTORS_AT, sectors)
            struct.pack_into("<Q", header, _PREVIOUS_SEGMENTS_AT, segment_checksums(before) if before else 0)
            header[:4] = xor32(bytes(header)).to_bytes(4, "little")
            before = bytes(header) + body
            (folder / name).write_bytes(before)


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

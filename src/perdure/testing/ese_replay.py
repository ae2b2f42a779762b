"""Single log records and the pages that they change: for tests of what each type of record does."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from perdure.ese.database import HEADER_PAGES
from perdure.ese.editing import EditablePage, PageNode
from perdure.ese.pages import PageFlag
from perdure.ese.replay.interpreter import Interpreter
from perdure.ese.replay.page_cache import PageCache
from perdure.ese.replay.sizes import SizeRecords
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.replay.transactions import Sessions
from perdure.ese.structures import LogPosition

__all__ = [
    "BRANCH",
    "LEAF",
    "NEW",
    "ReplayScene",
    "begin",
    "commit",
    "macro",
    "node_record",
    "page_record",
    "roll_back",
]

LEAF = int(PageFlag.LEAF | PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM)
BRANCH = int(PageFlag.PARENT_OF_LEAF | PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM)
NEW = 0xFFFFFFFFFFFFFFFF

_UNIQUE, _VERSIONED = 4, 1
_PAGE = struct.Struct("<BHBIQQIBHB")
_NODE = struct.Struct("<III")


def page_record(
    kind: int,
    page: int,
    times: tuple[int, int],
    body: bytes = b"",
    *,
    line: int = 0,
    process: int = 1,
    level: int = 1,
    flags: int = _UNIQUE,
    dbid: int = 1,
) -> bytes:
    """A record about a page; ``times`` are its dbtime before and after."""
    before, after = times
    return _PAGE.pack(kind, process, dbid, page, after, before, 4, level, line, flags) + body


def node_record(
    kind: int,
    page: int,
    times: tuple[int, int],
    body: bytes = b"",
    *,
    line: int = 0,
    version: int = 0,
    root: int = 4,
    process: int = 1,
    level: int = 1,
    unique: bool = True,
    dbid: int = 1,
) -> bytes:
    """A record about a node; with a ``version`` it can be taken back."""
    flags = (_UNIQUE if unique else 0) | (_VERSIONED if version else 0)
    head = page_record(kind, page, times, line=line, process=process, level=level, flags=flags, dbid=dbid)
    return head + _NODE.pack(version, root, 9) + body


def begin(process: int = 1) -> bytes:
    """A transaction begins."""
    return struct.pack("<BHBI", 8, process, 0x10, 4)


def commit(process: int = 1) -> bytes:
    """A transaction ends well."""
    return struct.pack("<BHBI", 9, process, 0, 8)


def roll_back(process: int = 1) -> bytes:
    """A transaction was taken back."""
    return struct.pack("<BHB", 7, process, 1)


def macro(dbtime: int, *records: bytes, process: int = 1) -> list[bytes]:
    """Records that take effect together."""
    return [struct.pack("<BHQ", 11, process, dbtime), *records, struct.pack("<BHQ", 12, process, dbtime)]


@dataclass
class ReplayScene:
    """A database file without a header, and what records do to it.

    Args:
        folder: Where the file lies.
        page_size: In bytes.
        pages: Pages of the file.
    """

    folder: Path
    page_size: int = 4096
    pages: int = 64
    may_be_newer: bool = True
    dbtime: int = 0
    interpreter: Interpreter = field(init=False)

    def __post_init__(self) -> None:
        path = self.folder / "scene.edb"
        path.write_bytes(bytes((self.pages + HEADER_PAGES) * self.page_size))
        self._descriptor = os.open(path, os.O_RDWR)
        target = ReplayTarget(
            PageCache(self._descriptor, self.page_size, "scene.edb", 1),
            may_be_newer=self.may_be_newer,
            dbtime=self.dbtime,
            last_objid=0,
            where=lambda: "a record",
        )
        nowhere = LogPosition(0, 0, 0)
        self.interpreter = Interpreter(
            target,
            Sessions(may_begin_before=False),
            SizeRecords(target, lambda: LogPosition(1, 1, 0), nowhere),
            lambda: LogPosition(1, 1, 0),
            dbid=1,
        )

    @property
    def target(self) -> ReplayTarget:
        return self.interpreter.target

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def put(
        self,
        number: int,
        nodes: list[tuple[bytes, bytes]] | list[tuple[bytes, bytes, int]],
        *,
        dbtime: int = 10,
        flags: int = LEAF,
        external: bytes = b"",
        links: tuple[int, int] = (0, 0),
    ) -> EditablePage:
        """Write a page."""
        page = EditablePage(self.page_size, number, 9, flags, "scene.edb")
        page.dbtime, (page.previous, page.next) = dbtime, links
        page.external_header = external
        page.set_nodes(PageNode(*node) for node in nodes)
        os.pwrite(self._descriptor, page.encode(), (number + HEADER_PAGES - 1) * self.page_size)
        return page

    def redo(self, *records: bytes) -> None:
        """Apply records one after the other."""
        for record in records:
            self.interpreter.handlers[record[0]](record, 0, len(record))

    def page(self, number: int) -> EditablePage:
        """A page as it is in the file, after all changes were written."""
        self.target.cache.write()
        content = os.pread(self._descriptor, self.page_size, (number + HEADER_PAGES - 1) * self.page_size)
        return EditablePage.parse(content, number, "scene.edb")

    def rows(self, number: int) -> list[tuple[bytes, bytes, int]]:
        """Key, data and flags of every node of a page in the file."""
        return [(node.key, node.data, node.flags) for node in self.page(number).nodes]

"""Pages of a database: header, tags and the nodes that they point to, in the small (up to 8 KiB) and large formats."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntFlag

from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.errors import EseDamaged

__all__ = ["Node", "NodeFlag", "Page", "PageFlag", "PageHeader"]

_HEADER = struct.Struct("<QQIIIHHHHI")
_SMALL_HEADER, _LARGE_HEADER = 40, 80


class PageFlag(IntFlag):
    """What a page is for (offset 36 of its header)."""

    ROOT = 1
    LEAF = 2
    PARENT_OF_LEAF = 4
    EMPTY = 8
    REPAIRED = 0x10
    SPACE_TREE = 0x20
    INDEX = 0x40
    LONG_VALUE = 0x80
    NON_UNIQUE_KEYS = 0x400
    NEW_RECORD_FORMAT = 0x800
    ECC_CHECKSUM = 0x2000
    SCRUBBED = 0x4000
    FLUSH_TYPE_LOW = 0x8000
    FLUSH_TYPE_HIGH = 0x10000
    PREINITIALISED = 0x20000
    ROOT_DELETED = 0x40000


class NodeFlag(IntFlag):
    """What a node is."""

    VERSIONED = 1
    DELETED = 2
    COMPRESSED = 4


# Plain numbers: these are asked for every node, and an enumeration's operators are slow.
_DELETED, _COMPRESSED = int(NodeFlag.DELETED), int(NodeFlag.COMPRESSED)


@dataclass(frozen=True, slots=True)
class PageHeader:
    """The header of a page.

    Args:
        checksum: As stored.
        dbtime: The database's modification counter at the page's last change.
        previous: Page number of the left sibling, 0 for none.
        next: Page number of the right sibling, 0 for none.
        objid: Object number of the tree that owns the page.
        free: Unused bytes.
        uncommitted_free: Bytes that become free when open transactions commit.
        first_free: Where the contiguous free space begins, from the start of the data.
        tags: Number of tags, the reserved ones included.
        reserved_tags: Tags before the first node's.
        flags: What the page is for.
    """

    checksum: int
    dbtime: int
    previous: int
    next: int
    objid: int
    free: int
    uncommitted_free: int
    first_free: int
    tags: int
    reserved_tags: int
    flags: int


@dataclass(frozen=True, slots=True)
class Node:
    """A key and its data on a page.

    Args:
        key: The whole key, with the prefix that it shares with the page.
        data: A record, a child page number, a space extent, a part of a long value.
        flags: See :class:`NodeFlag`.
    """

    key: bytes
    data: bytes
    flags: int

    @property
    def deleted(self) -> bool:
        """Whether it is only waiting to be cleaned up."""
        return bool(self.flags & _DELETED)

    @property
    def child(self) -> int:
        """The page number that a branch node points to."""
        return int.from_bytes(self.data[:4], "little")


class Page:
    """One page, decoded on demand.

    Args:
        content: The page.
        number: Its number in the database.
        file: The database's name, for messages.
    """

    __slots__ = ("_data", "_large", "content", "file", "header", "number")

    def __init__(self, content: bytes, number: int, file: str) -> None:
        self.content = content
        self.number = number
        self.file = file
        self._large = len(content) > LARGE_PAGE
        self._data = _LARGE_HEADER if self._large else _SMALL_HEADER
        (checksum, dbtime, previous, next_, objid, free, uncommitted, first_free, tags, flags) = _HEADER.unpack_from(
            content
        )
        reserved = max(1, tags >> 12 & 7)
        self.header = PageHeader(
            checksum, dbtime, previous, next_, objid, free, uncommitted, first_free, tags & 0xFFF, reserved, flags
        )

    @property
    def leaf(self) -> bool:
        return bool(self.header.flags & PageFlag.LEAF)

    @property
    def root(self) -> bool:
        return bool(self.header.flags & PageFlag.ROOT)

    @property
    def written(self) -> bool:
        """Whether it was ever written: pages that were not are all zero."""
        return bool(self.header.tags)

    @property
    def external_header(self) -> bytes:
        """What tag 0 points to: the space header on a root, the prefix of the keys elsewhere."""
        if not self.header.tags:
            return b""
        return self._tagged(0)[0]

    @property
    def node_count(self) -> int:
        return max(0, self.header.tags - self.header.reserved_tags)

    def nodes(self) -> Iterator[Node]:
        """Every node in key order, the deleted ones too.

        Raises:
            EseDamaged: A tag or a node reaches beyond its bounds.
        """
        prefix = b"" if self.root else self.external_header
        for line in range(self.node_count):
            yield self._node(line, prefix)

    def first_damage(self) -> str:
        """What is wrong with the page's structure, empty if nothing is: its bounds, its nodes and its free space."""
        header = self.header
        try:
            used = sum(len(self._tagged(tag)[0]) for tag in range(header.tags))
            for _node in self.nodes():
                pass
        except EseDamaged as error:
            return error.message
        free = len(self.content) - self._data - used - 4 * header.tags
        if header.tags and free != header.free:
            return f"its header counts {header.free} free bytes, and its tags leave {free}"
        return ""

    def _node(self, line: int, prefix: bytes) -> Node:
        raw, flags = self._tagged(line + self.header.reserved_tags)
        at, shared = 0, 0
        if flags & _COMPRESSED:
            shared, at = int.from_bytes(raw[:2], "little"), 2
            if self._large:
                shared &= 0x1FFF
        size = int.from_bytes(raw[at : at + 2], "little")
        if self._large and at == 0:
            size &= 0x1FFF  # the top bits of a large page's first word are the node's flags
        key_end = at + 2 + size
        if key_end > len(raw) or shared > len(prefix):
            raise self.damaged(f"node {line} has a key that is longer than the node or its prefix")
        return Node(prefix[:shared] + raw[at + 2 : key_end], raw[key_end:], flags)

    def _tagged(self, tag: int) -> tuple[bytes, int]:
        """The bytes that a tag points to, and the node flags."""
        end = len(self.content) - 4 * tag
        if end - 4 < self._data or tag >= self.header.tags:
            raise self.damaged(f"tag {tag} lies outside of the page")
        size, offset = struct.unpack_from("<HH", self.content, end - 4)
        mask = 0x7FFF if self._large else 0x1FFF
        start = self._data + (offset & mask)
        stop = start + (size & mask)
        if stop > len(self.content) - 4 * self.header.tags:
            raise self.damaged(f"tag {tag} points beyond the page's data")
        raw = self.content[start:stop]
        if not self._large:
            return raw, offset >> 13
        return raw, raw[1] >> 5 if tag and len(raw) > 1 else 0

    def damaged(self, what: str) -> EseDamaged:
        """The error that says what is wrong with this page."""
        return EseDamaged(
            f"{self.file}: page {self.number}: {what}",
            code="ese-page-damaged",
            hint="recover the database from a recovery point; perdure ese verify shows all damaged pages",
        )

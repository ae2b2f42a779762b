"""Pages of trees in memory: nodes with whole keys, and the exact space that they will take when they are written."""

from __future__ import annotations

import struct
from operator import itemgetter
from typing import TypeAlias

import numpy as np

from perdure.ese.checksums import LARGE_PAGE, block_checksums
from perdure.ese.pages import NodeFlag, Page, PageFlag

__all__ = [
    "BY_BOOKMARK",
    "BY_KEY",
    "DELETED",
    "EMPTY",
    "LEAF",
    "PARENT_OF_LEAF",
    "ROOT",
    "SPACE",
    "STORED_FLAGS",
    "TreeNode",
    "TreePage",
    "child_of",
    "common_length",
    "read_tree_page",
    "sealed_pages",
    "shared_length",
]

TreeNode: TypeAlias = tuple[bytes, bytes, int]
"""Whole key, data and flags of a node."""

BY_KEY = itemgetter(0)
"""What orders the nodes of a unique tree."""

ROOT, LEAF, PARENT_OF_LEAF = int(PageFlag.ROOT), int(PageFlag.LEAF), int(PageFlag.PARENT_OF_LEAF)
EMPTY, SPACE = int(PageFlag.EMPTY), int(PageFlag.SPACE_TREE)
DELETED = int(NodeFlag.DELETED)
STORED_FLAGS = int(PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM)
"""Flags of every page that is written."""

_COMPRESSED = int(NodeFlag.COMPRESSED)
_FLUSH_STEP = int(PageFlag.FLUSH_TYPE_LOW)
_FLUSH_MASK = int(PageFlag.FLUSH_TYPE_LOW | PageFlag.FLUSH_TYPE_HIGH)
_SHORTEST_PREFIX = 3
_TAG = 4
_HEADER = struct.Struct("<QQIIIHHHHI")
_ONE_LENGTH, _TWO_LENGTHS = struct.Struct("<H"), struct.Struct("<HH")


def BY_BOOKMARK(node: TreeNode) -> bytes:  # noqa: N802 - a key function beside BY_KEY
    """What orders the nodes of a tree whose keys are not unique."""
    return node[0] + node[1]


def shared_length(key: bytes, prefix: bytes) -> int:
    """How many bytes of a key are not stored because the page's prefix has them: 0 if that saves nothing."""
    if key[:_SHORTEST_PREFIX] != prefix[:_SHORTEST_PREFIX]:
        return 0
    length = len(prefix) if key.startswith(prefix) else common_length(key, prefix)
    return length if length >= _SHORTEST_PREFIX else 0


def common_length(one: bytes, other: bytes) -> int:
    """How many bytes two byte strings begin with in common."""
    most = min(len(one), len(other))
    differing = int.from_bytes(one[:most], "big") ^ int.from_bytes(other[:most], "big")
    return most - (differing.bit_length() + 7) // 8


def child_of(node: TreeNode) -> int:
    """The page that a branch node points to."""
    return int.from_bytes(node[1], "little")


class TreePage:
    """One page.

    Args:
        number: Its number.
        size: Bytes of a page.
        objid: Of the tree that it belongs to.
        flags: What it is for, without flush bits.
        dbtime: When it changed last.
        external: Space header of a root, prefix of the keys of others.
        nodes: In order.
    """

    __slots__ = (
        "_external",
        "dbtime",
        "dirty_since",
        "flags",
        "flush",
        "last_place",
        "next",
        "nodes",
        "number",
        "objid",
        "previous",
        "size",
        "used",
    )

    def __init__(
        self,
        number: int,
        size: int,
        objid: int,
        *,
        flags: int,
        dbtime: int = 0,
        external: bytes = b"",
        nodes: list[TreeNode] | None = None,
    ) -> None:
        self.number = number
        self.size = size
        self.objid = objid
        self.flags = flags
        self.dbtime = dbtime
        self.previous = 0
        self.next = 0
        self.flush = 0
        self.nodes: list[TreeNode] = nodes if nodes is not None else []
        self.last_place = 0
        self.dirty_since = 0
        self._external = external
        self.used = self._used()

    @property
    def external(self) -> bytes:
        """Space header of a root, prefix of the keys of others."""
        return self._external

    @external.setter
    def external(self, content: bytes) -> None:
        self._external = content
        self.used = self._used()

    @property
    def leaf(self) -> bool:
        return bool(self.flags & LEAF)

    @property
    def root(self) -> bool:
        return bool(self.flags & ROOT)

    @property
    def prefix(self) -> bytes:
        """What keys are compressed against."""
        return b"" if self.flags & ROOT else self._external

    @property
    def free(self) -> int:
        """Bytes that are not used."""
        return self.size - (80 if self.size > LARGE_PAGE else 40) - self.used

    def cost(self, key: bytes, data: bytes) -> int:
        """Bytes that a node takes on this page, its tag included."""
        shared = shared_length(key, self._external) if self._external and not self.flags & ROOT else 0
        return _TAG + len(data) + (4 + len(key) - shared if shared else 2 + len(key))

    def insert(self, line: int, node: TreeNode) -> None:
        """Put a node before the one at a line."""
        self.nodes.insert(line, node)
        self.used += self.cost(node[0], node[1])

    def replace(self, line: int, node: TreeNode) -> None:
        """Put a node in the place of another."""
        old = self.nodes[line]
        if node[0] == old[0]:
            self.used += len(node[1]) - len(old[1])
        else:
            self.used += self.cost(node[0], node[1]) - self.cost(old[0], old[1])
        self.nodes[line] = node

    def flag(self, line: int, flags: int) -> None:
        """Give a node other flags."""
        key, data, _ = self.nodes[line]
        self.nodes[line] = (key, data, flags)

    def delete(self, line: int) -> None:
        """Remove a node."""
        key, data, _ = self.nodes.pop(line)
        self.used -= self.cost(key, data)

    def refill(self, nodes: list[TreeNode]) -> None:
        """Put other nodes in the place of all."""
        self.nodes = nodes
        self.used = self._used()

    def _used(self) -> int:
        return _TAG + len(self._external) + sum(self.cost(key, data) for key, data, _ in self.nodes)

    def content(self, *, reserved: int = 0, compact: bool = False) -> bytes:
        """Its bytes, without a checksum.

        Args:
            reserved: Bytes that a rollback may need.
            compact: Leave out the free space between the nodes and the tags, as a before-image in the log does.
        """
        large = self.size > LARGE_PAGE
        prefix = self.prefix
        body, tags = bytearray(self._external), [_TWO_LENGTHS.pack(len(self._external), 0)]
        for key, data, own_flags in self.nodes:
            shared = shared_length(key, prefix) if prefix else 0
            node_flags = own_flags | _COMPRESSED if shared else own_flags
            if shared:
                part = _TWO_LENGTHS.pack(shared, len(key) - shared) + key[shared:] + data
            else:
                part = _ONE_LENGTH.pack(len(key)) + key + data
            at = len(body)
            body += part
            if large:
                body[at + 1] |= node_flags << 5
                tags.append(_TWO_LENGTHS.pack(len(part), at))
            else:
                tags.append(_TWO_LENGTHS.pack(len(part), at | node_flags << 13))
        tags.reverse()
        data_start = 80 if large else 40
        # A compact image still ends on an even byte, because its tags are words.
        free = (len(body) + data_start) & 1 if compact else self.free
        assert free >= 0, f"page {self.number} is too full by {-free} bytes"
        head = _HEADER.pack(
            0,
            self.dbtime,
            self.previous,
            self.next,
            self.objid,
            free,
            min(reserved, free),
            len(body),
            len(tags),
            self.flags | self.flush,
        )
        head = head.ljust(64, b"\0") + struct.pack("<I", self.number) + bytes(12) if large else head
        return head + bytes(body) + bytes(free) + b"".join(tags)

    def written(self) -> None:
        """It was written once more: the bits that tell writes apart go on."""
        self.flush = (self.flush + _FLUSH_STEP) & _FLUSH_MASK or _FLUSH_STEP


def read_tree_page(content: bytes, number: int, file: str) -> TreePage:
    """A page from its bytes."""
    page = Page(content, number, file)
    header = page.header
    nodes = [(node.key, node.data, node.flags & DELETED) for node in page.nodes()]
    flags = header.flags & ~_FLUSH_MASK
    read = TreePage(
        number,
        len(content),
        header.objid,
        flags=flags,
        dbtime=header.dbtime,
        external=page.external_header,
        nodes=nodes,
    )
    read.previous, read.next, read.flush = header.previous, header.next, header.flags & _FLUSH_MASK
    return read


def sealed_pages(contents: list[bytes], numbers: list[int]) -> list[bytes]:
    """Pages with their checksums."""
    size = len(contents[0])
    pages = np.frombuffer(bytearray().join(contents), np.uint8).reshape(len(contents), size)
    which = np.array(numbers, np.uint32)
    if size > LARGE_PAGE:
        # The first block covers the checksums of the others, so it comes last.
        others = block_checksums(pages, which)[:, 1:].astype("<u8")
        pages[:, 40 : 40 + 8 * others.shape[1]] = np.ascontiguousarray(others).view(np.uint8)
    first = block_checksums(pages, which)[:, :1].astype("<u8")
    pages[:, :8] = np.ascontiguousarray(first).view(np.uint8)
    return [page.tobytes() for page in pages]

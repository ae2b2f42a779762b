"""Pages that can be changed: parsed from their bytes, edited line by line, and encoded with a checksum again.

A page is decoded only when its nodes are asked for, so that a change of its head alone (a sibling, its dbtime) costs
next to nothing, and an edit touches one line: bytes are made once, when the page is written.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from typing import Self

from perdure.ese.checksums import ECC_FLAG, LARGE_PAGE
from perdure.ese.errors import EseDamaged
from perdure.ese.page_layout import (
    SHORTEST_PREFIX,
    TAG,
    LayoutDamaged,
    PageNode,
    data_start,
    lay_out,
    read_layout,
    shared_prefix,
    space_of,
)
from perdure.ese.pages import PageFlag
from perdure.ese.repair import sealed_page

__all__ = ["EditablePage", "PageNode"]

_HEADER = struct.Struct("<QQIIIHHHHI")
_NUMBER_AT = 64
"""Where a large page states its own number."""

_FLAGS_AT = 36

_ROOT, _LEAF = int(PageFlag.ROOT), int(PageFlag.LEAF)


class EditablePage:
    """One page of a database that can be changed.

    Lines count nodes from 0, as log records do. A node that is inserted stores as much of its key as possible in the
    external header, unless the page is a root, whose external header describes its space.

    Args:
        size: Bytes of the page.
        number: Its number in the database.
        object_id: The tree that owns it.
        flags: What it is for, see :class:`perdure.ese.pages.PageFlag`.
        file: The database's name, for messages.

    Attributes:
        dbtime: The database's modification counter at the page's last change.
        previous: Page number of the left sibling, 0 for none.
        next: Page number of the right sibling, 0 for none.
        uncommitted_free: Bytes of :attr:`free` that open transactions may still claim back.
    """

    __slots__ = (
        "_capacity",
        "_external",
        "_nodes",
        "_raw",
        "_reserved",
        "_used",
        "dbtime",
        "file",
        "flags",
        "next",
        "number",
        "object_id",
        "previous",
        "size",
        "uncommitted_free",
    )

    def __init__(self, size: int, number: int, object_id: int = 0, flags: int = 0, file: str = "database") -> None:
        self.size, self.number, self.object_id, self.flags, self.file = size, number, object_id, flags, file
        self._capacity = size - data_start(size)
        self.dbtime = self.previous = self.next = self.uncommitted_free = 0
        self._raw: bytes | None = None
        self._external = b""
        self._reserved: tuple[bytes, ...] = ()
        self._nodes: list[PageNode] = []
        self._used = TAG

    @classmethod
    def parse(cls, content: bytes, number: int, file: str = "database") -> Self:
        """The page whose bytes these are; its checksum is not checked.

        Raises:
            EseDamaged: Its header contradicts itself. A damaged node is found when nodes are first asked for.
        """
        (_checksum, dbtime, previous, next_, objid, free, uncommitted, _first_free, tags, flags) = _HEADER.unpack_from(
            content
        )
        page = cls(len(content), number, objid, flags, file)
        page.dbtime, page.previous, page.next, page.uncommitted_free = dbtime, previous, next_, uncommitted
        if tags & 0xFFF or content != bytes(len(content)):
            page._raw = content
            page._used = page._capacity - free
            if page._used < TAG * (tags & 0xFFF):
                raise page.damaged(f"its header counts {free} free bytes, more than there can be")
        return page

    # ---- its head

    @property
    def written(self) -> bool:
        """Whether the page was ever made: one that was not is all zero."""
        return self._raw is not None or bool(self.dbtime or self.flags or self.object_id)

    @property
    def leaf(self) -> bool:
        return bool(self.flags & _LEAF)

    @property
    def root(self) -> bool:
        return bool(self.flags & _ROOT)

    @property
    def free(self) -> int:
        """Bytes not used by anything, exact as they would be encoded; negative if the page holds too much."""
        return self._capacity - self._used

    @property
    def external_header(self) -> bytes:
        """What tag 0 points to: the space header of a root, elsewhere the prefix that keys may share."""
        self._decoded()
        return self._external

    @external_header.setter
    def external_header(self, content: bytes) -> None:
        nodes = self._decoded()
        self._used += len(content) - len(self._external)
        old, self._external = self._external, content
        if old != content and nodes and not self.root:
            self.set_nodes(nodes)

    # ---- its nodes

    @property
    def nodes(self) -> list[PageNode]:
        """The nodes in the order of their lines. Change them by the methods only."""
        return self._decoded()

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._decoded())

    def __bool__(self) -> bool:
        """A page without nodes is a page."""
        return True

    def node(self, line: int) -> PageNode:
        """One node.

        Raises:
            EseDamaged: There is no such line.
        """
        nodes = self._nodes if self._raw is None else self._decoded()
        if not 0 <= line < len(nodes):
            raise self.damaged(f"it has no line {line}, only {len(nodes)} lines")
        return nodes[line]

    def insert(self, line: int, key: bytes, data: bytes, flags: int = 0) -> None:
        """Put a node before the one on a line, or behind all.

        Raises:
            EseDamaged: There are too few lines.
        """
        nodes = self._nodes if self._raw is None else self._decoded()
        if not 0 <= line <= len(nodes):
            raise self.damaged(f"nothing can be inserted at line {line}: it has {len(nodes)} lines")
        shared = self._shared_with(key) if self._external else 0
        self._used += len(key) + len(data) + (TAG + 4 - shared if shared else TAG + 2)
        nodes.insert(line, PageNode(key, data, flags, shared))

    def replace(self, line: int, data: bytes) -> None:
        """Give the node on a line other data."""
        node = self.node(line)
        self._used += len(data) - len(node.data)
        self._nodes[line] = PageNode(node.key, data, node.flags, node.shared)

    def set_flags(self, line: int, flags: int) -> None:
        """Give the node on a line other flags (VERSIONED, DELETED)."""
        node = self.node(line)
        if node.flags != flags:
            self._nodes[line] = PageNode(node.key, node.data, flags, node.shared)

    def delete(self, line: int) -> None:
        """Remove the node on a line."""
        self._used -= self.node(line).size + TAG
        del self._nodes[line]

    def set_nodes(self, nodes: Iterable[PageNode]) -> None:
        """Put other nodes in place of all, each sharing as much as it can with the external header."""
        self._decoded()
        if self.flags & _ROOT or not self._external:
            laid_out = [node if not node[3] else PageNode(node[0], node[1], node[2]) for node in nodes]
        else:
            shared_with = self._shared_with
            laid_out = [PageNode(key, data, flags, shared_with(key)) for key, data, flags, _shared in nodes]
        self._nodes = laid_out
        self._used = TAG * (1 + len(self._reserved)) + len(self._external) + sum(map(len, self._reserved))
        self._used += space_of(laid_out)

    def cut(self, line: int) -> None:
        """Remove the node on a line and all behind it."""
        nodes = self._decoded()
        self._used -= space_of(nodes[line:])
        del nodes[line:]

    def find(self, key: bytes) -> int:
        """The line of the first node whose key is not below a key; the number of lines if all are.

        On branches an empty key stands last and above all others.
        """
        nodes = self._decoded()
        end = len(nodes)
        if end and not self.leaf and not nodes[-1].key:
            end -= 1
        return bisect_left(nodes, (key,), 0, end)

    def is_in_order(self, line: int) -> bool:
        """Whether the key on a line is neither below the one before it nor above the one behind it."""
        nodes = self._decoded()
        key = nodes[line].key
        if not key and not self.leaf and line == len(nodes) - 1:
            return True
        if line and nodes[line - 1].key > key:
            return False
        if line + 1 < len(nodes):
            following = nodes[line + 1].key
            last_of_branch = not following and not self.leaf and line + 2 == len(nodes)
            return last_of_branch or key <= following
        return True

    # ---- its bytes

    def encode(self, *, seal: bool = True) -> bytes:
        """The page's bytes.

        Args:
            seal: Whether to compute its checksum; many pages at once are sealed faster together.

        Raises:
            EseDamaged: It holds more than fits.
        """
        if not self.written:
            return bytes(self.size)
        content = self._patched(self._raw) if self._raw is not None else self._assembled()
        return sealed_page(content, self.number) if seal else content

    def copy(self) -> EditablePage:
        """A page of its own with the same content."""
        twin = EditablePage(self.size, self.number, self.object_id, self.flags, self.file)
        twin.dbtime, twin.previous, twin.next = self.dbtime, self.previous, self.next
        twin.uncommitted_free, twin._raw, twin._external = self.uncommitted_free, self._raw, self._external
        twin._reserved, twin._nodes, twin._used = self._reserved, list(self._nodes), self._used
        return twin

    def damaged(self, what: str) -> EseDamaged:
        """The error that says what is wrong with this page."""
        return EseDamaged(
            f"{self.file}: page {self.number}: {what}",
            code="ese-page-damaged",
            hint="recover the database from a recovery point; perdure ese verify shows all damaged pages",
        )

    def _shared_with(self, key: bytes) -> int:
        if self.flags & _ROOT or not self._external:
            return 0
        shared = shared_prefix(key, self._external)
        return shared if shared >= SHORTEST_PREFIX else 0

    def _patched(self, raw: bytes) -> bytes:
        """The bytes as they came, with the head as it is now."""
        content = bytearray(raw)
        free, _uncommitted, first_free, tags = struct.unpack_from("<HHHH", raw, 28)
        self._write_head(content, free, first_free, tags)
        return bytes(content)

    def _assembled(self) -> bytes:
        free = self.free
        if free < 0:
            raise self.damaged(f"it holds {-free} bytes more than fit")
        laid_out = lay_out(self.size, self._external, self._reserved, self._nodes)
        self._write_head(laid_out.content, free, laid_out.first_free, laid_out.tag_state)
        return bytes(laid_out.content)

    def _write_head(self, content: bytearray, free: int, first_free: int, tags: int) -> None:
        large = self.size > LARGE_PAGE
        flags = self.flags | ECC_FLAG if large else self.flags
        uncommitted = min(self.uncommitted_free, free)
        links = (self.previous, self.next, self.object_id)
        _HEADER.pack_into(content, 0, 0, self.dbtime, *links, free, uncommitted, first_free, tags, flags)
        if large:
            content[_NUMBER_AT : _NUMBER_AT + 4] = self.number.to_bytes(4, "little")

    def _decoded(self) -> list[PageNode]:
        if self._raw is not None:
            self._decode(self._raw)
        return self._nodes

    def _decode(self, raw: bytes) -> None:
        try:
            content = read_layout(raw, root=bool(raw[_FLAGS_AT] & _ROOT))
        except LayoutDamaged as error:
            raise self.damaged(str(error)) from None
        if content.used != self._used:
            left = self._capacity - content.used
            raise self.damaged(f"its header counts {self.free} free bytes, and its tags leave {left}")
        self._external, self._reserved, self._nodes = content.external, content.reserved, content.nodes
        self._raw = None

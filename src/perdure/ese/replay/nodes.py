"""Records that change one node, or the head, of one page."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from perdure.ese.editing import EditablePage, PageNode
from perdure.ese.pages import NodeFlag, PageFlag
from perdure.ese.replay.differences import apply_difference
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.heads import CONCURRENT_INDEX, NODE_BODY, UNIQUE, VERSIONED, NodeHead
from perdure.ese.replay.target import ReplayTarget
from perdure.ese.replay.transactions import Change, ChangeKind, Session

__all__ = ["NODE_RECORDS", "Existing", "NodeRecords", "empty_page", "inserted_node", "new_data"]

_TWO = struct.Struct("<HH")
_THREE = struct.Struct("<HHH")
_EMPTIED = struct.Struct("<QII")
_DELETED = int(NodeFlag.DELETED)
_STORED_SIZE, _LONG_HEADS = 0x7FFF, 0x8000
_SCRUB_UNUSED = 1
_DELETED_FILL, _VALUE_FILL = b"D", b"L"

INSERT, FLAG_INSERT, FLAG_INSERT_REPLACE, FLAG_DELETE, REPLACE, REPLACE_D, DELETE = 29, 30, 31, 32, 33, 34, 35
DELTA, EXTERNAL_HEADER, EMPTY_TREE, SCRUB, DELTA_64 = 37, 38, 48, 64, 93

Existing: TypeAlias = Callable[[int, int, int], EditablePage | None]
"""Gives the page of a number that is to be brought from a dbtime to another, ``None`` if it is there already."""

_Effect: TypeAlias = "Callable[[NodeRecords, NodeHead, Session | None, bytes, int, Existing], None]"


@dataclass(slots=True)
class NodeRecords:
    """Applies records about nodes.

    Args:
        target: The database.
    """

    target: ReplayTarget

    def apply(self, head: NodeHead, session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """Apply the record that begins at a place.

        Args:
            head: Its head.
            session: Whose it is, ``None`` outside of transactions.
            log: What holds it.
            at: Where it begins.
            existing: Gives the pages that still have to change.

        Raises:
            Contradiction: The page is not as the record expects it.
        """
        NODE_RECORDS[log[at]](self, head, session, log, at, existing)

    def insert(self, head: NodeHead, session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """Insert: a node at a line."""
        key, data = inserted_node(log, at)
        _remember_insert(head, session, key, data, after=data)
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            return
        page.insert(head.line, key, data)
        _check_order(page, head.line, unique=bool(head.flags & UNIQUE))
        self.target.changed(page, head.dbtime)

    def flag_insert(self, head: NodeHead, session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """FlagInsert: a node that was flagged as deleted is there again."""
        size, _data_size = _TWO.unpack_from(log, at + NODE_BODY)
        start = at + NODE_BODY + _TWO.size
        key, data = log[start : start + size], log[start + size : start + size + _data_size]
        _remember_insert(head, session, key, data)
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            return
        self._deleted_node(page, head.line, key)
        page.set_flags(head.line, 0)
        self.target.changed(page, head.dbtime)

    def flag_insert_and_replace(
        self, head: NodeHead, session: Session | None, log: bytes, at: int, existing: Existing
    ) -> None:
        """FlagInsertAndReplaceData: it is there again with other data."""
        key, data, replaced = _flag_inserted(log, at)
        _remember_insert(head, session, key, data)
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            self._lack(head, session, replaced)
            return
        node = self._deleted_node(page, head.line, key)
        if session is not None and head.flags & VERSIONED:
            session.remember(head.level, _replace_change(head, replaced, node, data))
        page.set_flags(head.line, 0)
        page.replace(head.line, data)
        self.target.changed(page, head.dbtime)

    def flag_delete(self, head: NodeHead, session: Session | None, _log: bytes, _at: int, existing: Existing) -> None:
        """FlagDelete: the node stays, flagged, until nobody needs it."""
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            self._lack(head, session, head.version)
            return
        node = page.node(head.line)
        if node.flags & _DELETED:
            raise Contradiction(f"the node on line {head.line} is deleted already", page.number)
        if session is not None and head.flags & VERSIONED:
            unique = bool(head.flags & UNIQUE)
            change = Change(
                ChangeKind.FLAG_DELETE, head.version, head.root, unique, node.key, b"" if unique else node.data
            )
            session.remember(head.level, change)
        page.set_flags(head.line, _DELETED)
        self.target.changed(page, head.dbtime)

    def replace(self, head: NodeHead, session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """Replace and ReplaceD: other data for a node."""
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            self._lack(head, session, head.version)
            return
        node = page.node(head.line)
        data = new_data(log, at, node, page.number)
        if session is not None and head.flags & VERSIONED:
            session.remember(head.level, _replace_change(head, head.version, node, data))
        page.replace(head.line, data)
        self.target.changed(page, head.dbtime)

    def delete(self, head: NodeHead, _session: Session | None, _log: bytes, _at: int, existing: Existing) -> None:
        """Delete: the node goes."""
        page = existing(head.page, head.before, head.dbtime)
        if page is not None:
            page.delete(head.line)
            self.target.changed(page, head.dbtime)

    def delta(self, head: NodeHead, session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """Delta and Delta64: a number is added to one in a node's data."""
        width = 4 if log[at] == DELTA else 8
        key_size, data_size = _TWO.unpack_from(log, at + NODE_BODY)
        place = at + NODE_BODY + _TWO.size
        delta = int.from_bytes(log[place : place + width], "little", signed=True)
        offset = int.from_bytes(log[place + width : place + width + 2], "little")
        start = place + width + 2
        key, data = log[start : start + key_size], log[start + key_size : start + key_size + data_size]
        if session is not None and head.flags & VERSIONED:
            kind = ChangeKind.DELTA if width == 4 else ChangeKind.DELTA_64
            unique = bool(head.flags & UNIQUE)
            change = Change(kind, head.version, head.root, unique, key, data, offset=offset, delta=delta)
            session.remember(head.level, change)
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            return
        self._node_of(page, head.line, key)
        page.replace(head.line, with_delta(page, head.line, offset, width, delta))
        self.target.changed(page, head.dbtime)

    def set_external_header(
        self, head: NodeHead, _session: Session | None, log: bytes, at: int, existing: Existing
    ) -> None:
        """SetExternalHeader: all of what tag 0 points to."""
        page = existing(head.page, head.before, head.dbtime)
        if page is not None:
            page.external_header = header_content(log, at)
            self.target.changed(page, head.dbtime)

    def empty_tree(self, head: NodeHead, _session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """EmptyTree: the pages below a root are given up, and the root becomes an empty leaf."""
        start = at + NODE_BODY + 2
        size = int.from_bytes(log[at + NODE_BODY : start], "little")
        for before, number, _flags in _EMPTIED.iter_unpack(log[start : start + size]):
            page = existing(number, before, head.dbtime)
            if page is not None:
                empty_page(page)
                self.target.changed(page, head.dbtime)
            self.target.forget(number)
        root = existing(head.page, head.before, head.dbtime)
        if root is None:
            return
        if not root.root:
            raise Contradiction("a tree is emptied whose root it should be, and it is none", root.number)
        root.set_nodes([])
        root.flags = root.flags & ~int(PageFlag.PARENT_OF_LEAF) | int(PageFlag.LEAF)
        self.target.changed(root, head.dbtime)

    def scrub(self, head: NodeHead, _session: Session | None, log: bytes, at: int, existing: Existing) -> None:
        """Scrub: what was deleted is overwritten."""
        flags, count, size = struct.unpack_from("<IIH", log, at + NODE_BODY)
        page = existing(head.page, head.before, head.dbtime)
        if page is None:
            if flags & _SCRUB_UNUSED:
                self.target.forget(head.page)
            return
        if flags & _SCRUB_UNUSED:
            page.set_nodes([])
        else:
            operations = log[at + 54 : at + 54 + min(size, count)]
            if len(operations) != len(page):
                raise Contradiction(f"{len(operations)} nodes are scrubbed of {len(page)}", page.number)
            for line, operation in enumerate(operations):
                _scrub_node(page, line, operation)
        page.flags |= int(PageFlag.SCRUBBED)
        self.target.changed(page, head.dbtime)

    def remember_operation(self, head: NodeHead, session: Session, record: bytes, replaced: PageNode | None) -> None:
        """Keep the change that a split made room for until its transaction ends.

        Args:
            head: Of its record.
            session: Whose it is.
            record: Its record.
            replaced: The node before, ``None`` if nobody knows any more.
        """
        version = head.version
        if record[0] == INSERT:
            key, data = inserted_node(record, 0)
            _remember_insert(head, session, key, data, after=data)
            return
        if record[0] == FLAG_INSERT_REPLACE:
            key, data, version = _flag_inserted(record, 0)
            _remember_insert(head, session, key, data)
        if replaced is None:
            self._lack(head, session, version)
        else:
            data = new_data(record, 0, replaced, head.page)
            session.remember(head.level, _replace_change(head, version, replaced, data))

    def _lack(self, head: NodeHead, session: Session | None, version: int) -> None:
        if session is not None and head.flags & VERSIONED:
            session.lacks(head.level, version, self.target.where())

    def _node_of(self, page: EditablePage, line: int, key: bytes) -> PageNode:
        node = page.node(line)
        if node.key != key:
            raise Contradiction(
                f"line {line} holds the key {node.key.hex()}, and the record is about {key.hex()}", page.number
            )
        return node

    def _deleted_node(self, page: EditablePage, line: int, key: bytes) -> PageNode:
        node = self._node_of(page, line, key)
        if not node.flags & _DELETED:
            raise Contradiction(f"the node on line {line} is inserted again, and is there", page.number)
        return node


NODE_RECORDS: dict[int, _Effect] = {
    INSERT: NodeRecords.insert,
    FLAG_INSERT: NodeRecords.flag_insert,
    FLAG_INSERT_REPLACE: NodeRecords.flag_insert_and_replace,
    FLAG_DELETE: NodeRecords.flag_delete,
    REPLACE: NodeRecords.replace,
    REPLACE_D: NodeRecords.replace,
    DELETE: NodeRecords.delete,
    DELTA: NodeRecords.delta,
    DELTA_64: NodeRecords.delta,
    EXTERNAL_HEADER: NodeRecords.set_external_header,
    EMPTY_TREE: NodeRecords.empty_tree,
    SCRUB: NodeRecords.scrub,
}
"""What every type of record about a node does."""


def inserted_node(log: bytes, at: int) -> tuple[bytes, bytes]:
    """Key and data of an Insert record."""
    suffix, prefix, size = _THREE.unpack_from(log, at + NODE_BODY)
    start = at + NODE_BODY + _THREE.size
    middle = start + prefix + suffix
    return log[start:middle], log[middle : middle + size]


def new_data(log: bytes, at: int, node: PageNode, page: int) -> bytes:
    """The data that a Replace, ReplaceD or FlagInsertAndReplaceData record gives a node.

    Raises:
        Contradiction: The node's data are not those that the record replaces.
    """
    if log[at] == FLAG_INSERT_REPLACE:
        return _flag_inserted(log, at)[1]
    stored, old_size, new_size = _THREE.unpack_from(log, at + NODE_BODY)
    start = at + NODE_BODY + _THREE.size
    content = log[start : start + (stored & _STORED_SIZE)]
    if old_size and old_size != len(node.data):
        raise Contradiction(f"the data of a node have {len(node.data)} bytes, and {old_size} are replaced", page)
    data = content
    if log[at] == REPLACE_D:
        data = apply_difference(node.data, content, long=bool(stored & _LONG_HEADS))
    if len(data) != new_size:
        raise Contradiction(f"the new data of a node have {len(data)} bytes, and should have {new_size}", page)
    return data


def header_content(log: bytes, at: int) -> bytes:
    """What a SetExternalHeader record sets."""
    size = int.from_bytes(log[at + NODE_BODY : at + NODE_BODY + 2], "little")
    return log[at + NODE_BODY + 2 : at + NODE_BODY + 2 + size]


def empty_page(page: EditablePage) -> None:
    """Give a page up: no node, no prefix, flagged as empty."""
    page.set_nodes([])
    if not page.root:
        page.external_header = b""
    page.flags |= int(PageFlag.EMPTY)


def with_delta(page: EditablePage, line: int, offset: int, width: int, delta: int) -> bytes:
    """The data of a node with a number added to the one at an offset; it wraps as the engine's does.

    Raises:
        Contradiction: The data end before.
    """
    data = page.node(line).data
    if offset + width > len(data):
        raise Contradiction(f"a number is added at byte {offset} of {len(data)} bytes of data", page.number)
    value = int.from_bytes(data[offset : offset + width], "little") + delta
    number = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return data[:offset] + number + data[offset + width :]


def _flag_inserted(log: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Key, data and the version of the replace of a FlagInsertAndReplaceData record."""
    key_size, data_size = _TWO.unpack_from(log, at + NODE_BODY)
    replaced = int.from_bytes(log[at + NODE_BODY + 4 : at + NODE_BODY + 8], "little")
    start = at + NODE_BODY + 8
    return log[start : start + key_size], log[start + key_size : start + key_size + data_size], replaced


def _remember_insert(
    head: NodeHead, session: Session | None, key: bytes, data: bytes, *, after: bytes | None = None
) -> None:
    if session is None or not head.flags & VERSIONED:
        return
    unique, excusable = bool(head.flags & UNIQUE), bool(head.flags & CONCURRENT_INDEX)
    own = b"" if unique else data
    change = Change(ChangeKind.INSERT, head.version, head.root, unique, key, own, b"", 0, 0, excusable, after)
    session.remember(head.level, change)


def _replace_change(head: NodeHead, version: int, node: PageNode, data: bytes) -> Change:
    # A replace that changed nothing is taken back without a record.
    excusable = bool(head.flags & CONCURRENT_INDEX) or node.data == data
    return Change(ChangeKind.REPLACE, version, head.root, True, node.key, b"", node.data, 0, 0, excusable, data)


def _check_order(page: EditablePage, line: int, *, unique: bool) -> None:
    nodes = page.nodes
    key, data, _flags, _shared = nodes[line]
    if line:
        left = nodes[line - 1]
        if left.key > key or (left.key == key and (unique or left.data > data)):
            raise Contradiction(
                f"the key {key.hex()} inserted at line {line} is not above the one before it", page.number
            )
    if line + 1 < len(nodes):
        right = nodes[line + 1]
        if right.key < key or (right.key == key and (unique or right.data < data)):
            raise Contradiction(
                f"the key {key.hex()} inserted at line {line} is not below the one behind it", page.number
            )


def _scrub_node(page: EditablePage, line: int, operation: int) -> None:
    node = page.node(line)
    if operation == 0:
        return
    if operation == 1 and node.flags & _DELETED:
        page.replace(line, _DELETED_FILL * len(node.data))
    elif operation == 2 and node.data:
        # Long values are overwritten by a compressed value that says that it was scrubbed.
        page.replace(line, (bytes([4 << 3]) + _VALUE_FILL * len(node.data))[: len(node.data)])
    else:
        raise Contradiction(f"the node on line {line} cannot be scrubbed by operation {operation}", page.number)

"""Log records about pages: changes of nodes and of space, splits and merges, and the macros around them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "DBTIME_NONE",
    "Actor",
    "Merge",
    "NodeTarget",
    "Operation",
    "PageTarget",
    "RecordFlag",
    "Split",
    "convert_tree",
    "create_multiple_extent_tree",
    "create_single_extent_tree",
    "delete",
    "delta",
    "external_header",
    "flag_delete",
    "flag_insert",
    "flag_insert_and_replace",
    "insert",
    "macro_begin",
    "macro_commit",
    "macro_pages",
    "merge",
    "replace",
    "replace_by_difference",
    "split",
    "undo",
    "undo_info",
]

DBTIME_NONE = 0xFFFFFFFFFFFFFFFF
"""The ``dbtime`` before of a page that is not there, or that the same macro has already changed."""


class RecordFlag:
    """Flags of a record about a page."""

    VERSIONED = 1
    UNIQUE = 4
    SPACE = 8
    SYSTEM_TASK = 0x20


class Operation:
    """What a version undoes."""

    INSERT = 1
    REPLACE = 2
    FLAG_DELETE = 3
    DELTA = 4


class Actor(NamedTuple):
    """Who changes a page.

    Args:
        process: Number of the session.
        transaction: Number that its outermost transaction began with.
        level: How deep it is in transactions.
    """

    process: int
    transaction: int
    level: int


class PageTarget(NamedTuple):
    """Which page changes, from which ``dbtime`` to which."""

    dbid: int
    page: int
    dbtime: int
    before: int
    line: int = 0
    flags: int = 0


class NodeTarget(NamedTuple):
    """Which tree the page belongs to, and the version that a later undo names."""

    root: int
    objid: int
    version: int = 0


_PAGE = struct.Struct("<BHBIQQIBHB")
_NODE = struct.Struct("<BHBIQQIBHBIII")


def _page(kind: int, actor: Actor, at: PageTarget) -> bytes:
    return _PAGE.pack(
        kind,
        actor.process,
        at.dbid,
        at.page,
        at.dbtime,
        at.before,
        actor.transaction,
        actor.level,
        at.line,
        at.flags,
    )


def _node(kind: int, actor: Actor, at: PageTarget, of: NodeTarget) -> bytes:
    return _NODE.pack(
        kind,
        actor.process,
        at.dbid,
        at.page,
        at.dbtime,
        at.before,
        actor.transaction,
        actor.level,
        at.line,
        at.flags,
        of.version,
        of.root,
        of.objid,
    )


def macro_begin(process: int, dbtime: int) -> bytes:
    """What follows is redone as one, or not at all."""
    return struct.pack("<BHQ", 11, process, dbtime)


def macro_commit(process: int, dbtime: int) -> bytes:
    """The macro is whole."""
    return struct.pack("<BHQ", 12, process, dbtime)


def macro_pages(dbid: int, pages: Sequence[int]) -> bytes:
    """MacroInfo (MacroInfo2 for all databases but the first): the pages that the macro before it touched."""
    listed = struct.pack(f"<{len(pages)}I", *pages)
    if dbid == 1:
        return struct.pack("<BI", 67, len(listed)) + listed
    return struct.pack("<BIBI", 73, 5 + len(listed), dbid, len(pages)) + listed


def insert(actor: Actor, at: PageTarget, of: NodeTarget, key: bytes, data: bytes, *, shared: int = 0) -> bytes:
    """Insert: ``shared`` bytes of the key are those of the page's prefix."""
    lengths = struct.pack("<HHH", len(key) - shared, shared, len(data))
    return _node(29, actor, at, of) + lengths + key + data


def flag_insert(actor: Actor, at: PageTarget, of: NodeTarget, key: bytes, data: bytes) -> bytes:
    """FlagInsert: a node that was only flagged as deleted is there again."""
    return _node(30, actor, at, of) + struct.pack("<HH", len(key), len(data)) + key + data


def flag_insert_and_replace(
    actor: Actor, at: PageTarget, of: NodeTarget, key: bytes, data: bytes, *, replaced: int
) -> bytes:
    """FlagInsertAndReplaceData: it is there again, with other data; ``replaced`` is the version of the data before."""
    return _node(31, actor, at, of) + struct.pack("<HHI", len(key), len(data), replaced) + key + data


def flag_delete(actor: Actor, at: PageTarget, of: NodeTarget) -> bytes:
    """FlagDelete: the node stays until no transaction needs it."""
    return _node(32, actor, at, of)


def delete(actor: Actor, at: PageTarget, of: NodeTarget) -> bytes:
    """Delete: the node goes."""
    return _node(35, actor, at, of)


def replace(actor: Actor, at: PageTarget, of: NodeTarget, old_size: int, data: bytes) -> bytes:
    """Replace: all of the new data."""
    return _node(33, actor, at, of) + struct.pack("<HHH", len(data), old_size, len(data)) + data


def replace_by_difference(
    actor: Actor, at: PageTarget, of: NodeTarget, sizes: tuple[int, int], difference: bytes, *, long: bool
) -> bytes:
    """ReplaceD: what differs between data of ``sizes`` (old, new); ``long`` says that it has 3-byte heads."""
    stored = len(difference) | (0x8000 if long else 0)
    return _node(34, actor, at, of) + struct.pack("<HHH", stored, *sizes) + difference


def delta(actor: Actor, at: PageTarget, of: NodeTarget, key: bytes, *, change: int, offset: int) -> bytes:
    """Delta: adds to the number at an offset of the data."""
    return _node(37, actor, at, of) + struct.pack("<HHiH", len(key), 0, change, offset) + key


def external_header(actor: Actor, at: PageTarget, of: NodeTarget, content: bytes) -> bytes:
    """SetExternalHeader."""
    return _node(38, actor, at, of) + struct.pack("<H", len(content)) + content


def undo(actor: Actor, at: PageTarget, of: NodeTarget, bookmark: tuple[bytes, bytes], operation: int) -> bytes:
    """Undo: a version is taken back while its transaction rolls back; key and data of ``bookmark`` name the node."""
    key, data = bookmark
    head = struct.pack("<HHHB", len(key), len(data), operation, actor.level)
    return _node(39, actor, at, of) + head + key + data


def undo_info(
    actor: Actor,
    at: PageTarget,
    of: NodeTarget,
    bookmark: tuple[bytes, bytes],
    before: bytes,
    *,
    sizes: tuple[int, int],
    operation: int = Operation.REPLACE,
) -> bytes:
    """UndoInfo: what takes an uncommitted replace or flagged delete back, logged before its page is written.

    Args:
        actor: Whose version it is.
        at: The page; it does not change.
        of: The tree, and the version.
        bookmark: Key and data that name the node.
        before: The data before a replace.
        sizes: The largest size that the node had in this transaction, and how much the replace changed it.
        operation: A replace or a flagged delete.
    """
    key, data = bookmark
    head = struct.pack("<HHHhhH", len(key), len(data), operation, *sizes, len(before))
    return _node(36, actor, at, of) + head + key + data + before


def create_multiple_extent_tree(
    actor: Actor, at: PageTarget, objid: int, space: tuple[int, int], *, parent: int, primary: int, page_flags: int
) -> bytes:
    """CreateMultipleExtentFDP; ``space`` are the roots of its trees of owned and of available extents."""
    return _page(24, actor, at) + struct.pack("<IIIIiI", objid, *space, parent, primary, page_flags)


def create_single_extent_tree(
    actor: Actor, at: PageTarget, objid: int, *, parent: int, primary: int, page_flags: int
) -> bytes:
    """CreateSingleExtentFDP."""
    return _page(25, actor, at) + struct.pack("<IIiI", objid, parent, primary, page_flags)


def convert_tree(
    actor: Actor,
    at: PageTarget,
    objid: int,
    *,
    parent: int,
    second: tuple[int, int],
    primary: int,
    available: int,
    page_flags: int,
) -> bytes:
    """ConvertFDP2: one extent becomes several; the first two pages of the ``second`` (first, count) are its trees."""
    first, count = second
    fields = struct.pack("<IIIIIiiII", objid, first, first + 1, parent, first, primary, count, available, page_flags)
    return _page(58, actor, at) + fields


@dataclass(frozen=True, slots=True)
class Split:
    """The body of a split, or of a parent that only gets a pointer (``new`` is 0 then)."""

    root: int
    objid: int
    parent: int = 0
    parent_before: int = DBTIME_NONE
    new: int = 0
    right: int = 0
    right_before: int = DBTIME_NONE
    kind: int = 0
    operation: int = 0
    operation_line: int = 0
    split_line: int = 0
    lines: int = 0
    new_flags: int = 0
    split_flags: int = 0
    uncommitted: tuple[int, int] = (0, 0)
    prefix_lines: tuple[int, int] = (-1, -1)
    separator: bytes = b""
    old_prefix: bytes = b""
    new_prefix: bytes = b""
    before_image: bytes = b""
    image_flags: int = 0


def split(actor: Actor, at: PageTarget, body: Split) -> bytes:
    """Split2."""
    fields = struct.pack(
        "<IIQIQIIBBHHHIIhhiiHHHII",
        body.new,
        body.right,
        body.right_before,
        body.parent,
        body.parent_before,
        body.root,
        body.objid,
        body.kind,
        body.operation,
        body.operation_line,
        body.split_line,
        body.lines,
        body.new_flags,
        body.split_flags,
        *body.uncommitted,
        *body.prefix_lines,
        len(body.old_prefix),
        len(body.new_prefix),
        len(body.separator),
        body.image_flags,
        len(body.before_image),
    )
    return _page(62, actor, at) + fields + body.separator + body.old_prefix + body.new_prefix + body.before_image


@dataclass(frozen=True, slots=True)
class Merge:
    """The body of a merge: of the leaf, or of one of its ancestors (``kind`` is 0 then)."""

    root: int
    objid: int
    right: int = 0
    right_before: int = DBTIME_NONE
    left: int = 0
    left_before: int = DBTIME_NONE
    parent: int = 0
    parent_before: int = DBTIME_NONE
    sizes: tuple[int, int] = (0, 0)
    uncommitted: int = 0
    line: int = 0
    flags: int = 0
    kind: int = 0
    separator: bytes = b""
    before_image: bytes = b""
    image_flags: int = 0


def merge(actor: Actor, at: PageTarget, body: Merge) -> bytes:
    """Merge2."""
    fields = struct.pack(
        "<IQIQIQIIHHHHBBHII",
        body.right,
        body.right_before,
        body.left,
        body.left_before,
        body.parent,
        body.parent_before,
        body.root,
        body.objid,
        *body.sizes,
        body.uncommitted,
        body.line,
        body.flags,
        body.kind,
        len(body.separator),
        body.image_flags,
        len(body.before_image),
    )
    return _page(63, actor, at) + fields + body.separator + body.before_image

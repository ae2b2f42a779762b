"""Log records of the engine, encoded: transactions, changes of pages, splits and merges, the life of databases."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "DBTIME_NONE",
    "Actor",
    "Merge",
    "NodeTarget",
    "Operation",
    "PageTarget",
    "RecordFlag",
    "Split",
    "attach_database",
    "backup_mark",
    "begin",
    "begin_transaction",
    "commit",
    "commit_transaction",
    "convert_tree",
    "create_database",
    "create_database_finish",
    "create_multiple_extent_tree",
    "create_single_extent_tree",
    "delete",
    "delta",
    "detach_database",
    "extend_database",
    "external_header",
    "flag_delete",
    "flag_insert",
    "flag_insert_and_replace",
    "force_rollover",
    "initialise",
    "insert",
    "macro_begin",
    "macro_commit",
    "macro_pages",
    "merge",
    "padding",
    "reattach_database",
    "recovery_quit",
    "recovery_undo",
    "replace",
    "replace_by_difference",
    "rollback",
    "split",
    "terminate",
    "undo",
    "undo_info",
]

DBTIME_NONE = 0xFFFFFFFFFFFFFFFF
"""The ``dbtime`` before of a page that is not there, or that the same macro has already changed."""

_UTF16_NAMES = 0x08
_UTF16_NAMES_DETACH = 0x10
_VERSION_FOLLOWS = 0x04


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


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes a page.

    Args:
        process: Number of the session.
        transaction: Number that its outermost transaction began with.
        level: How deep it is in transactions.
    """

    process: int
    transaction: int
    level: int


@dataclass(frozen=True, slots=True)
class PageTarget:
    """Which page changes, from which ``dbtime`` to which."""

    dbid: int
    page: int
    dbtime: int
    before: int
    line: int = 0
    flags: int = 0


@dataclass(frozen=True, slots=True)
class NodeTarget:
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


def begin_transaction(actor: Actor) -> bytes:
    """Begin0: a transaction of level 1 begins."""
    return struct.pack("<BHBI", 8, actor.process, 0x10, actor.transaction)


def begin(process: int, level: int) -> bytes:
    """Begin: one more level begins inside of level ``level``."""
    return struct.pack("<BHB", 5, process, level | 0x10)


def commit_transaction(process: int, number: int) -> bytes:
    """Commit0: everything of the transaction is durable once this record is."""
    return struct.pack("<BHBI", 9, process, 0, number)


def commit(process: int, level: int) -> bytes:
    """Commit: back to level ``level``, above 0."""
    return struct.pack("<BHB", 6, process, level)


def rollback(process: int, levels: int) -> bytes:
    """Rollback of as many levels; the undo of each change was logged before."""
    return struct.pack("<BHB", 7, process, levels)


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


def _path(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


def create_database(dbid: int, signature: bytes, path: str) -> bytes:
    """CreateDB."""
    name = _path(path)
    flags = _UTF16_NAMES | _VERSION_FOLLOWS
    return (
        struct.pack("<BHBII", 14, 0xFFFF, dbid, 0, 0)
        + signature
        + struct.pack("<HBHH", len(name), flags, 0x620, 0)
        + name
    )


def create_database_finish(dbid: int) -> bytes:
    """CreateDBFinish: the new database is whole."""
    return struct.pack("<BHB", 79, 0xFFFF, dbid)


def attach_database(dbid: int, consistent: bytes, signature: bytes, log_signature: bytes, path: str) -> bytes:
    """AttachDB; ``consistent`` are the 8 bytes of the position that its header gives."""
    name = _path(path)
    head = struct.pack("<BHBI", 15, 0xFFFF, dbid, 0) + consistent + signature + log_signature
    return head + struct.pack("<HB", len(name), _UTF16_NAMES) + name


def reattach_database(dbid: int, attach: bytes, consistent: bytes, signature: bytes) -> bytes:
    """ReAttach: it was still attached when recovery ended."""
    body = bytes([dbid]) + attach + consistent + signature
    return struct.pack("<BI", 72, len(body)) + body


def detach_database(dbid: int, path: str) -> bytes:
    """DetachDB: it is whole without any log."""
    name = _path(path)
    return struct.pack("<BHBHB", 16, 0xFFFF, dbid, len(name), _UTF16_NAMES_DETACH) + name


def extend_database(dbid: int, last: int) -> bytes:
    """ExtendDB: the file ends with page ``last`` now."""
    return struct.pack("<BIBI", 68, 5, dbid, last)


def initialise(parameters: bytes, time: bytes) -> bytes:
    """Init2: the engine begins to write."""
    return bytes([49]) + parameters + time


def terminate(position: bytes, redo_from: bytes, time: bytes) -> bytes:
    """Term2: the engine ends in order."""
    return bytes([50]) + position + redo_from + b"\0" + time


def recovery_undo(time: bytes) -> bytes:
    """RecoveryUndo2: redo is over, what follows takes open transactions back."""
    return bytes([51]) + time


def recovery_quit(position: bytes, redo_from: bytes, time: bytes) -> bytes:
    """RecoveryQuit2: recovery is over."""
    return bytes([52]) + position + redo_from + b"\1" + time


def backup_mark(phase: int, kind: int, scope: int, dbid: int, mark: bytes) -> bytes:
    """Backup2: a phase of a backup; ``mark`` are the 24 bytes that the header gets."""
    return struct.pack("<BBIBB", 60, phase, kind, scope, dbid) + mark + struct.pack("<BH", 0, 0)


def force_rollover(reason: str) -> bytes:
    """ForceLogRollover: the generation ends before it is full."""
    text = reason.encode("ascii") + b"\0"
    return struct.pack("<BHH", 61, 0xFFFF, len(text)) + text


def padding(size: int) -> bytes:
    """NOP2 of ``size`` bytes, at least 5: fills a segment that has to be written now."""
    return struct.pack("<BI", 71, size - 5) + bytes(size - 5)

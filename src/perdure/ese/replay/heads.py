"""What log records about pages begin with."""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = [
    "CONCURRENT_INDEX",
    "NODE_BODY",
    "PAGE_BODY",
    "PAGE_IS_NEW",
    "SPACE_TREE",
    "UNIQUE",
    "VERSIONED",
    "NodeHead",
    "PageHead",
    "node_head",
    "page_head",
]

PAGE_BODY, NODE_BODY = 32, 44
"""Where the rest of a record begins behind its head."""

VERSIONED, UNIQUE, SPACE_TREE, CONCURRENT_INDEX = 1, 4, 8, 0x10
"""Flags of a head."""

PAGE_IS_NEW = 0xFFFFFFFFFFFFFFFF
"""The ``before`` of a page that is new, or that the same macro has changed already."""

_PAGE = struct.Struct("<HBIQQIBHB")
_NODE = struct.Struct("<HBIQQIBHBIII")
_made = tuple.__new__
"""Makes a named tuple without looking at every field by name: this happens for every record."""


class PageHead(NamedTuple):
    """The head of a record about a page.

    Args:
        process: Number of the session that wrote the record.
        dbid: Number of the database.
        page: The page that changes.
        dbtime: The page's dbtime after the change.
        before: Its dbtime before.
        transaction: Number that the session's outermost transaction began with.
        level: How deep the session is in transactions.
        line: The node that changes.
        flags: VERSIONED, UNIQUE, SPACE_TREE, CONCURRENT_INDEX.
    """

    process: int
    dbid: int
    page: int
    dbtime: int
    before: int
    transaction: int
    level: int
    line: int
    flags: int


class NodeHead(NamedTuple):
    """The head of a record about a node: that of its page, and which tree and version it is about.

    Args:
        process: See :class:`PageHead`, as for all up to ``flags``.
        version: Number by which a later undo names this change (RCE).
        root: Root page of the tree.
        objid: Object number of the tree.
    """

    process: int
    dbid: int
    page: int
    dbtime: int
    before: int
    transaction: int
    level: int
    line: int
    flags: int
    version: int
    root: int
    objid: int


def page_head(log: bytes, at: int) -> PageHead:
    """The head of the record that begins at a place."""
    return _made(PageHead, _PAGE.unpack_from(log, at + 1))


def node_head(log: bytes, at: int) -> NodeHead:
    """The head of the record that begins at a place."""
    return _made(NodeHead, _NODE.unpack_from(log, at + 1))

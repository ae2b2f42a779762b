"""Roots of trees and of the trees that account for their space."""

from __future__ import annotations

import struct
from typing import NamedTuple

from perdure.ese.editing import EditablePage, PageNode
from perdure.ese.pages import PageFlag
from perdure.ese.replay.errors import Contradiction, Incapable
from perdure.ese.replay.heads import PAGE_BODY, UNIQUE, PageHead
from perdure.ese.replay.nodes import Existing
from perdure.ese.replay.target import ReplayTarget

__all__ = [
    "convert_tree",
    "create_multiple_extent_tree",
    "create_single_extent_tree",
    "with_owned_root",
    "with_space_header",
]

CONVERT, CONVERT_2 = 26, 58
_SPACE = struct.Struct("<iIII")
_MULTIPLE, _NON_UNIQUE = 1, 2
_HAS_SPACE_HEADER = 1
_SMALL_SPACE = 32
"""Pages behind a root that a map of bits accounts for."""


class _PageKind(NamedTuple):
    dbtime: int
    objid: int
    flags: int


_SPLIT_BUFFER = bytes(16)
_MASK = 0xF
_ROOT_LEAF = int(PageFlag.ROOT | PageFlag.LEAF)
_SPACE_TREE = int(PageFlag.SPACE_TREE)


def create_multiple_extent_tree(target: ReplayTarget, head: PageHead, log: bytes, at: int) -> None:
    """CreateMultipleExtentFDP: a root, and the two trees of its space, one page each behind it."""
    objid, owned, available, parent, primary, flags = struct.unpack_from("<IIIIiI", log, at + PAGE_BODY)
    target.last_objid = max(target.last_objid, objid)
    root = target.fresh(head.page, head.dbtime, objid, flags & ~_MASK | _ROOT_LEAF)
    if root is not None:
        root.external_header = _SPACE.pack(primary, parent, _MULTIPLE | _uniqueness(head), owned)
        target.changed(root, head.dbtime)
    last, kind = head.page + primary - 1, _PageKind(head.dbtime, objid, flags)
    _space_root(target, owned, kind, [(last, primary)])
    _space_root(target, available, kind, [(last, primary - 3)] if primary > 3 else [])


def create_single_extent_tree(target: ReplayTarget, head: PageHead, log: bytes, at: int) -> None:
    """CreateSingleExtentFDP: a root whose space header has a bit for every page behind it that is free."""
    objid, parent, primary, flags = struct.unpack_from("<IIiI", log, at + PAGE_BODY)
    target.last_objid = max(target.last_objid, objid)
    root = target.fresh(head.page, head.dbtime, objid, flags & ~_MASK | _ROOT_LEAF)
    if root is not None:
        free = (1 << _SMALL_SPACE) - 1 if primary > _SMALL_SPACE else (1 << max(0, primary - 1)) - 1
        root.external_header = _SPACE.pack(primary, parent, _uniqueness(head), free)
        target.changed(root, head.dbtime)


def convert_tree(target: ReplayTarget, head: PageHead, log: bytes, at: int, existing: Existing) -> None:
    """ConvertFDP and ConvertFDP2: a tree of one extent gets a second one, whose first two pages are its space trees.

    Raises:
        Incapable: The old record does not say what the new pages hold, and the root is newer already.
    """
    objid, owned, available, parent, second, primary, second_size = struct.unpack_from("<IIIIIii", log, at + PAGE_BODY)
    root = existing(head.page, head.before, head.dbtime)
    if log[at] == CONVERT_2:
        free, flags = struct.unpack_from("<II", log, at + 60)
    elif root is not None:
        free, flags = _SPACE.unpack(_space_header(root))[3], root.flags
    else:
        raise Incapable("it does not say which pages were free, and the root is newer already")
    extents = _free_extents(head.page, primary, free)
    if second_size > 2:
        extents.append((second + second_size - 1, second_size - 2))
    kind = _PageKind(head.dbtime, objid, flags)
    _space_root(target, owned, kind, [(head.page + primary - 1, primary), (second + second_size - 1, second_size)])
    _space_root(target, available, kind, extents)
    if root is not None:
        header = _SPACE.pack(primary, parent, _MULTIPLE | _uniqueness(head), owned)
        root.external_header = with_space_header(root.external_header, header, root.number)
        target.changed(root, head.dbtime)


def with_space_header(external: bytes, header: bytes, page: int) -> bytes:
    """The external header of a root with another space header in it."""
    if len(external) in (0, _SPACE.size):
        return header
    if external[0] & _HAS_SPACE_HEADER and len(external) > _SPACE.size:
        return external[:1] + header + external[1 + _SPACE.size :]
    raise Contradiction("its external header has no space header", page)


def with_owned_root(external: bytes, owned: int, page: int) -> bytes:
    """The external header of a root with another root of its owned extents."""
    start = 0 if len(external) == _SPACE.size else 1
    old = external[start : start + _SPACE.size]
    if len(old) != _SPACE.size:
        raise Contradiction("its external header has no space header", page)
    return with_space_header(external, old[:12] + owned.to_bytes(4, "little"), page)


def _space_header(root: EditablePage) -> bytes:
    external = root.external_header
    header = external if len(external) == _SPACE.size else external[1 : 1 + _SPACE.size]
    if len(header) != _SPACE.size:
        raise Contradiction("its external header has no space header", root.number)
    return header


def _uniqueness(head: PageHead) -> int:
    return 0 if head.flags & UNIQUE else _NON_UNIQUE


def _space_root(target: ReplayTarget, number: int, kind: _PageKind, extents: list[tuple[int, int]]) -> None:
    page = target.fresh(number, kind.dbtime, kind.objid, kind.flags & ~_MASK | _ROOT_LEAF | _SPACE_TREE)
    if page is None:
        return
    page.external_header = _SPLIT_BUFFER
    page.set_nodes(
        PageNode(last.to_bytes(4, "big"), count.to_bytes(4, "little", signed=True)) for last, count in sorted(extents)
    )
    target.changed(page, kind.dbtime)


def _free_extents(root: int, primary: int, free: int) -> list[tuple[int, int]]:
    """Free pages of the first extent as extents (last page, how many): those of the bits, and those behind them."""
    pages = [root + 1 + bit for bit in range(_SMALL_SPACE) if free >> bit & 1]
    pages += range(root + _SMALL_SPACE + 1, root + primary)
    extents: list[tuple[int, int]] = []
    for page in pages:
        if extents and extents[-1][0] == page - 1:
            extents[-1] = page, extents[-1][1] + 1
        else:
            extents.append((page, 1))
    return extents

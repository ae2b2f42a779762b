"""Merges: nodes of a leaf move to a neighbour, and pages that are empty then leave the tree."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from perdure.ese.editing import EditablePage, PageNode
from perdure.ese.replay.before_images import image_of_page
from perdure.ese.replay.errors import Contradiction, Incapable
from perdure.ese.replay.heads import PAGE_BODY, PageHead, page_head
from perdure.ese.replay.nodes import Existing, empty_page
from perdure.ese.replay.target import ReplayTarget

__all__ = ["MERGES", "Merge", "redo_merges"]

MERGE, MERGE_2 = 28, 63
MERGES = (MERGE, MERGE_2)
_EMPTY_PAGE, _FULL_RIGHT, _PARTIAL_RIGHT, _FULL_LEFT, _PARTIAL_LEFT = 1, 2, 3, 5, 6
_TO_RIGHT, _TO_LEFT = (_FULL_RIGHT, _PARTIAL_RIGHT), (_FULL_LEFT, _PARTIAL_LEFT)
_PARTIAL = (_PARTIAL_RIGHT, _PARTIAL_LEFT)
_KEY_CHANGE, _DELETE_NODE, _EMPTIES = 1, 2, 4

_FIELDS = struct.Struct("<IQIQIQIIHHHHBBH")
_IMAGE = struct.Struct("<II")


class Merge(NamedTuple):
    """One Merge record: of the leaf that is merged, or of a page above it.

    Args:
        head: Page, dbtimes, and the line that points to the page below.
        right: The leaf behind, 0 for none.
        right_before: Its dbtime before.
        left: The leaf before, 0 for none.
        left_before: Its dbtime before.
        parent: The page above, 0 if nothing changes there.
        objid: Object number of the tree.
        line: The first (to the right) or last (to the left) line that moves.
        flags: Key change, node deleted, page emptied.
        kind: Which way nodes move, and whether all of them do.
        separator: The new key of the pointer, if that changes.
        image: The leaf before, as logged; empty if it is not.
        image_flags: How ``image`` is stored.
    """

    head: PageHead
    right: int
    right_before: int
    left: int
    left_before: int
    parent: int
    objid: int
    line: int
    flags: int
    kind: int
    separator: bytes
    image: bytes
    image_flags: int

    @staticmethod
    def of(record: bytes) -> Merge:
        """Read a record."""
        right, right_before, left, left_before, parent, _before, _root, objid, *rest = _FIELDS.unpack_from(
            record, PAGE_BODY
        )
        _size, _most, _free, line, flags, kind, key_size = rest
        at = PAGE_BODY + _FIELDS.size
        image_flags = image_size = 0
        if record[0] == MERGE_2:
            image_flags, image_size = _IMAGE.unpack_from(record, at)
            at += _IMAGE.size
        end = at + key_size
        separator, image = record[at:end], record[end : end + image_size]
        head = page_head(record, 0)
        return Merge(
            head,
            right,
            right_before,
            left,
            left_before,
            parent,
            objid,
            line,
            flags,
            kind,
            separator,
            image,
            image_flags,
        )


def redo_merges(target: ReplayTarget, merges: Sequence[Merge], existing: Existing) -> None:
    """Redo the merge of one macro.

    Args:
        target: The database.
        merges: Of the leaf, and of the pages above it that change.
        existing: Gives the pages that still have to change.

    Raises:
        Contradiction: A page is not as the records expect it.
        Incapable: The merge is of a kind that is not known.
    """
    path = _from_the_top(merges)
    leaf = path[-1]
    for merge, below in pairwise(path):
        page = existing(merge.head.page, merge.head.before, merge.head.dbtime)
        if page is not None:
            _redo_above(merge, below, leaf, page)
            target.changed(page, merge.head.dbtime)
        if merge.flags & _EMPTIES:
            target.forget(merge.head.page)
    _redo_leaf(target, leaf, existing)


def _from_the_top(merges: Sequence[Merge]) -> list[Merge]:
    """The records in the order of the tree, each followed by the one of the page below.

    Raises:
        Contradiction: They are not those of one path.
    """
    below = {merge.parent: merge for merge in merges}
    pages = {merge.head.page for merge in merges}
    tops = [merge for merge in merges if merge.parent not in pages]
    path = tops[:1]
    while path and path[-1].head.page in below and len(path) < len(merges):
        path.append(below[path[-1].head.page])
    if len(path) != len(merges):
        raise Contradiction("the records of a merge are not of one page and those above it", merges[-1].head.page)
    return path


def _redo_above(merge: Merge, below: Merge, leaf: Merge, page: EditablePage) -> None:
    line = merge.head.line
    if merge.flags & (_KEY_CHANGE | _DELETE_NODE):
        _check_pointer(page, line, below.head.page)
    if leaf.kind == _FULL_LEFT and merge.flags & _DELETE_NODE and merge.flags & _KEY_CHANGE:
        # Both leaves become the left one: its pointer takes the key of the merged one's, and the other one goes.
        _check_pointer(page, line - 1, leaf.left)
        page.replace(line, leaf.left.to_bytes(4, "little"))
        page.delete(line - 1)
    elif merge.flags & _DELETE_NODE:
        was_last = line == len(page) - 1 and not page.node(line).key
        page.delete(line)
        if was_last:
            _rename(page, line - 1, b"")
    elif merge.flags & _KEY_CHANGE:
        _rename(page, line - 1 if leaf.kind == _PARTIAL_LEFT else line, leaf.separator)
    elif not merge.flags & _EMPTIES:
        raise Contradiction("a merge names it and changes nothing in it", page.number)
    if merge.flags & _EMPTIES:
        empty_page(page)


def _rename(page: EditablePage, line: int, key: bytes) -> None:
    node = page.node(line)
    page.delete(line)
    page.insert(line, key, node.data)
    if not page.is_in_order(line):
        raise Contradiction(f"the separator {key.hex()} on line {line} is not in order", page.number)


def _check_pointer(page: EditablePage, line: int, child: int) -> None:
    node = page.node(line)
    if node.child != child:
        raise Contradiction(f"line {line} points to page {node.child}, not to {child}", page.number)


def _redo_leaf(target: ReplayTarget, merge: Merge, existing: Existing) -> None:
    head = merge.head
    if merge.kind not in (_EMPTY_PAGE, *_TO_RIGHT, *_TO_LEFT):
        raise Incapable(f"a merge of kind {merge.kind} is not known")
    page = existing(head.page, head.before, head.dbtime)
    left = existing(merge.left, merge.left_before, head.dbtime) if merge.left else None
    right = existing(merge.right, merge.right_before, head.dbtime) if merge.right else None
    destination = right if merge.kind in _TO_RIGHT else left if merge.kind in _TO_LEFT else None
    if destination is not None:
        source = page if page is not None else _source(target, merge)
        _move(merge, source.nodes, destination)
    if page is not None:
        _remove_moved(merge, page)
        target.changed(page, head.dbtime)
    if merge.kind not in _PARTIAL:
        if left is not None:
            left.next = merge.right
        if right is not None:
            right.previous = merge.left
    for neighbour in (left, right):
        if neighbour is not None:
            target.changed(neighbour, head.dbtime)
    if merge.flags & _EMPTIES:
        target.forget(head.page)


def _remove_moved(merge: Merge, page: EditablePage) -> None:
    if merge.kind == _PARTIAL_RIGHT:
        page.set_nodes(page.nodes[: merge.line])
    elif merge.kind == _PARTIAL_LEFT:
        page.set_nodes(page.nodes[merge.line + 1 :])
    if merge.flags & _EMPTIES:
        empty_page(page)


def _source(target: ReplayTarget, merge: Merge) -> EditablePage:
    if not merge.image:
        raise Contradiction(
            "it was merged, and was written after that, but its neighbour was not; the log does not hold what moved",
            merge.head.page,
        )
    return image_of_page(merge.image, merge.image_flags, target.cache.page_size, merge.head.page, target.file)


def _move(merge: Merge, nodes: list[PageNode], destination: EditablePage) -> None:
    own = destination.nodes
    if merge.kind in _TO_RIGHT:
        moved = [node for node in nodes[merge.line :] if not node.deleted]
        together, border = [*moved, *own], len(moved)
    else:
        moved = [node for node in nodes[: merge.line + 1] if not node.deleted]
        together, border = [*own, *moved], len(own)
    if 0 < border < len(together) and together[border - 1].key > together[border].key:
        raise Contradiction("the nodes that a merge moves there are not in order with its own", destination.number)
    destination.set_nodes(together)

"""Pages that move to another number, as the engine does it to shrink a file."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from perdure.ese.editing import EditablePage
from perdure.ese.replay.before_images import image_of_ends
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.heads import PAGE_BODY, PageHead, page_head
from perdure.ese.replay.nodes import Existing, empty_page
from perdure.ese.replay.spaces import with_owned_root
from perdure.ese.replay.target import ReplayTarget

__all__ = ["PAGE_MOVE", "PageMove", "redo_page_move", "redo_root_move"]

PAGE_MOVE = 65
_ROOT, _OWNED, _AVAILABLE = 1, 2, 4
_FIELDS = struct.Struct("<IIIIQQQIIiIII")


@dataclass(frozen=True, slots=True)
class PageMove:
    """A PageMove record.

    Args:
        head: The page that moves, and its dbtimes.
        destination: Where to.
        left: Its left sibling, 0 for none.
        right: Its right sibling, 0 for none.
        parent: The page that points to it.
        left_before: dbtime of the left sibling before.
        right_before: dbtime of the right sibling before.
        parent_before: dbtime of the parent before.
        objid: Object number of the tree.
        parent_line: The line of the pointer.
        flags: 1 a root, 2 the root of the owned extents, 4 of the available ones; 0 any other page.
        image: Header with data, and tags, of the page.
    """

    head: PageHead
    destination: int
    left: int
    right: int
    parent: int
    left_before: int
    right_before: int
    parent_before: int
    objid: int
    parent_line: int
    flags: int
    image: tuple[bytes, bytes]

    @staticmethod
    def of(record: bytes) -> PageMove:
        """Read a record."""
        (*pages, left_before, right_before, parent_before, _root, objid, line, flags, head_size, tail_size) = (
            _FIELDS.unpack_from(record, PAGE_BODY)
        )
        destination, left, right, parent = pages
        at = PAGE_BODY + _FIELDS.size
        middle = at + head_size
        return PageMove(
            head=page_head(record, 0),
            destination=destination,
            left=left,
            right=right,
            parent=parent,
            left_before=left_before,
            right_before=right_before,
            parent_before=parent_before,
            objid=objid,
            parent_line=line,
            flags=flags,
            image=(record[at:middle], record[middle : middle + tail_size]),
        )

    @property
    def of_root(self) -> bool:
        """Whether it is one of three moves that together move the root of a tree."""
        return bool(self.flags & (_ROOT | _OWNED | _AVAILABLE))


def redo_page_move(target: ReplayTarget, move: PageMove, existing: Existing) -> None:
    """Move a page that is no root.

    Raises:
        Contradiction: A page is not as the record expects it.
    """
    head = move.head
    source = existing(head.page, head.before, head.dbtime)
    new = target.fresh(move.destination, head.dbtime, move.objid, 0)
    if new is not None:
        _copy(target, source if source is not None else _image(target, move), move)
    if source is not None:
        empty_page(source)
        target.changed(source, head.dbtime)
    target.forget(head.page)
    parent = existing(move.parent, move.parent_before, head.dbtime)
    if parent is not None:
        pointer = parent.node(move.parent_line)
        if pointer.child != head.page:
            raise Contradiction(
                f"line {move.parent_line} points to page {pointer.child}, not to {head.page}", move.parent
            )
        parent.replace(move.parent_line, move.destination.to_bytes(4, "little"))
        target.changed(parent, head.dbtime)
    left = existing(move.left, move.left_before, head.dbtime) if move.left else None
    if left is not None:
        left.next = move.destination
        target.changed(left, head.dbtime)
    right = existing(move.right, move.right_before, head.dbtime) if move.right else None
    if right is not None:
        right.previous = move.destination
        target.changed(right, head.dbtime)


def redo_root_move(target: ReplayTarget, moves: list[PageMove], existing: Existing) -> None:
    """Move a root with the roots of its space trees; what names them has records of its own in the same macro.

    Raises:
        Contradiction: It is not those three that move, or one is not as its record expects it.
    """
    by_flag = {move.flags & (_ROOT | _OWNED | _AVAILABLE): move for move in moves}
    if set(by_flag) != {_ROOT, _OWNED, _AVAILABLE} or len(moves) != len(by_flag):
        raise Contradiction("the move of a root is logged without those of its space trees")
    for flag, move in by_flag.items():
        head = move.head
        source = existing(head.page, head.before, head.dbtime)
        if target.fresh(move.destination, head.dbtime, move.objid, 0) is not None:
            page = _copy(target, _image(target, move), move)
            if flag == _ROOT:
                page.external_header = with_owned_root(page.external_header, by_flag[_OWNED].destination, page.number)
        if source is not None:
            empty_page(source)
            target.changed(source, head.dbtime)
        target.forget(head.page)


def _image(target: ReplayTarget, move: PageMove) -> EditablePage:
    return image_of_ends(*move.image, target.cache.page_size, move.head.page, target.file)


def _copy(target: ReplayTarget, source: EditablePage, move: PageMove) -> EditablePage:
    page = source.copy()
    page.number = move.destination
    target.cache.put(page)
    target.changed(page, move.head.dbtime)
    return page

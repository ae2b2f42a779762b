"""Splits: the second half of a page, with the change that did not fit, moves to a new one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from perdure.ese.editing import EditablePage, PageNode
from perdure.ese.pages import PageFlag
from perdure.ese.replay.before_images import image_of_page
from perdure.ese.replay.errors import Contradiction
from perdure.ese.replay.heads import PAGE_BODY, UNIQUE, NodeHead, PageHead, page_head
from perdure.ese.replay.nodes import Existing, inserted_node, new_data
from perdure.ese.replay.target import ReplayTarget, page_flags

__all__ = ["SPLITS", "OperationOfSplit", "Split", "redo_splits"]

SPLIT, SPLIT_2 = 27, 62
SPLITS = (SPLIT, SPLIT_2)
VERTICAL, RIGHT, APPEND = 0, 1, 2
_NONE, _INSERT, _REPLACE, _FLAG_INSERT_REPLACE = 0, 1, 2, 3
_INSERT_RECORD = 29

_FIELDS = struct.Struct("<IIQIQIIBBHHHIIhhiiHHH")
_IMAGE = struct.Struct("<II")
_LEAF = int(PageFlag.LEAF)


class Split(NamedTuple):
    """One Split record: a page that is split, or, if ``new`` is 0, the parent that only gets a pointer.

    Args:
        head: Page, dbtimes.
        new: The new page.
        right: The leaf behind, 0 for none.
        right_before: Its dbtime before.
        root: Root page of the tree.
        objid: Object number of the tree.
        kind: Vertical, right or append.
        operation: What happens besides: nothing, insert, replace, insert again with other data.
        operation_line: At which line of all.
        split_line: The first line that moves.
        lines: How many lines there are with the operation.
        new_flags: Flags of the new page.
        split_flags: Flags of the split page.
        new_prefix_line: Line from ``split_line`` on whose key is the prefix of the new page, -1 for none.
        separator: Key of the pointer to the split page in its parent.
        old_prefix: Prefix of the split page before.
        new_prefix: And after.
        image: The split page before, as logged; empty if it is not.
        image_flags: How ``image`` is stored.
    """

    head: PageHead
    new: int
    right: int
    right_before: int
    root: int
    objid: int
    kind: int
    operation: int
    operation_line: int
    split_line: int
    lines: int
    new_flags: int
    split_flags: int
    new_prefix_line: int
    separator: bytes
    old_prefix: bytes
    new_prefix: bytes
    image: bytes
    image_flags: int

    @staticmethod
    def of(record: bytes) -> Split:
        """Read a record."""
        (new, right, right_before, _parent, _parent_before, root, objid, kind, operation, *lines) = _FIELDS.unpack_from(
            record, PAGE_BODY
        )
        (operation_line, split_line, count, new_flags, split_flags, _free, _new_free, _prefix, prefix_line, *sizes) = (
            lines
        )
        old_size, new_size, key_size = sizes
        at = PAGE_BODY + _FIELDS.size
        image_flags = image_size = 0
        if record[0] == SPLIT_2:
            image_flags, image_size = _IMAGE.unpack_from(record, at)
            at += _IMAGE.size
        old_at = at + key_size
        new_at = old_at + old_size
        image_at = new_at + new_size
        numbers = (new, right, right_before, root, objid, kind, operation, operation_line, split_line, count)
        keys = (record[at:old_at], record[old_at:new_at], record[new_at:image_at])
        image = record[image_at : image_at + image_size]
        # One field after the other in their order: a log can have a split for every few records.
        return Split(page_head(record, 0), *numbers, new_flags, split_flags, prefix_line, *keys, image, image_flags)

    @property
    def of_leaf(self) -> bool:
        return bool(self.new_flags & _LEAF)

    @property
    def before_image_needed(self) -> bool:
        """Whether nodes of the split page move: then the new page cannot be made without the split page before."""
        return self.kind != APPEND


class OperationOfSplit(NamedTuple):
    """The record of the change that a split makes room for.

    Args:
        head: Its head.
        record: Its bytes.
    """

    head: NodeHead
    record: bytes


def redo_splits(
    target: ReplayTarget, splits: Sequence[Split], operation: OperationOfSplit | None, existing: Existing
) -> PageNode | None:
    """Redo the splits of one macro.

    Returns:
        The node that the operation replaces, as it was before; ``None`` if it replaces none or nobody knows any more.

    Args:
        target: The database.
        splits: From the top of the tree down.
        operation: What happens in the leaf besides.
        existing: Gives the pages that still have to change.

    Raises:
        Contradiction: A page is not as the records expect it.
    """
    replaced: PageNode | None = None
    for split, below in zip(splits, [*splits[1:], None], strict=True):
        if not split.new:
            _point_to_halves(target, split, below, existing)
        else:
            replaced = _redo(target, split, below, operation, existing)
    return replaced


def _point_to_halves(target: ReplayTarget, split: Split, below: Split | None, existing: Existing) -> None:
    """The parent gets a pointer to the split page before the one that now points to the new page."""
    if below is None or not below.new:
        raise Contradiction("the parent of a split page is logged, and the split is not", split.head.page)
    page = existing(split.head.page, split.head.before, split.head.dbtime)
    if page is None:
        return
    line = page.find(below.separator)
    _point(page, line, below)
    page.insert(line, below.separator, _pointer(below.head.page))
    target.changed(page, split.head.dbtime)


def _redo(
    target: ReplayTarget, split: Split, below: Split | None, operation: OperationOfSplit | None, existing: Existing
) -> PageNode | None:
    head, replaced = split.head, None
    page = existing(head.page, head.before, head.dbtime)
    new = target.fresh(split.new, head.dbtime, split.objid, split.new_flags)
    right = existing(split.right, split.right_before, head.dbtime) if split.right else None
    if page is not None or new is not None:
        source = _source(target, split, page)
        if source is not None and split.of_leaf and split.operation in (_REPLACE, _FLAG_INSERT_REPLACE):
            replaced = source.node(split.operation_line)
        nodes = _combined(split, below, operation, source)
        if new is not None:
            _fill_new(split, nodes, new)
            target.changed(new, head.dbtime)
        if page is not None:
            _cut(split, nodes, page)
            target.changed(page, head.dbtime)
    if right is not None:
        right.previous = split.new
        target.changed(right, head.dbtime)
    return replaced


def _source(target: ReplayTarget, split: Split, page: EditablePage | None) -> EditablePage | None:
    """The split page as it was; ``None`` for an append, of which only the new node is needed."""
    if page is not None:
        return page
    if not split.before_image_needed:
        return None
    if not split.image:
        raise Contradiction(
            f"it was split, and was written after that, but the new page {split.new} was not; "
            "the log does not hold what moved there",
            split.head.page,
        )
    return image_of_page(split.image, split.image_flags, target.cache.page_size, split.head.page, target.file)


def _combined(
    split: Split, below: Split | None, operation: OperationOfSplit | None, source: EditablePage | None
) -> list[PageNode]:
    """All nodes with the operation done; those before an appended one are blank if the page is not needed."""
    number, line = split.head.page, split.operation_line
    if source is not None:
        nodes = list(source.nodes)
    elif split.split_line != split.lines - 1 or line != split.split_line:
        raise Contradiction("it is split by an append that moves more than the appended node", number)
    else:
        nodes = [PageNode(b"", b"")] * (split.lines - 1)
    if split.operation == _NONE:
        pass
    elif split.of_leaf:
        if operation is None:
            raise Contradiction("the change that its split makes room for is not logged", number)
        _operate(split, operation, nodes)
    else:
        if below is None or not below.new or line >= len(nodes):
            raise Contradiction("the split below it, to which it gets a pointer, is not logged", number)
        nodes.insert(line, PageNode(below.separator, _pointer(below.head.page)))
        behind = nodes[line + 1]
        if behind.child != below.head.page:
            raise Contradiction(f"line {line} points to page {behind.child}, not to {below.head.page}", number)
        nodes[line + 1] = PageNode(behind.key, _pointer(below.new))
    if len(nodes) != split.lines:
        raise Contradiction(f"it is split into {split.lines} lines, and there are {len(nodes)}", number)
    if not 0 <= split.split_line <= len(nodes):
        raise Contradiction(f"it is split at line {split.split_line} of {len(nodes)}", number)
    return nodes


def _operate(split: Split, operation: OperationOfSplit, nodes: list[PageNode]) -> None:
    number, line, record = split.head.page, split.operation_line, operation.record
    wanted = _INSERT if record[0] == _INSERT_RECORD else None
    if (split.operation == _INSERT) != (wanted == _INSERT):
        raise Contradiction("the change that its split makes room for is another one than the split says", number)
    if split.operation == _INSERT:
        key, data = inserted_node(record, 0)
        if line > len(nodes):
            raise Contradiction(f"a node is inserted at line {line} of {len(nodes)}", number)
        unique = bool(operation.head.flags & UNIQUE)
        for neighbour, before in ((line - 1, True), (line, False)):
            if 0 <= neighbour < len(nodes) and (nodes[neighbour].key or nodes[neighbour].data):
                other = nodes[neighbour]
                low, high = ((other.key, other.data), (key, data)) if before else ((key, data), (other.key, other.data))
                if low > high or (unique and low[0] == high[0]):
                    raise Contradiction(f"the key {key.hex()} inserted at line {line} is not in order", number)
        nodes.insert(line, PageNode(key, data))
        return
    if line >= len(nodes):
        raise Contradiction(f"it has no line {line} that could be replaced", number)
    node = nodes[line]
    flags = 0 if split.operation == _FLAG_INSERT_REPLACE else node.flags
    nodes[line] = PageNode(node.key, new_data(record, 0, node, number), flags)


def _fill_new(split: Split, nodes: list[PageNode], new: EditablePage) -> None:
    if split.new_prefix_line >= 0:
        line = split.split_line + split.new_prefix_line
        if line >= len(nodes):
            raise Contradiction(f"its prefix is the key on line {line} of {len(nodes)}", new.number)
        new.external_header = nodes[line].key
    new.set_nodes(nodes[split.split_line :])
    if split.of_leaf and split.kind != VERTICAL:
        new.previous, new.next = split.head.page, split.right


def _cut(split: Split, nodes: list[PageNode], page: EditablePage) -> None:
    if split.kind == VERTICAL:
        if not page.root or split.split_line:
            raise Contradiction("only a root can be split downwards, with all of its nodes", page.number)
        page.flags = page_flags(split.split_flags)
        page.set_nodes([PageNode(b"", _pointer(split.new))])
        return
    if split.kind == RIGHT:
        if page.external_header != split.old_prefix:
            raise Contradiction(
                f"its prefix is {page.external_header.hex()}, and should be {split.old_prefix.hex()}", page.number
            )
        if split.new_prefix != split.old_prefix:
            page.set_nodes([])
            page.external_header = split.new_prefix
    same_prefix = split.kind == APPEND or split.new_prefix == split.old_prefix
    if same_prefix and (not split.operation or split.operation_line >= split.split_line):
        page.cut(split.split_line)  # those that stay are as they were
    else:
        page.set_nodes(nodes[: split.split_line])
    if split.of_leaf:
        page.next = split.new


def _point(page: EditablePage, line: int, below: Split) -> None:
    """Let the pointer on a line, which led to the split page, lead to the new one."""
    node = page.node(line)
    if node.child != below.head.page:
        raise Contradiction(f"line {line} points to page {node.child}, not to {below.head.page}", page.number)
    page.replace(line, _pointer(below.new))


def _pointer(page: int) -> bytes:
    return page.to_bytes(4, "little")

"""Splits of pages: planned from the leaf up, logged from the root down as one macro, then applied.

A page that is full and last in its tree is split by *append*: the new node alone goes to a new page. Others are split
to the *right*: the second half goes to a new page. A root is split *vertically*: everything goes to a new page below
it. If a parent has no room for the pointer to the new page it is split in the same macro; if it cannot be split with
the pointer in it, only the parent is split, and the caller tries again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.testing.information_store import page_records as log
from perdure.testing.information_store.page_records import PageTarget, Split
from perdure.testing.information_store.replacing import replace_record
from perdure.testing.information_store.tree_pages import (
    LEAF,
    PARENT_OF_LEAF,
    ROOT,
    TreeNode,
    TreePage,
    shared_length,
)
from perdure.testing.information_store.tree_paths import INSERT, NO_OPERATION, REPLACE, Path, Pending
from perdure.testing.information_store.versions import Session

if TYPE_CHECKING:
    from perdure.testing.information_store.trees import Tree

__all__ = ["separator", "split"]

_VERTICAL, _RIGHT, _APPEND = 0, 1, 2
_NO_LINE = -1
_DEHYDRATED = 1


@dataclass(slots=True)
class _Plan:
    """The split of one page."""

    page: TreePage
    kind: int
    operation: int
    line: int
    nodes: list[TreeNode]
    """All nodes, with the operation done."""
    split_line: int
    separator: bytes = b""
    new: int = 0
    new_prefix_line: int = _NO_LINE
    split_prefix_line: int = _NO_LINE
    new_page: TreePage | None = field(default=None)

    @property
    def prefix_of_new(self) -> bytes:
        return b"" if self.new_prefix_line < 0 else self.nodes[self.split_line + self.new_prefix_line][0]

    @property
    def prefix_of_split(self) -> bytes:
        return b"" if self.split_prefix_line < 0 else self.nodes[self.split_prefix_line][0]


def split(tree: Tree, session: Session, path: Path, pending: Pending | None) -> bool:
    """Split the leaf at the end of a path, and as many of its ancestors as are full.

    Returns:
        Whether the pending operation was done with it; else the way has to be looked for again.
    """
    plans = _plans(tree, path, pending)
    for plan in plans:
        plan.new = tree.pages.allocate(session)
    parent = path[_index_of(path, plans[0].page) - 1] if plans[0].kind != _VERTICAL else None
    _Macro(tree, session, plans, parent, path, pending).perform()
    return pending is not None and plans[-1].page is path[-1][0] and plans[-1].operation != NO_OPERATION


def separator(before: bytes, after: bytes) -> bytes:
    """The shortest key above one bookmark that is not above the next."""
    common = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        common += 1
    return after[: common + 1]


def _index_of(path: Path, page: TreePage) -> int:
    """Where a page is in a path; the root is 0."""
    return next(index for index, (other, _) in enumerate(path) if other is page)


def _plans(tree: Tree, path: Path, pending: Pending | None) -> list[_Plan]:
    """What is split, from the top down."""
    leaf = path[-1][0]
    plan = _plan(tree, leaf, pending)
    plans = [plan]
    for depth in range(len(path) - 2, -1, -1):
        if plan.kind == _VERTICAL:
            break
        parent, line = path[depth]
        pointer = (plan.separator, plan.page.number.to_bytes(4, "little"), 0)
        if parent.cost(pointer[0], pointer[1]) <= parent.free:
            break
        plan = _plan(tree, parent, Pending(INSERT, line, pointer, None))
        # Without room for the pointer even after its split, the parent is split alone, and the caller tries again.
        plans = [plan] if plan.operation == NO_OPERATION else [plan, *plans]
    return plans


def _plan(tree: Tree, page: TreePage, pending: Pending | None) -> _Plan:
    nodes = list(page.nodes)
    operation, line = NO_OPERATION, 0
    if pending is not None:
        operation, line = pending.operation, pending.line
        if operation == INSERT:
            nodes.insert(line, pending.node)
        else:
            nodes[line] = (pending.node[0], pending.node[1], nodes[line][2])
    if page.root:
        return _vertical(tree, page, nodes, operation, line)
    appended = operation == INSERT and line == len(nodes) - 1
    if appended and page.leaf and not page.next:
        plan = _Plan(page, _APPEND, operation, line, nodes, line, new_prefix_line=0)
    else:
        plan = _right(tree, page, nodes, operation, line)
    last, first = plan.nodes[plan.split_line - 1], plan.nodes[plan.split_line]
    if page.leaf:
        plan.separator = separator(tree.bookmark(last[0], last[1]), tree.bookmark(first[0], first[1]))
    else:
        # A branch keeps its last key, which is what bounds it.
        plan.separator = last[0]
    return plan


def _vertical(tree: Tree, page: TreePage, nodes: list[TreeNode], operation: int, line: int) -> _Plan:
    plan = _Plan(page, _VERTICAL, operation, line, nodes, 0)
    if operation and not _fits(page, nodes, b"", tree):
        plan = _Plan(page, _VERTICAL, NO_OPERATION, 0, list(page.nodes), 0)
    plan.new_prefix_line = _best_prefix(plan.nodes)
    if not _fits(page, plan.nodes, plan.prefix_of_new, tree):
        plan.new_prefix_line = _NO_LINE
    return plan


def _right(tree: Tree, page: TreePage, nodes: list[TreeNode], operation: int, line: int) -> _Plan:
    """Split where both pages become equally full."""
    for operated in (True, False) if operation else (False,):
        some = nodes if operated else list(page.nodes)
        sizes = [len(key) + len(data) for key, data, _ in some]
        half, at, total = sum(sizes) / 2, 1, sizes[0]
        while at < len(some) - 1 and total + sizes[at] / 2 < half:
            total += sizes[at]
            at += 1
        for place in sorted(range(1, len(some)), key=lambda place: abs(place - at)):
            # A pointer and the one behind it, which the split changes, may lie on both sides.
            plan = _Plan(page, _RIGHT, operation if operated else NO_OPERATION, line if operated else 0, some, place)
            left, right = some[:place], some[place:]
            plan.split_prefix_line, plan.new_prefix_line = _best_prefix(left), _best_prefix(right)
            if not _fits(page, left, plan.prefix_of_split, tree):
                plan.split_prefix_line = _NO_LINE
            if not _fits(page, right, plan.prefix_of_new, tree):
                plan.new_prefix_line = _NO_LINE
            fit_left = _fits(page, left, plan.prefix_of_split, tree)
            if fit_left and _fits(page, right, plan.prefix_of_new, tree):
                return plan
    raise AssertionError(f"page {page.number} cannot be split")


def _best_prefix(nodes: list[TreeNode]) -> int:
    """The line whose key saves more bytes as a prefix than it takes, of a few that are tried."""
    best, saved = _NO_LINE, 0
    for line in {0, len(nodes) // 2, len(nodes) - 1}:
        prefix = nodes[line][0]
        saves = sum(max(0, shared_length(key, prefix) - 2) for key, _, _ in nodes) - len(prefix)
        if saves > saved:
            best, saved = line, saves
    return best


def _fits(page: TreePage, nodes: list[TreeNode], prefix: bytes, tree: Tree) -> bool:
    trial = TreePage(0, page.size, 0, flags=page.flags & ~ROOT, external=prefix, nodes=nodes)
    return trial.free >= (tree.reserved_on(trial) if page.leaf else 0)


@dataclass(slots=True)
class _Macro:
    """One macro: the splits of a path, and the operation in the leaf."""

    tree: Tree
    session: Session
    plans: list[_Plan]
    parent: tuple[TreePage, int] | None
    """The page above the topmost split, which gets a pointer."""
    path: Path
    pending: Pending | None
    dbtime: int = 0
    touched: list[int] = field(default_factory=list)

    def perform(self) -> None:
        """Log everything, then change the pages."""
        actor, store = self.session.actor, self.tree.store
        self.dbtime = store.next_dbtime()
        records = [log.macro_begin(actor.process, self.dbtime)]
        if self.parent is not None:
            records.append(self._parent_record(self.parent))
        records += [self._record(index) for index in range(len(self.plans))]
        if self.pending is not None and self._leaf_is_operated():
            records.append(self._operation_record(self.pending))
        for record in records:
            store.log(record)
        end = log.macro_commit(actor.process, self.dbtime)
        place = store.append_together(end, log.macro_pages(store.dbid, self.touched))
        self._apply(place)

    def _leaf_is_operated(self) -> bool:
        return self.plans[-1].page.leaf and self.plans[-1].operation != NO_OPERATION

    def _target(
        self, page: TreePage, line: int = 0, before: int | None = None, *, versioned: bool = False
    ) -> PageTarget:
        flags = self.tree.record_flags(versioned=versioned)
        known = page.dbtime if before is None else before
        return PageTarget(self.tree.store.dbid, page.number, self.dbtime, known, line, flags)

    def _parent_record(self, parent: tuple[TreePage, int]) -> bytes:
        page, line = parent
        above = self._above(page)
        self.touched.append(page.number)
        body = Split(
            self.tree.root,
            self.tree.objid,
            parent=above.number if above else 0,
            parent_before=above.dbtime if above else log.DBTIME_NONE,
            operation_line=line,
        )
        return log.split(self.session.actor, self._target(page), body)

    def _above(self, page: TreePage) -> TreePage | None:
        index = _index_of(self.path, page)
        return self.path[index - 1][0] if index else None

    def _record(self, index: int) -> bytes:
        plan = self.plans[index]
        page = plan.page
        above = self._above(page)
        right = self.tree.store.file.page(page.next) if page.leaf and page.next else None
        image = page.content(compact=True) if self._moves_nodes(plan) else b""
        split_flags, new_flags = _flags(plan)
        self.touched += [page.number, plan.new] + ([right.number] if right else [])
        body = Split(
            root=self.tree.root,
            objid=self.tree.objid,
            parent=above.number if above else 0,
            parent_before=above.dbtime if above else log.DBTIME_NONE,
            new=plan.new,
            right=right.number if right else 0,
            right_before=right.dbtime if right else log.DBTIME_NONE,
            kind=plan.kind,
            operation=plan.operation,
            operation_line=plan.line,
            split_line=plan.split_line,
            lines=len(plan.nodes),
            new_flags=new_flags,
            split_flags=split_flags,
            prefix_lines=(plan.split_prefix_line, plan.new_prefix_line),
            separator=plan.separator,
            old_prefix=page.prefix,
            new_prefix=plan.prefix_of_split,
            before_image=image,
            image_flags=_DEHYDRATED if image else 0,
        )
        return log.split(self.session.actor, self._target(page), body)

    @staticmethod
    def _moves_nodes(plan: _Plan) -> bool:
        """Whether nodes that only this page has go to the new one: redo may need them when it has them no more."""
        if plan.kind == _APPEND:
            return False
        only_new = plan.split_line == plan.line == len(plan.nodes) - 1 and plan.operation == INSERT
        return not only_new

    def _operation_record(self, pending: Pending) -> bytes:
        page, tree, actor = self.plans[-1].page, self.tree, self.session.actor
        at = self._target(page, pending.line, log.DBTIME_NONE, versioned=pending.version is not None)
        of = tree.node_target(pending.version.number if pending.version else 0)
        key, data, _ = pending.node
        if pending.operation == REPLACE:
            return replace_record(actor, at, of, page.nodes[pending.line][1], data)
        return log.insert(actor, at, of, key, data, shared=shared_length(key, page.prefix))

    def _apply(self, place: int) -> None:
        changed: list[TreePage] = []
        if self.parent is not None:
            page, line = self.parent
            plan = self.plans[0]
            page.insert(line, (plan.separator, plan.page.number.to_bytes(4, "little"), 0))
            _point_to(page, line + 1, plan.new)
            changed.append(page)
        for index, plan in enumerate(self.plans):
            if index + 1 < len(self.plans):
                key, _, flags = plan.nodes[plan.line + 1]
                plan.nodes[plan.line + 1] = (key, self.plans[index + 1].new.to_bytes(4, "little"), flags)
            changed += self._divide(plan)
        for page in changed:
            page.dbtime = self.dbtime
            self.tree.store.file.changed(page, place, self.session.begun_at)

    def _divide(self, plan: _Plan) -> list[TreePage]:
        page, store = plan.page, self.tree.store.file
        split_flags, new_flags = _flags(plan)
        moved = plan.nodes[plan.split_line :]
        new = TreePage(
            plan.new,
            page.size,
            page.objid,
            flags=new_flags,
            dbtime=self.dbtime,
            external=plan.prefix_of_new,
            nodes=moved,
        )
        store.put(new)
        if plan.kind == _VERTICAL:
            page.flags = split_flags
            page.refill([(b"", plan.new.to_bytes(4, "little"), 0)])
            return [page, new]
        if plan.kind == _RIGHT:
            page.external = plan.prefix_of_split
        page.refill(plan.nodes[: plan.split_line])
        if not page.leaf:
            return [page, new]
        new.previous, new.next = page.number, page.next
        page.next = new.number
        if not new.next:
            return [page, new]
        right = store.page(new.next)
        right.previous = new.number
        return [page, new, right]


def _flags(plan: _Plan) -> tuple[int, int]:
    """Flags of the split page and of the new one."""
    flags = plan.page.flags
    if plan.kind != _VERTICAL:
        return flags, flags
    above = flags | PARENT_OF_LEAF if flags & LEAF else flags & ~PARENT_OF_LEAF
    return above & ~LEAF, flags & ~ROOT


def _point_to(page: TreePage, line: int, child: int) -> None:
    key, _, flags = page.nodes[line]
    page.replace(line, (key, child.to_bytes(4, "little"), flags))

"""Cleaning up: nodes that nobody needs any more are removed, and pages that have become empty enough are merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.testing.information_store import page_records as log
from perdure.testing.information_store.page_records import Merge, PageTarget
from perdure.testing.information_store.tree_pages import DELETED, EMPTY, TreeNode, TreePage
from perdure.testing.information_store.tree_paths import Path
from perdure.testing.information_store.versions import Session

if TYPE_CHECKING:
    from perdure.testing.information_store.trees import Tree

__all__ = ["clean_up"]

_EMPTY_PAGE, _FULL_RIGHT = 1, 2
_DELETE_NODE, _EMPTIED = 2, 4
_DEHYDRATED = 1
_WORTHWHILE = 0.35
"""A page that is less full than this is merged into the one to its right if that has room."""

_MOST_AFTER = 0.8


def clean_up(tree: Tree, session: Session, bookmark: bytes) -> None:
    """Remove a node that is flagged as deleted, and merge its page if that is worthwhile.

    Does nothing if the node is needed again, or gone already.
    """
    if bookmark in tree.locks:
        return
    path = tree.descend(bookmark)
    page, line = path[-1]
    if tree.is_on(page, bookmark) is None or not page.nodes[line][2] & DELETED:
        return
    if len(page.nodes) > 1 or page.root:
        tree.remove(session, page, line)
        if not page.root and page.used < page.size * _WORTHWHILE:
            _merge_right(tree, session, path)
    elif not _has_locks(tree, page):
        _drop_empty(tree, session, path)


def _has_locks(tree: Tree, page: TreePage) -> bool:
    return any(tree.is_on(page, bookmark) is not None for bookmark in tree.locks)


def _merge_right(tree: Tree, session: Session, path: Path) -> None:
    """Move what is left of a page to the next one, if both have the same parent and no transaction is at work."""
    page, parent, line = path[-1][0], path[-2][0], path[-2][1]
    if not page.next or line == len(parent.nodes) - 1 or _has_locks(tree, page):
        return
    right = tree.store.file.page(page.next)
    moved = [node for node in page.nodes if not node[2] & DELETED]
    needed = sum(right.cost(key, data) for key, data, _ in moved)
    if right.used + needed > right.size * _MOST_AFTER or needed > right.free - tree.reserved_on(right):
        return
    _Merging(tree, session, path, _FULL_RIGHT, moved).perform()


def _drop_empty(tree: Tree, session: Session, path: Path) -> None:
    """Take a page out of its tree whose only node is flagged as deleted.

    The page stays if its parent would become empty, or would have another last key, which its own parent bounds it by.
    """
    parent, line = path[-2]
    last = line == len(parent.nodes) - 1
    if len(parent.nodes) == 1 or (last and parent.nodes[line][0]):
        return
    _Merging(tree, session, path, _EMPTY_PAGE, []).perform()


class _Merging:
    """One merge: a leaf goes, its siblings and its parent change."""

    def __init__(self, tree: Tree, session: Session, path: Path, kind: int, moved: list[TreeNode]) -> None:
        self.tree, self.session, self.kind, self.moved = tree, session, kind, moved
        self.page, self.line = path[-1]
        self.parent, self.parent_line = path[-2]
        self.above = path[-3][0] if len(path) > 2 else None
        store = tree.store.file
        self.left = store.page(self.page.previous) if self.page.previous else None
        self.right = store.page(self.page.next) if self.page.next else None

    def perform(self) -> None:
        """Log the macro, change the pages, give the emptied one back."""
        store, actor = self.tree.store, self.session.actor
        dbtime = store.next_dbtime()
        store.log(log.macro_begin(actor.process, dbtime))
        store.log(log.merge(actor, self._target(self.parent, dbtime, self.parent_line), self._parent_body()))
        store.log(log.merge(actor, self._target(self.page, dbtime, self.line), self._leaf_body()))
        changed = [page for page in (self.parent, self.page, self.left, self.right) if page is not None]
        touched = [page.number for page in changed]
        end = log.macro_commit(actor.process, dbtime)
        place = store.append_together(end, log.macro_pages(store.dbid, touched))
        self._apply()
        for page in changed:
            page.dbtime = dbtime
            store.file.changed(page, place, self.session.begun_at)
        self.tree.pages.free(self.session, self.page.number)

    def _target(self, page: TreePage, dbtime: int, line: int) -> PageTarget:
        flags = self.tree.record_flags(versioned=False, system=self.session.system)
        return PageTarget(self.tree.store.dbid, page.number, dbtime, page.dbtime, line, flags)

    def _parent_body(self) -> Merge:
        return Merge(
            self.tree.root,
            self.tree.objid,
            parent=self.above.number if self.above else 0,
            parent_before=self.above.dbtime if self.above else log.DBTIME_NONE,
            flags=_DELETE_NODE,
        )

    def _leaf_body(self) -> Merge:
        image = self.page.content(compact=True) if self.kind == _FULL_RIGHT else b""
        size = sum(self.page.cost(key, data) for key, data, _ in self.moved)
        return Merge(
            root=self.tree.root,
            objid=self.tree.objid,
            right=self.right.number if self.right else 0,
            right_before=self.right.dbtime if self.right else log.DBTIME_NONE,
            left=self.left.number if self.left else 0,
            left_before=self.left.dbtime if self.left else log.DBTIME_NONE,
            parent=self.parent.number,
            parent_before=self.parent.dbtime,
            sizes=(size, size),
            flags=_EMPTIED,
            kind=self.kind,
            separator=self._separator(),
            before_image=image,
            image_flags=_DEHYDRATED if image else 0,
        )

    def _separator(self) -> bytes:
        """The key that the parent ends with now, if its last pointer goes."""
        last = self.parent_line == len(self.parent.nodes) - 1
        return self.parent.nodes[self.parent_line - 1][0] if last else b""

    def _apply(self) -> None:
        if self.kind == _FULL_RIGHT:
            assert self.right is not None
            self.right.refill([*self.moved, *self.right.nodes])
        self.page.refill([])
        self.page.flags |= EMPTY
        if self.left is not None:
            self.left.next = self.page.next
        if self.right is not None:
            self.right.previous = self.page.previous
        self.page.previous = self.page.next = 0
        without_bound = self.parent_line == len(self.parent.nodes) - 1
        self.parent.delete(self.parent_line)
        if without_bound:
            _, child, flags = self.parent.nodes[-1]
            self.parent.replace(len(self.parent.nodes) - 1, (b"", child, flags))

"""B+ trees: every change is logged, applied to the page in memory, and can be taken back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from perdure.testing.information_store import log_records as log
from perdure.testing.information_store.log_records import NodeTarget, Operation, PageTarget, RecordFlag
from perdure.testing.information_store.merging import clean_up
from perdure.testing.information_store.paged_file import PagedFile
from perdure.testing.information_store.replacing import replace_record
from perdure.testing.information_store.splitting import split
from perdure.testing.information_store.tree_pages import (
    BY_BOOKMARK,
    BY_KEY,
    DELETED,
    LEAF,
    SPACE,
    TreeNode,
    TreePage,
    child_of,
    shared_length,
)
from perdure.testing.information_store.tree_paths import INSERT, REPLACE, Path, Pending
from perdure.testing.information_store.versions import Session, Version, WriteConflict

__all__ = ["KeyDuplicate", "KeyNotFound", "PageSource", "Tree", "TreeStore"]


class KeyDuplicate(Exception):
    """The tree has the key already."""


class KeyNotFound(Exception):
    """The tree does not have the key."""


class PageSource(Protocol):
    """Where a tree gets its pages from."""

    def allocate(self, session: Session) -> int:
        """A page that nobody uses; what gives it is logged."""

    def free(self, session: Session, page: int) -> None:
        """Give a page back."""


@dataclass(eq=False, repr=False)
class TreeStore:
    """What all trees of a database share.

    Args:
        file: Its pages.
        log: Adds a record to the log and gives its place.
        append_together: Adds two records of the same generation.
        dbid: The database's number in the log.
        next_version: A new version number.
    """

    file: PagedFile
    log: Callable[[bytes], int]
    append_together: Callable[[bytes, bytes], int]
    dbid: int
    next_version: Callable[[], int]
    unlogged_before: dict[int, Version] = field(default_factory=dict)
    """Uncommitted replaces whose data before is not in the log, by version."""

    reserving: dict[int, Tree] = field(default_factory=dict)
    """Trees in which a rollback may need space, by object number."""

    def reserved_on(self, page: TreePage) -> int:
        """Bytes of a page that rollbacks may need."""
        tree = self.reserving.get(page.objid)
        return tree.reserved_on(page) if tree is not None and page.leaf and not page.flags & SPACE else 0

    def next_dbtime(self) -> int:
        """The next count of changes."""
        self.file.fields.dbtime += 1
        return self.file.fields.dbtime


@dataclass(eq=False, repr=False)
class Tree:
    """One tree.

    Args:
        store: Its database.
        root: Its root page.
        objid: Its object number.
        unique: Whether a key alone names a node.
        pages: Where it gets pages from.
        space: Whether it is a tree of extents.
    """

    store: TreeStore
    root: int
    objid: int
    pages: PageSource
    unique: bool = True
    space: bool = False
    locks: dict[bytes, Session] = field(default_factory=dict)
    reserves: dict[bytes, int] = field(default_factory=dict)
    """Bytes that the rollback of a replace may need, by bookmark."""

    def __post_init__(self) -> None:
        self._order = BY_KEY if self.unique else BY_BOOKMARK
        self._flags = (RecordFlag.UNIQUE if self.unique else 0) | (RecordFlag.SPACE if self.space else 0)

    def bookmark(self, key: bytes, data: bytes) -> bytes:
        """What orders a node."""
        return key if self.unique else key + data

    def descend(self, bookmark: bytes) -> Path:
        """The way to the leaf that has, or would get, a bookmark; the last line is where that is."""
        page = self.store.file.page(self.root)
        path: Path = []
        while not page.flags & LEAF:
            nodes = page.nodes
            # The last node has no upper bound, or that of the page itself.
            line = bisect_right(nodes, bookmark, 0, len(nodes) - 1, key=BY_KEY)
            path.append((page, line))
            page = self.store.file.page(child_of(nodes[line]))
        path.append((page, bisect_left(page.nodes, bookmark, key=self._order)))
        return path

    def find(self, bookmark: bytes) -> tuple[TreePage, int]:
        """Leaf and line of a node, a flagged one too.

        Raises:
            KeyNotFound: There is none.
        """
        page, line = self.descend(bookmark)[-1]
        if not self._is_at(page, line, bookmark):
            raise KeyNotFound(bookmark.hex())
        return page, line

    def get(self, key: bytes) -> bytes | None:
        """The data of a key of a unique tree, ``None`` if it is not there."""
        page, line = self.descend(key)[-1]
        if self._is_at(page, line, key) and not page.nodes[line][2] & DELETED:
            return page.nodes[line][1]
        return None

    def scan(self, start: bytes = b"") -> Iterator[TreeNode]:
        """Every node from a key on that is not flagged; the tree must not change meanwhile."""
        page, line = self.descend(start)[-1]
        while True:
            yield from (node for node in page.nodes[line:] if not node[2] & DELETED)
            if not page.next:
                return
            page, line = self.store.file.page(page.next), 0

    def insert(self, session: Session, key: bytes, data: bytes) -> None:
        """Add a node.

        Raises:
            KeyDuplicate: It is there.
            WriteConflict: Another transaction works on it.
        """
        bookmark = self.bookmark(key, data)
        self._refuse_others(session, bookmark)
        while True:
            path = self.descend(bookmark)
            page, line = path[-1]
            if self._is_at(page, line, bookmark):
                if not page.nodes[line][2] & DELETED:
                    raise KeyDuplicate(bookmark.hex())
                if self._insert_again(session, path, key, data):
                    return
            elif page.cost(key, data) <= page.free - self.reserved_on(page):
                version = self._version(session, bookmark, key, data, Operation.INSERT)
                self._insert(session, page, line, (key, data), version)
                return
            else:
                version = self._version(session, bookmark, key, data, Operation.INSERT)
                if self._split(session, path, Pending(INSERT, line, (key, data, 0), version)):
                    return
                self._forget(session, version)

    def replace(self, session: Session, key: bytes, data: bytes) -> None:
        """Give a key of a unique tree other data.

        Raises:
            KeyNotFound: It is not there.
            WriteConflict: Another transaction works on it.
        """
        self._refuse_others(session, key)
        while True:
            path = self.descend(key)
            page, line = path[-1]
            if not self._is_at(page, line, key) or page.nodes[line][2] & DELETED:
                raise KeyNotFound(key.hex())
            old = page.nodes[line][1]
            version = self._version(session, key, key, b"", Operation.REPLACE)
            version.before, version.after_size = old, len(data)
            grows = len(data) - len(old)
            if grows <= 0 or grows <= page.free - self.reserved_on(page):
                self._replace(session, page, line, data, version)
                return
            if self._split(session, path, Pending(REPLACE, line, (key, data, 0), version)):
                self._noted_replace(version, self.find(key)[0])
                return
            self._forget(session, version)

    def flag_delete(self, session: Session, key: bytes, data: bytes = b"") -> None:
        """Flag a node as deleted; it goes when its transaction has ended.

        Raises:
            KeyNotFound: It is not there.
            WriteConflict: Another transaction works on it.
        """
        bookmark = self.bookmark(key, data)
        self._refuse_others(session, bookmark)
        page, line = self.find(bookmark)
        if page.nodes[line][2] & DELETED:
            raise KeyNotFound(bookmark.hex())
        version = self._version(session, bookmark, key, data, Operation.FLAG_DELETE)
        at = self.target(page, line, RecordFlag.VERSIONED)
        self.apply(session, page, log.flag_delete(session.actor, at, self.node_target(version.number)), at.dbtime)
        page.flag(line, page.nodes[line][2] | DELETED)
        # Its record does not name the node, so once the page is written only an UndoInfo record can.
        version.page = page.number
        self.store.unlogged_before[version.number] = version

    def add(self, session: Session, key: bytes, change: int, offset: int = 0) -> int:
        """Add to the 32-bit number at an offset of a key's data.

        Returns:
            The sum.
        """
        self._refuse_others(session, key)
        page, line = self.find(key)
        version = self._version(session, key, key, b"", Operation.DELTA)
        version.change, version.offset = change, offset
        at = self.target(page, line, RecordFlag.VERSIONED)
        record = log.delta(session.actor, at, self.node_target(version.number), key, change=change, offset=offset)
        self.apply(session, page, record, at.dbtime)
        return _add(page, line, change, offset)

    def take_back(self, session: Session, version: Version) -> None:
        """Undo one change, and log that."""
        page, line = self.find(version.bookmark)
        if version.operation in (Operation.REPLACE, Operation.FLAG_DELETE) and not version.logged_before:
            self.log_before(session, version, page, line)
        at = self.target(page, line)
        bookmark = (version.key, version.key_data)
        record = log.undo(session.actor, at, self.node_target(version.number), bookmark, version.operation)
        self.apply(session, page, record, at.dbtime)
        flags = page.nodes[line][2]
        match version.operation:
            case Operation.INSERT:
                page.flag(line, flags | DELETED)
            case Operation.FLAG_DELETE:
                page.flag(line, flags & ~DELETED)
            case Operation.REPLACE:
                page.replace(line, (version.key, version.before, flags))
            case Operation.DELTA:
                _add(page, line, -version.change, version.offset)

    def release(self, session: Session, version: Version) -> None:
        """Nobody waits for the change any more."""
        self.store.unlogged_before.pop(version.number, None)
        if session.level == 0 or not self._holds(session, version.bookmark):
            self.locks.pop(version.bookmark, None)
            self.reserves.pop(version.bookmark, None)

    def log_before(self, session: Session, version: Version, page: TreePage, line: int) -> None:
        """Log what takes an uncommitted replace or flagged delete back, because its page is to be written."""
        before = version.before
        at = PageTarget(
            self.store.dbid, page.number, log.DBTIME_NONE, log.DBTIME_NONE, line, self._flags & RecordFlag.UNIQUE
        )
        sizes = (max(len(before), version.after_size), len(before) - version.after_size)
        target = self.node_target(version.number)
        bookmark = (version.key, version.key_data)
        record = log.undo_info(session.actor, at, target, bookmark, before, sizes=sizes, operation=version.operation)
        # The page may be written only when this is durable, too.
        page.last_place = max(page.last_place, self.store.log(record))
        version.logged_before = True
        self.store.unlogged_before.pop(version.number, None)

    def clean_up(self, session: Session, bookmark: bytes) -> None:
        """Remove a node that is flagged as deleted, and merge its page if that is worthwhile."""
        clean_up(self, session, bookmark)

    def insert_unversioned(self, session: Session, key: bytes, data: bytes) -> None:
        """Add a node that no rollback takes away: of a tree of extents."""
        while True:
            path = self.descend(self.bookmark(key, data))
            page, line = path[-1]
            if self._is_at(page, line, key):
                self._remove(session, page, line)
            elif page.cost(key, data) <= page.free:
                self._insert(session, page, line, (key, data), None)
                return
            elif self._split(session, path, Pending(INSERT, line, (key, data, 0), None)):
                return

    def replace_unversioned(self, session: Session, key: bytes, data: bytes) -> None:
        """Give a node other data of the same size, which no rollback takes back."""
        page, line = self.find(key)
        self._replace(session, page, line, data, None)

    def delete_unversioned(self, session: Session, key: bytes) -> None:
        """Remove a node: it is flagged, and goes at once."""
        page, line = self.find(key)
        at = self.target(page, line)
        self.apply(session, page, log.flag_delete(session.actor, at, self.node_target()), at.dbtime)
        page.flag(line, DELETED)
        self._remove(session, page, line)

    def set_external(self, session: Session, page: TreePage, content: bytes) -> None:
        """Change the external header of a page of this tree."""
        at = self.target(page)
        self.apply(session, page, log.external_header(session.actor, at, self.node_target(), content), at.dbtime)
        page.external = content

    def reserved_on(self, page: TreePage) -> int:
        """Bytes of a leaf that rollbacks may need."""
        if not self.reserves:
            return 0
        return sum(
            size
            for bookmark, size in self.reserves.items()
            if self._is_at(page, bisect_left(page.nodes, bookmark, key=self._order), bookmark)
        )

    def is_on(self, page: TreePage, bookmark: bytes) -> int | None:
        """The line of a bookmark on a leaf, ``None`` if it is on another."""
        line = bisect_left(page.nodes, bookmark, key=self._order)
        return line if self._is_at(page, line, bookmark) else None

    def target(self, page: TreePage, line: int = 0, flags: int = 0) -> PageTarget:
        """The next change of a page."""
        return PageTarget(
            self.store.dbid, page.number, self.store.next_dbtime(), page.dbtime, line, self._flags | flags
        )

    def node_target(self, version: int = 0) -> NodeTarget:
        """Which tree a change belongs to."""
        return NodeTarget(self.root, self.objid, version)

    def record_flags(self, *, versioned: bool, system: bool = False) -> int:
        """Flags of a record about this tree."""
        flags = self._flags | (RecordFlag.VERSIONED if versioned else 0)
        return flags | (RecordFlag.SYSTEM_TASK if system else 0)

    def apply(self, session: Session, page: TreePage, record: bytes, dbtime: int) -> None:
        """Log a change of one page."""
        place = self.store.log(record)
        page.dbtime = dbtime
        self.store.file.changed(page, place, session.begun_at)

    def remove(self, session: Session, page: TreePage, line: int) -> None:
        """Remove a node that is flagged as deleted."""
        self._remove(session, page, line)

    def _is_at(self, page: TreePage, line: int, bookmark: bytes) -> bool:
        return line < len(page.nodes) and self._order(page.nodes[line]) == bookmark

    def _refuse_others(self, session: Session, bookmark: bytes) -> None:
        if self.locks.get(bookmark, session) is not session:
            raise WriteConflict(bookmark.hex())

    def _version(self, session: Session, bookmark: bytes, key: bytes, data: bytes, operation: int) -> Version:
        key_data = b"" if self.unique else data
        version = Version(self.store.next_version(), self, bookmark, key, key_data, operation, session.actor.level)
        session.versions.append(version)
        self.locks[bookmark] = session
        return version

    def _forget(self, session: Session, version: Version) -> None:
        """The change was not done."""
        session.versions.remove(version)
        if not self._holds(session, version.bookmark):
            del self.locks[version.bookmark]

    def _holds(self, session: Session, bookmark: bytes) -> bool:
        return any(other.bookmark == bookmark and other.tree is self for other in session.versions)

    def _insert(
        self, session: Session, page: TreePage, line: int, node: tuple[bytes, bytes], version: Version | None
    ) -> None:
        key, data = node
        at = self.target(page, line, RecordFlag.VERSIONED if version else 0)
        shared = shared_length(key, page.prefix)
        target = self.node_target(version.number if version else 0)
        self.apply(session, page, log.insert(session.actor, at, target, key, data, shared=shared), at.dbtime)
        page.insert(line, (key, data, 0))

    def _insert_again(self, session: Session, path: Path, key: bytes, data: bytes) -> bool:
        """Insert over a node that is flagged as deleted; whether that was done, else the page was split."""
        page, line = path[-1]
        old = page.nodes[line][1]
        bookmark = self.bookmark(key, data)
        if len(data) - len(old) > page.free - self.reserved_on(page):
            self._split(session, path, None)
            return False
        version = self._version(session, bookmark, key, data, Operation.INSERT)
        at = self.target(page, line, RecordFlag.VERSIONED)
        if self.unique:
            replaced = self._version(session, bookmark, key, data, Operation.REPLACE)
            replaced.before, replaced.after_size = old, len(data)
            self._noted_replace(replaced, page)
            record = log.flag_insert_and_replace(
                session.actor, at, self.node_target(version.number), key, data, replaced=replaced.number
            )
        else:
            record = log.flag_insert(session.actor, at, self.node_target(version.number), key, data)
        self.apply(session, page, record, at.dbtime)
        page.replace(line, (key, data, 0))
        return True

    def _replace(self, session: Session, page: TreePage, line: int, data: bytes, version: Version | None) -> None:
        key, old, flags = page.nodes[line]
        at = self.target(page, line, RecordFlag.VERSIONED if version else 0)
        target = self.node_target(version.number if version else 0)
        self.apply(session, page, replace_record(session.actor, at, target, old, data), at.dbtime)
        page.replace(line, (key, data, flags))
        if version:
            self._noted_replace(version, page)

    def _noted_replace(self, version: Version, page: TreePage) -> None:
        version.page = page.number
        self.store.unlogged_before[version.number] = version
        shrinks = len(version.before) - version.after_size
        if shrinks > 0:
            self.reserves[version.bookmark] = self.reserves.get(version.bookmark, 0) + shrinks
            self.store.reserving[self.objid] = self

    def _remove(self, session: Session, page: TreePage, line: int) -> None:
        flags = RecordFlag.SYSTEM_TASK if session.system else 0
        at = self.target(page, line, flags)
        self.apply(session, page, log.delete(session.actor, at, self.node_target()), at.dbtime)
        page.delete(line)

    def _split(self, session: Session, path: Path, pending: Pending | None) -> bool:
        return split(self, session, path, pending)


def _add(page: TreePage, line: int, change: int, offset: int) -> int:
    key, data, flags = page.nodes[line]
    total = int.from_bytes(data[offset : offset + 4], "little", signed=True) + change
    changed = data[:offset] + total.to_bytes(4, "little", signed=True) + data[offset + 4 :]
    page.replace(line, (key, changed, flags))
    return total

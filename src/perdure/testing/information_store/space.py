"""Space of trees: which pages each owns and which of them are free, kept in the database as the engine keeps it.

A small tree has one extent behind its root, and a bit for every page of it. A tree that needs more has two trees of
extents, of those it owns and of those that are available, which get their own pages from a small reserve, the *split
buffer* in the external header of their roots. A tree gets extents from the tree above it, the database itself from the
end of the file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from perdure.testing.information_store import log_records as log
from perdure.testing.information_store.log_records import PageTarget
from perdure.testing.information_store.tree_pages import LEAF, ROOT, SPACE, STORED_FLAGS, TreePage
from perdure.testing.information_store.trees import Tree, TreeStore
from perdure.testing.information_store.versions import Session

__all__ = ["DatabaseSpace", "TreeSpace", "create_tree"]

_HEADER = struct.Struct("<iIII")
_MULTIPLE, _NOT_UNIQUE = 1, 2
_BITS = 32
_BUFFER = struct.Struct("<IiIi")
_RESERVE, _RESERVE_BELOW = 8, 4
_SPACE_OF_KIND = 0xFF0
_FIRST_SECONDARY, _LARGEST_SECONDARY = 8, 512
_EIGHTH = 8


@dataclass(eq=False, repr=False)
class _SplitBuffer:
    """Where a tree of extents gets its own pages from."""

    store: TreeStore
    root: int
    tree: Tree | None = None

    def extents(self) -> list[tuple[int, int]]:
        """Last page and count of both."""
        one, count, other, more = _BUFFER.unpack(self.store.file.page(self.root).external)
        return [(one, count), (other, more)]

    @property
    def count(self) -> int:
        return sum(count for _, count in self.extents())

    def allocate(self, session: Session) -> int:
        """The first page of the reserve."""
        extents = self.extents()
        which = 0 if extents[0][1] else 1
        last, count = extents[which]
        assert count, "the reserve of a tree of extents is used up"
        extents[which] = (last, count - 1)
        self._store(session, extents)
        return last - count + 1

    def free(self, session: Session, page: int) -> None:
        """Trees of extents do not give pages back."""

    def add(self, session: Session, last: int, count: int) -> None:
        """Put an extent into the reserve."""
        extents = self.extents()
        which = 0 if not extents[0][1] else 1
        assert not extents[which][1], "the reserve of a tree of extents is full"
        extents[which] = (last, count)
        self._store(session, extents)

    def _store(self, session: Session, extents: list[tuple[int, int]]) -> None:
        assert self.tree is not None
        content = _BUFFER.pack(*extents[0], *extents[1])
        self.tree.set_external(session, self.store.file.page(self.root), content)


def _extent_tree(store: TreeStore, root: int, objid: int) -> tuple[Tree, _SplitBuffer]:
    buffer = _SplitBuffer(store, root)
    buffer.tree = Tree(store, root, objid, buffer, space=True)
    return buffer.tree, buffer


@dataclass(eq=False, repr=False)
class TreeSpace:
    """The space of one tree.

    Args:
        store: The database.
        tree_root: Root page of the tree.
        objid: Of the tree.
        parent: Where it gets extents from; the database's own space has none.
    """

    store: TreeStore
    tree_root: int
    objid: int
    parent: TreeSpace | None
    _trees: tuple[tuple[Tree, _SplitBuffer], tuple[Tree, _SplitBuffer]] | None = None
    _reserving: bool = field(default=False)

    def allocate(self, session: Session) -> int:
        """A page that nobody uses."""
        primary, above, flags, available = self._header()
        if not flags & _MULTIPLE:
            if available:
                bit = (available & -available).bit_length() - 1
                self._set_header(session, primary, above, flags, available & ~(1 << bit))
                return self.tree_root + 1 + bit
            self._convert(session)
        return self._take(session, 1)

    def free(self, session: Session, page: int) -> None:
        """Give a page back to this tree."""
        primary, above, flags, available = self._header()
        if not flags & _MULTIPLE:
            bit = page - self.tree_root - 1
            self._set_header(session, primary, above, flags, available | 1 << bit)
            return
        self._add_available(session, page, 1)

    def take_extent(self, session: Session, count: int) -> int:
        """Pages behind each other for a tree below this one.

        Returns:
            The first of them.
        """
        if not self._header()[2] & _MULTIPLE:
            self._convert(session)
        return self._take(session, count)

    def owned_pages(self) -> int:
        """How many pages the tree owns, those of trees below it included."""
        primary, _, flags, _ = self._header()
        if not flags & _MULTIPLE:
            return primary
        return sum(int.from_bytes(data, "little") for _, data, _ in self._owned()[0].scan())

    def extents(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
        """Owned extents, available ones, and those in reserve for the trees of extents, as first page and count."""
        primary, _, flags, available = self._header()
        if not flags & _MULTIPLE:
            bits = [(self.tree_root + 1 + bit, 1) for bit in range(_BITS) if available >> bit & 1]
            return [(self.tree_root, primary)], bits, []
        owned, free = (
            [
                (int.from_bytes(key, "big") - int.from_bytes(data, "little") + 1, int.from_bytes(data, "little"))
                for key, data, _ in tree.scan()
            ]
            for tree in (self._owned()[0], self._available()[0])
        )
        buffers = [*self._owned()[1].extents(), *self._available()[1].extents()]
        return owned, free, [(last - count + 1, count) for last, count in buffers if count]

    def space_trees(self) -> tuple[Tree, Tree] | None:
        """The trees of owned and of available extents, ``None`` for a tree with one extent."""
        if not self._header()[2] & _MULTIPLE:
            return None
        return self._owned()[0], self._available()[0]

    def _header(self) -> tuple[int, int, int, int]:
        fields: tuple[int, int, int, int] = _HEADER.unpack(self.store.file.page(self.tree_root).external)
        return fields

    def _set_header(self, session: Session, *fields: int) -> None:
        page = self.store.file.page(self.tree_root)
        own = Tree(self.store, self.tree_root, self.objid, self, unique=not fields[2] & _NOT_UNIQUE)
        own.set_external(session, page, _HEADER.pack(*fields))

    def _both(self) -> tuple[tuple[Tree, _SplitBuffer], tuple[Tree, _SplitBuffer]]:
        if self._trees is None:
            owned = self._header()[3]
            self._trees = (
                _extent_tree(self.store, owned, self.objid),
                _extent_tree(self.store, owned + 1, self.objid),
            )
        return self._trees

    def _owned(self) -> tuple[Tree, _SplitBuffer]:
        return self._both()[0]

    def _available(self) -> tuple[Tree, _SplitBuffer]:
        return self._both()[1]

    def _take(self, session: Session, count: int) -> int:
        """Take pages from the front of the first available extent that is large enough."""
        self._reserve(session)
        available, _ = self._available()
        while True:
            for found, data, _ in available.scan():
                have = int.from_bytes(data, "little")
                if have >= count:
                    key = found
                    break
            else:
                self._grow(session, count)
                continue
            if have > count:
                available.replace_unversioned(session, key, (have - count).to_bytes(4, "little"))
            else:
                available.delete_unversioned(session, key)
            return int.from_bytes(key, "big") - have + 1

    def _grow(self, session: Session, count: int) -> None:
        """Get one more extent from the tree above."""
        assert self.parent is not None
        wanted = max(count, min(_LARGEST_SECONDARY, max(_FIRST_SECONDARY, self.owned_pages() // _EIGHTH)))
        first = self.parent.take_extent(session, wanted)
        self._own(session, first, wanted)
        self._add_available(session, first, wanted)

    def _own(self, session: Session, first: int, count: int) -> None:
        key = (first + count - 1).to_bytes(4, "big")
        self._owned()[0].insert_unversioned(session, key, count.to_bytes(4, "little"))

    def _add_available(self, session: Session, first: int, count: int) -> None:
        """Add pages to the available ones, joined to the extents beside them."""
        available, _ = self._available()
        last = first + count - 1
        behind = next(available.scan((last + 1).to_bytes(4, "big")), None)
        before = available.get((first - 1).to_bytes(4, "big"))
        if before is not None:
            available.delete_unversioned(session, (first - 1).to_bytes(4, "big"))
            more = int.from_bytes(before, "little")
            first, count = first - more, count + more
        if behind is not None:
            key, have = behind[0], int.from_bytes(behind[1], "little")
            if int.from_bytes(key, "big") - have + 1 == last + 1:
                available.replace_unversioned(session, key, (have + count).to_bytes(4, "little"))
                return
        available.insert_unversioned(session, last.to_bytes(4, "big"), count.to_bytes(4, "little"))

    def _convert(self, session: Session) -> None:
        """One extent becomes several: the first two pages of a second one are the trees of extents."""
        assert self.parent is not None
        count = max(_FIRST_SECONDARY, self._header()[0] // 2)
        first = self.parent.take_extent(session, count)
        primary, above, flags, available = self._header()
        page, file = self.store.file.page(self.tree_root), self.store.file
        flags_of_kind = page.flags & _SPACE_OF_KIND | STORED_FLAGS
        dbtime = self.store.next_dbtime()
        record_flags = 0 if flags & _NOT_UNIQUE else log.RecordFlag.UNIQUE
        at = PageTarget(self.store.dbid, page.number, dbtime, page.dbtime, 0, record_flags)
        record = log.convert_tree(
            session.actor,
            at,
            self.objid,
            parent=above,
            second=(first, count),
            primary=primary,
            available=available,
            page_flags=flags_of_kind,
        )
        place = self.store.log(record)
        page.external = _HEADER.pack(primary, above, flags | _MULTIPLE, first)
        page.dbtime = dbtime
        owned = sorted([(self.tree_root + primary - 1, primary), (first + count - 1, count)])
        runs = _runs([self.tree_root + 1 + bit for bit in range(_BITS) if available >> bit & 1])
        free = sorted([(start + size - 1, size) for start, size in runs] + [(first + count - 1, count - 2)])
        for number, extents in ((first, owned), (first + 1, free)):
            new = _extent_root(number, file.page_size, self.objid, flags=flags_of_kind, dbtime=dbtime, extents=extents)
            file.put(new)
            file.changed(new, place, session.begun_at)
        file.changed(page, place, session.begun_at)

    def _reserve(self, session: Session) -> None:
        """See that the trees of extents can be split before they have to be."""
        if self._reserving:
            return
        self._reserving = True
        for tree, buffer in self._both():
            root = self.store.file.page(tree.root)
            if buffer.count < _RESERVE_BELOW and (not root.leaf or root.used > root.size // 2):
                source = self.parent if self.parent is not None else self
                first = source.take_extent(session, _RESERVE)
                if source is not self:
                    self._own(session, first, _RESERVE)
                buffer.add(session, first + _RESERVE - 1, _RESERVE)
        self._reserving = False


@dataclass(eq=False, repr=False)
class DatabaseSpace(TreeSpace):
    """The space of the database itself, which grows the file."""

    extension: int = 256
    """Pages by which the file grows at least."""

    def _grow(self, session: Session, count: int) -> None:
        file = self.store.file
        last = file.last_page
        more = max(count, self.extension, last // 20)
        self.store.log(log.extend_database(self.store.dbid, last + more))
        file.extend(last + more)
        self._own(session, last + 1, more)
        self._add_available(session, last + 1, more)


def create_tree(
    store: TreeStore,
    session: Session,
    objid: int,
    parent: TreeSpace,
    *,
    kind: int = 0,
    unique: bool = True,
    pages: int = 4,
    multiple: bool = False,
) -> tuple[int, TreeSpace]:
    """Make an empty tree.

    Args:
        store: The database.
        session: Who makes it.
        objid: Its object number.
        parent: Where its pages come from.
        kind: Page flags that say what it holds.
        unique: Whether a key alone names a node.
        pages: Of its first extent.
        multiple: Whether it has trees of extents from the beginning.

    Returns:
        Its root page, and its space.
    """
    first = parent.take_extent(session, pages)
    root = make_tree_at(
        store, session, objid, (first, pages), parent.tree_root, kind=kind, unique=unique, multiple=multiple
    )
    return root, TreeSpace(store, root, objid, parent)


def make_tree_at(
    store: TreeStore,
    session: Session,
    objid: int,
    extent: tuple[int, int],
    parent: int,
    *,
    kind: int = 0,
    unique: bool = True,
    multiple: bool = False,
) -> int:
    """Make an empty tree on pages (first, count) that nobody has."""
    first, pages = extent
    file = store.file
    flags = kind | STORED_FLAGS
    dbtime = store.next_dbtime()
    record_flags = log.RecordFlag.UNIQUE if unique else 0
    at = PageTarget(store.dbid, first, dbtime, log.DBTIME_NONE, 0, record_flags)
    stated = 0 if unique else _NOT_UNIQUE
    new: list[TreePage] = []
    if multiple:
        record = log.create_multiple_extent_tree(
            session.actor, at, objid, (first + 1, first + 2), parent=parent, primary=pages, page_flags=flags
        )
        external = _HEADER.pack(pages, parent, stated | _MULTIPLE, first + 1)
        last = first + pages - 1
        free = [(last, pages - 3)] if pages > 3 else []
        new.append(_extent_root(first + 1, file.page_size, objid, flags=flags, dbtime=dbtime, extents=[(last, pages)]))
        new.append(_extent_root(first + 2, file.page_size, objid, flags=flags, dbtime=dbtime, extents=free))
    else:
        record = log.create_single_extent_tree(session.actor, at, objid, parent=parent, primary=pages, page_flags=flags)
        bits = 0xFFFFFFFF if pages > _BITS else (1 << pages - 1) - 1
        external = _HEADER.pack(pages, parent, stated, bits)
    new.append(TreePage(first, file.page_size, objid, flags=flags | ROOT | LEAF, dbtime=dbtime, external=external))
    place = store.log(record)
    for page in new:
        file.put(page)
        file.changed(page, place, session.begun_at)
    return first


def _extent_root(
    number: int, size: int, objid: int, *, flags: int, dbtime: int, extents: list[tuple[int, int]]
) -> TreePage:
    nodes = [(last.to_bytes(4, "big"), count.to_bytes(4, "little"), 0) for last, count in extents]
    return TreePage(
        number, size, objid, flags=flags | ROOT | LEAF | SPACE, dbtime=dbtime, external=bytes(16), nodes=nodes
    )


def _runs(pages: list[int]) -> list[tuple[int, int]]:
    """Single pages as extents."""
    runs: list[tuple[int, int]] = []
    for page in pages:
        if runs and sum(runs[-1]) == page:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((page, 1))
    return runs

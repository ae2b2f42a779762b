"""An audit of a clean database's space: every page is used by exactly one tree, or stated to be free by exactly one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.ese.space import DATABASE_ROOT, database_space, trees_of
from perdure.ese.trees import Tree

__all__ = ["audit_space"]

_BUFFER = struct.Struct("<IiIi")
_MULTIPLE = 1


def audit_space(path: Path) -> list[str]:
    """What is wrong with the space of a clean database, each finding a sentence.

    The trees of a database own its pages in nested extents. A page of a tree, of its trees of extents or of the reserve
    of those must be owned by the tree and must not be available; and no two trees may use a page.
    """
    told: list[str] = []
    users: dict[int, str] = {}
    with Database(path) as database:
        catalog = read_catalog(database)
        spaces = {space.root: space for space in database_space(database, catalog)}
        roots = [("the database", *DATABASE_ROOT)]
        roots += [tree for table in catalog.tables for tree in trees_of(table)]
        free: dict[int, str] = {}
        for name, objid, root in roots:
            space = spaces[root]
            owned = {page for extent in space.owned for page in range(extent.first, extent.last + 1)}
            if max(owned) > database.page_count:
                told.append(f"{name} owns page {max(owned)}, and the file has {database.page_count}")
            for extent in space.available:
                for page in range(extent.first, extent.last + 1):
                    if page in free:
                        told.append(f"page {page} is available to {name} and to {free[page]}")
                    free[page] = name
                    if page not in owned:
                        told.append(f"page {page} is available to {name}, which does not own it")
            for page in _used(database, objid, root):
                if page not in owned:
                    told.append(f"page {page} is used by {name}, which does not own it")
                if page in users:
                    told.append(f"page {page} is used by {name} and by {users[page]}")
                users[page] = name
        told += [f"page {page} is used by {users[page]} and available to {free[page]}" for page in users.keys() & free]
        lost = set(range(1, database.page_count + 1)) - users.keys() - free.keys()
        told += [f"page {page} is neither used nor available" for page in sorted(lost)]
    return told


def _used(database: Database, objid: int, root: int) -> Iterator[int]:
    """Pages of a tree, of its trees of extents, and of the reserve of these."""
    yield from (page.number for page in Tree(database, root, objid).pages())
    _, _, flags, owned = struct.unpack("<iIII", database.page(root).external_header)
    if not flags & _MULTIPLE:
        return
    for extents in (owned, owned + 1):
        yield from (page.number for page in Tree(database, extents, objid).pages())
        one, count, other, more = _BUFFER.unpack(database.page(extents).external_header)
        yield from range(one - count + 1, one + 1) if count else ()
        yield from range(other - more + 1, other + 1) if more else ()

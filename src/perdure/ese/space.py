"""Which pages of a database every tree owns, and which of them it does not use."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from perdure.ese.catalog import Catalog, Table
from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged
from perdure.ese.trees import Tree

__all__ = ["DATABASE_ROOT", "Extent", "Space", "database_space", "space_of", "trees_of"]

DATABASE_ROOT = (1, 1)
"""Object number and root page of the database itself, which owns all pages that no table has."""

_HEADER = struct.Struct("<iIII")
_MULTIPLE = 1
_HAS_SPACE_HEADER = 1


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """Pages behind each other.

    Args:
        first: The first page.
        count: How many.
    """

    first: int
    count: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1


@dataclass(frozen=True, slots=True)
class Space:
    """The space of one tree.

    Args:
        name: What the tree is: a table, ``TABLE / INDEX``, or the long values of a table.
        objid: Its object number.
        root: Page number of its root.
        parent: Root page of the tree that it got its pages from, 0 for the database itself.
        owned: Its pages, in order.
        available: Those of them that it does not use, in order.
    """

    name: str
    objid: int
    root: int
    parent: int
    owned: tuple[Extent, ...]
    available: tuple[Extent, ...]

    @property
    def owned_pages(self) -> int:
        return sum(extent.count for extent in self.owned)

    @property
    def available_pages(self) -> int:
        return sum(extent.count for extent in self.available)


def trees_of(table: Table) -> Iterator[tuple[str, int, int]]:
    """Every tree of a table: what it is, its object number and its root page."""
    yield table.name, table.objid, table.root
    for index in table.indexes:
        if index.root != table.root:
            yield f"{table.name} / {index.name}", index.objid, index.root
    if table.long_values is not None:
        objid, root = table.long_values
        yield f"{table.name} / long values", objid, root


def database_space(database: Database, catalog: Catalog) -> list[Space]:
    """The space of the database itself and of every tree of every table.

    Raises:
        EseDamaged: A space tree is damaged, or names pages that cannot be.
    """
    objid, root = DATABASE_ROOT
    trees = [("the database", objid, root)]
    for table in catalog.tables:
        trees += trees_of(table)
    return [space_of(database, name, objid, root) for name, objid, root in trees]


def space_of(database: Database, name: str, objid: int, root: int) -> Space:
    """The space of one tree.

    Raises:
        EseDamaged: Its space header or its space trees are damaged.
    """
    page = database.page(root)
    header = _space_header(page.external_header)
    if header is None or not page.root:
        raise EseDamaged(
            f"{database.file}: page {root} should be the root of {name}, and has no space header",
            code="ese-space-damaged",
            hint="recover the database from a recovery point",
        )
    primary, parent, flags, place = _HEADER.unpack(header)
    if flags & _MULTIPLE:
        owned = tuple(_extents(database, name, objid, place))
        available = tuple(_extents(database, name, objid, place + 1))
    else:
        free = [root + 1 + bit for bit in range(min(32, max(0, primary - 1))) if place >> bit & 1]
        owned = (Extent(root, max(1, primary)),)
        available = tuple(_joined(free))
    return Space(name, objid, root, parent, owned, available)


def _space_header(external: bytes) -> bytes | None:
    """The space header in what tag 0 of a root points to: all of it, or behind a byte that says what else follows."""
    if len(external) == _HEADER.size:
        return external
    if len(external) > _HEADER.size and external[0] & _HAS_SPACE_HEADER:
        return external[1 : 1 + _HEADER.size]
    return None


def _extents(database: Database, name: str, objid: int, root: int) -> Iterator[Extent]:
    """The extents in a space tree: the key ends with the last page, the data is how many."""
    for node in Tree(database, root, objid).nodes():
        last = int.from_bytes(node.key[-4:], "big")
        count = int.from_bytes(node.data[:4], "little", signed=True)
        if len(node.key) not in (4, 5) or len(node.data) != 4 or count < 0 or count > last:
            raise EseDamaged(
                f"{database.file}: page {root}: the space tree of {name} holds an extent that cannot be "
                f"(key {node.key.hex()}, data {node.data.hex()})",
                code="ese-space-damaged",
                hint="recover the database from a recovery point",
            )
        if count:
            yield Extent(last - count + 1, count)


def _joined(pages: list[int]) -> Iterator[Extent]:
    """Single pages as extents."""
    start = 0
    for index, page in enumerate(pages):
        if index + 1 == len(pages) or pages[index + 1] != page + 1:
            yield Extent(pages[start], index - start + 1)
            start = index + 1

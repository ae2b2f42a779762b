"""A database that the engine has open: its file, its trees, its tables; how it is made and how it is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from perdure.ese.catalog import Table, read_catalog
from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.database import Database
from perdure.ese.pages import PageFlag
from perdure.testing.information_store import log_records as log
from perdure.testing.information_store.catalog import CatalogTrees, describe_table
from perdure.testing.information_store.paged_file import PagedFile
from perdure.testing.information_store.row_format import RowFormat
from perdure.testing.information_store.schema import (
    CATALOG,
    CATALOG_SHADOW,
    OBJECT_IDS,
    SYSTEM_LOCALES,
    TableSchema,
)
from perdure.testing.information_store.space import DatabaseSpace, TreeSpace, create_tree, make_tree_at
from perdure.testing.information_store.tables import StoreTable, chunk_size
from perdure.testing.information_store.trees import Tree, TreeStore
from perdure.testing.information_store.versions import Session

__all__ = ["MountedDatabase"]

_ROOT_OBJID, _OBJECTS_OBJID, _SHADOW_OBJID, _NAMES_OBJID, _ROOTS_OBJID, _IDS_OBJID, _LOCALES_OBJID = range(1, 8)
_OBJECTS_ROOT, _NAMES_ROOT, _ROOTS_ROOT, _SHADOW_ROOT, _IDS_ROOT, _LOCALES_ROOT = 4, 7, 10, 24, 29, 30
_INDEX = int(PageFlag.INDEX)
_NOT_UNIQUE = int(PageFlag.NON_UNIQUE_KEYS)
_LONG_VALUE = int(PageFlag.LONG_VALUE)
_LONG_VALUE_PAGES = 4


@dataclass(eq=False, repr=False)
class MountedDatabase:
    """One database.

    Args:
        name: The administrator's name for it.
        path: Its file.
        guid: Its identity in the directory.
        store: What its trees share.
        space: Its pages.
        catalog: Where tables are described.
        tables: By name.
    """

    name: str
    path: Path
    guid: str
    store: TreeStore
    space: DatabaseSpace
    catalog: CatalogTrees
    tables: dict[str, StoreTable] = field(default_factory=dict)

    @property
    def file(self) -> PagedFile:
        return self.store.file

    @staticmethod
    def create(name: str, path: Path, guid: str, store: TreeStore, session: Session, *, pages: int) -> MountedDatabase:
        """Make the trees of a new database of so many pages; the session is in a transaction."""
        store.file.extend(pages)
        store.log(log.extend_database(store.dbid, pages))
        make_tree_at(store, session, _ROOT_OBJID, (1, pages), 0, multiple=True)
        space = DatabaseSpace(store, 1, _ROOT_OBJID, None)
        catalog = _create_catalog(store, session, space)
        made = MountedDatabase(name, path, guid, store, space, catalog)
        store.file.fields.last_objid = _LOCALES_OBJID
        return made

    @staticmethod
    def open(name: str, path: Path, guid: str, store: TreeStore, schemas: dict[str, TableSchema]) -> MountedDatabase:
        """Open a clean database; ``schemas`` describes those of its tables that can be changed."""
        space = DatabaseSpace(store, 1, _ROOT_OBJID, None)
        objects = TreeSpace(store, _OBJECTS_ROOT, _OBJECTS_OBJID, space)
        catalog = CatalogTrees(
            Tree(store, _OBJECTS_ROOT, _OBJECTS_OBJID, objects),
            Tree(store, _NAMES_ROOT, _NAMES_OBJID, TreeSpace(store, _NAMES_ROOT, _NAMES_OBJID, objects)),
            Tree(store, _ROOTS_ROOT, _ROOTS_OBJID, TreeSpace(store, _ROOTS_ROOT, _ROOTS_OBJID, objects)),
            Tree(store, _SHADOW_ROOT, _SHADOW_OBJID, TreeSpace(store, _SHADOW_ROOT, _SHADOW_OBJID, space)),
            Tree(store, _IDS_ROOT, _IDS_OBJID, TreeSpace(store, _IDS_ROOT, _IDS_OBJID, space)),
        )
        opened = MountedDatabase(name, path, guid, store, space, catalog)
        with Database(path) as database:
            for table in read_catalog(database).tables:
                if table.name in schemas:
                    opened.tables[table.name] = opened._open_table(schemas[table.name], table)
        return opened

    def create_table(self, session: Session, schema: TableSchema) -> StoreTable:
        """Make a table with its indexes and its tree of long values."""
        objid = self._next_objid()
        root, space = create_tree(self.store, session, objid, self.space, pages=schema.pages)
        page_size = self.file.page_size
        table = StoreTable(
            schema,
            Tree(self.store, root, objid, space),
            space,
            RowFormat(schema.columns, page_size > LARGE_PAGE),
            chunk=chunk_size(page_size),
        )
        for _ in schema.secondary:
            table.indexes.append(self._create_below(session, space, _INDEX | _NOT_UNIQUE, unique=False, pages=1))
        if schema.long_values:
            table.long_values = self._create_below(session, space, _LONG_VALUE, unique=True, pages=_LONG_VALUE_PAGES)
        entries = describe_table(
            schema,
            objid,
            root,
            [(tree.objid, tree.root) for tree in table.indexes],
            (table.long_values.objid, table.long_values.root) if table.long_values else None,
            chunk=table.chunk if table.long_values else None,
        )
        self.catalog.add(session, entries)
        self.tables[schema.name] = table
        return table

    def trees(self) -> list[Tree]:
        """Every tree that holds rows, of the catalog and of all tables."""
        catalog = self.catalog
        own = [catalog.objects, catalog.names, catalog.roots, catalog.shadow, catalog.object_ids]
        return own + [tree for table in self.tables.values() for tree in table.trees()]

    def _create_below(self, session: Session, parent: TreeSpace, kind: int, *, unique: bool, pages: int) -> Tree:
        objid = self._next_objid()
        root, space = create_tree(self.store, session, objid, parent, kind=kind, unique=unique, pages=pages)
        return Tree(self.store, root, objid, space, unique=unique)

    def _next_objid(self) -> int:
        self.file.fields.last_objid += 1
        return self.file.fields.last_objid

    def _open_table(self, schema: TableSchema, table: Table) -> StoreTable:
        store, page_size = self.store, self.file.page_size
        space = TreeSpace(store, table.root, table.objid, self.space)
        roots = {index.name: (index.objid, index.root) for index in table.indexes}
        opened = StoreTable(
            schema,
            Tree(store, table.root, table.objid, space),
            space,
            RowFormat(schema.columns, page_size > LARGE_PAGE),
            chunk=chunk_size(page_size),
        )
        for index in schema.secondary:
            objid, root = roots[index.name]
            opened.indexes.append(Tree(store, root, objid, TreeSpace(store, root, objid, space), unique=False))
        if table.long_values is not None:
            objid, root = table.long_values
            opened.long_values = Tree(store, root, objid, TreeSpace(store, root, objid, space))
            opened.next_long_value = 1 + _last_long_value(opened.long_values)
        return opened


def _last_long_value(tree: Tree) -> int:
    """The highest number of a long value, a deleted one too."""
    page, _ = tree.descend(b"\xff" * 8)[-1]
    return int.from_bytes(page.nodes[-1][0][:4], "big") if page.nodes else 0


def _create_catalog(store: TreeStore, session: Session, space: DatabaseSpace) -> CatalogTrees:
    """The tables that the engine keeps for itself, on the pages where every database has them."""

    def tree(objid: int, expected: int, parent: TreeSpace, *, pages: int, multiple: bool, kind: int = 0) -> Tree:
        root, own = create_tree(store, session, objid, parent, pages=pages, multiple=multiple, kind=kind)
        assert root == expected, f"object {objid} lies on page {root}, not {expected}"
        return Tree(store, root, objid, own)

    objects = tree(_OBJECTS_OBJID, _OBJECTS_ROOT, space, pages=CATALOG.pages, multiple=True)
    below = objects.pages
    assert isinstance(below, TreeSpace)
    names = tree(_NAMES_OBJID, _NAMES_ROOT, below, pages=3, multiple=True, kind=_INDEX)
    roots = tree(_ROOTS_OBJID, _ROOTS_ROOT, below, pages=3, multiple=True, kind=_INDEX)
    shadow = tree(_SHADOW_OBJID, _SHADOW_ROOT, space, pages=CATALOG_SHADOW.pages, multiple=True)
    ids = tree(_IDS_OBJID, _IDS_ROOT, space, pages=OBJECT_IDS.pages, multiple=False)
    locales = tree(_LOCALES_OBJID, _LOCALES_ROOT, space, pages=SYSTEM_LOCALES.pages, multiple=False)
    catalog = CatalogTrees(objects, names, roots, shadow, ids)
    secondary = [(_NAMES_OBJID, _NAMES_ROOT), (_ROOTS_OBJID, _ROOTS_ROOT)]
    for schema, of, indexes in (
        (CATALOG, objects, secondary),
        (CATALOG_SHADOW, shadow, []),
        (OBJECT_IDS, ids, []),
        (SYSTEM_LOCALES, locales, []),
    ):
        catalog.add(session, describe_table(schema, of.objid, of.root, indexes, None, system=True))
    return catalog

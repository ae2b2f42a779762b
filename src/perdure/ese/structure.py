"""Verification of a database's structure: every tree of the catalog, page by page and key by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perdure.ese.catalog import CATALOG, CATALOG_SHADOW, Catalog, read_catalog
from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged
from perdure.ese.findings import Finding
from perdure.ese.pages import Page
from perdure.ese.rows import rows_of
from perdure.ese.space import database_space, trees_of
from perdure.ese.trees import Tree

__all__ = ["verify_structure"]


def verify_structure(database: Database, progress: Callable[[int], None] = lambda _done: None) -> list[Finding]:
    """Check what checksums cannot.

    The catalog and its shadow agree, every tree is whole and in key order, sibling pages name each other, pages count
    their free bytes rightly, space trees can be read, and every row can be decoded.

    The pages of a dirty database may contradict each other until its logs are replayed, so check clean ones.

    Args:
        database: The database.
        progress: Is called with the bytes looked at since it was called last.
    """
    try:
        catalog = read_catalog(database)
    except EseDamaged as error:
        return [_finding(database, error)]
    return list(_findings(database, catalog, progress))


def _findings(database: Database, catalog: Catalog, progress: Callable[[int], None]) -> Iterator[Finding]:
    yield from _catalog_and_shadow(database)
    for table in catalog.tables:
        for name, objid, root in trees_of(table):
            yield from _tree(database, name, objid, root, progress)
        try:
            for row in rows_of(database, table):
                row.values()
        except EseDamaged as error:
            yield _finding(database, error)
    try:
        database_space(database, catalog)
    except EseDamaged as error:
        yield _finding(database, error)


def _catalog_and_shadow(database: Database) -> Iterator[Finding]:
    try:
        first, second = (
            [(node.key, node.data) for node in Tree(database, root, objid).nodes()]
            for objid, root in (CATALOG, CATALOG_SHADOW)
        )
    except EseDamaged as error:
        yield _finding(database, error)
        return
    if first != second:
        yield Finding(
            code="ese-catalog-damaged",
            file=database.file,
            place=f"page {CATALOG_SHADOW[1]}",
            what="the catalog and its shadow hold different records",
        )


def _tree(database: Database, name: str, objid: int, root: int, progress: Callable[[int], None]) -> Iterator[Finding]:
    """Walks one tree; the first contradiction that hides the rest of it ends the walk."""
    tree = Tree(database, root, objid)
    try:
        for page in tree.pages():
            progress(database.page_size)
            problem = page.first_damage() or _order(page)
            if problem:
                yield _page_finding(database, name, page, problem)
        before: Page | None = None
        last = b""
        for leaf in tree.leaves():
            problem = _siblings(before, leaf)
            keys = [node.key for node in leaf.nodes()]
            if keys and keys[0] < last:
                problem = problem or "its first key is below the last one of the leaf before it"
            if problem:
                yield _page_finding(database, name, leaf, problem)
            before, last = leaf, keys[-1] if keys else last
    except EseDamaged as error:
        yield _finding(database, error)


def _order(page: Page) -> str:
    keys = [node.key for node in page.nodes()]
    if not page.leaf:
        # A branch ends with an empty key, which stands above all others.
        keys = keys[:-1] if keys and not keys[-1] else keys
    return "" if keys == sorted(keys) else "its keys are not in order"


def _siblings(before: Page | None, leaf: Page) -> str:
    left = before.number if before is not None else 0
    if leaf.header.previous != left:
        return f"it names page {leaf.header.previous} as its left sibling, and the tree page {left}"
    if before is not None and before.header.next != leaf.number:
        return f"its left sibling {before.number} names page {before.header.next} as the one after it"
    return ""


def _page_finding(database: Database, name: str, page: Page, what: str) -> Finding:
    prefix = f"{database.file}: page {page.number}: "
    return Finding(
        code="ese-tree-damaged",
        file=database.file,
        place=f"page {page.number} of {name}",
        what=what.removeprefix(prefix),
    )


def _finding(database: Database, error: EseDamaged) -> Finding:
    return Finding(error.code, database.file, "", error.message.removeprefix(f"{database.file}: "))

"""B+ trees of a database: leaves in key order, and the nodes from a key on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perdure.ese.database import Database
from perdure.ese.errors import EseDamaged
from perdure.ese.pages import Node, Page

__all__ = ["Tree"]

_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree in a database.

    Args:
        database: Where it lies.
        root: Page number of its root.
        objid: Object number that all its pages carry; ``None`` if it is not known.
    """

    database: Database
    root: int
    objid: int | None = None

    def leaves(self, start: bytes = b"") -> Iterator[Page]:
        """Every leaf in key order, from the one on that may hold the key ``start``.

        Raises:
            EseDamaged: A page is damaged, belongs to another tree, was never written, or is reached twice.
        """
        seen: set[int] = set()
        yield from self._below(self.root, start, seen, 0)

    def nodes(self, start: bytes = b"") -> Iterator[Node]:
        """Every node in key order that is not deleted, from the key ``start`` on."""
        for leaf in self.leaves(start):
            yield from (node for node in leaf.nodes() if not node.deleted and node.key >= start)

    def pages(self) -> Iterator[Page]:
        """Every page of the tree, parents before their children."""
        seen: set[int] = set()
        waiting = [(self.root, 0)]
        while waiting:
            number, depth = waiting.pop()
            page = self._page(number, seen, depth)
            yield page
            if not page.leaf:
                waiting += [(node.child, depth + 1) for node in page.nodes()][::-1]

    def _below(self, number: int, start: bytes, seen: set[int], depth: int) -> Iterator[Page]:
        page = self._page(number, seen, depth)
        if page.leaf:
            yield page
            return
        for node in page.nodes():
            # A branch key is not below any key of its child; the last one is empty, which means no bound.
            if node.key and node.key < start:
                continue
            yield from self._below(node.child, start, seen, depth + 1)

    def _page(self, number: int, seen: set[int], depth: int) -> Page:
        page = self.database.page(number)
        if number in seen or depth > _DEEPEST:
            raise self._damaged(page, "is reached twice")
        seen.add(number)
        if not page.written:
            raise self._damaged(page, "was never written")
        if self.objid is not None and page.header.objid != self.objid:
            raise self._damaged(page, f"belongs to object {page.header.objid}")
        return page

    def _damaged(self, page: Page, what: str) -> EseDamaged:
        header = self.database.header
        dirty = "" if header.clean else f" The database is in {header.state_text}: its logs may make it whole."
        return EseDamaged(
            f"{page.file}: page {page.number} {what}, and the tree of object {self.objid or '?'} with root page "
            f"{self.root} leads to it.{dirty}",
            code="ese-tree-damaged",
            hint="recover the database, or replay its logs first",
        )

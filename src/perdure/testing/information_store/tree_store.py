"""What all trees of a database share, and where they get their pages from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from perdure.testing.information_store.paged_file import PagedFile
from perdure.testing.information_store.tree_pages import SPACE, TreePage
from perdure.testing.information_store.versions import Session, Version

__all__ = ["KeyDuplicate", "KeyNotFound", "PageSource", "TreeStore"]


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


class ReservingTree(Protocol):
    """A tree in which rollbacks may need space."""

    def reserved_on(self, page: TreePage) -> int:
        """Bytes of a leaf that rollbacks may need."""


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

    reserving: dict[int, ReservingTree] = field(default_factory=dict)
    """Trees in which a rollback may need space, by object number."""

    def reserved_on(self, page: TreePage) -> int:
        """Bytes of a page that rollbacks may need."""
        tree = self.reserving.get(page.objid)
        return tree.reserved_on(page) if tree is not None and page.leaf and not page.flags & SPACE else 0

    def next_dbtime(self) -> int:
        """The next count of changes."""
        self.file.fields.dbtime += 1
        return self.file.fields.dbtime

"""Ways through a tree, and operations that wait for a page to be split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from perdure.testing.information_store.tree_pages import TreeNode, TreePage
from perdure.testing.information_store.versions import Version

__all__ = ["INSERT", "NO_OPERATION", "REPLACE", "Path", "Pending"]

Path: TypeAlias = list[tuple[TreePage, int]]
"""Pages from a root down, each with the line that leads on; in the leaf, the line where the bookmark is or goes."""

NO_OPERATION, INSERT, REPLACE = 0, 1, 2
"""What is done together with a split."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The operation that makes a leaf split.

    Args:
        operation: :data:`INSERT` or :data:`REPLACE`.
        line: Where in the page before the split.
        node: The node that is to be there.
        version: What takes it back.
    """

    operation: int
    line: int
    node: TreeNode
    version: Version | None

"""Tables of a mounted database: rows with their index entries and long values, changed by transactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.testing.information_store.row_format import RowFormat, RowValue, Separated
from perdure.testing.information_store.schema import TableSchema
from perdure.testing.information_store.space import TreeSpace
from perdure.testing.information_store.trees import Tree
from perdure.testing.information_store.versions import Session

__all__ = ["StoreTable", "chunk_size"]

_LARGE, _SMALL = 8191, 1966
_LARGE_FROM = 16384
_INSIDE_MOST = 512
"""Long values up to so many bytes stay in their row."""


def chunk_size(page_size: int) -> int:
    """Bytes in a part of a long value."""
    return _LARGE if page_size >= _LARGE_FROM else _SMALL


@dataclass(eq=False, repr=False)
class StoreTable:
    """One table.

    Args:
        schema: What it is.
        tree: Its primary index.
        space: Of that tree.
        format: How its rows are stored.
        indexes: Trees of its secondary indexes, in the schema's order.
        long_values: The tree of its long values.
        chunk: Bytes in a part of a long value.
        next_long_value: Number of the next long value.
    """

    schema: TableSchema
    tree: Tree
    space: TreeSpace
    format: RowFormat
    indexes: list[Tree] = field(default_factory=list)
    long_values: Tree | None = None
    chunk: int = _SMALL
    next_long_value: int = 1

    @property
    def name(self) -> str:
        return self.schema.name

    def key(self, values: Mapping[str, RowValue]) -> bytes:
        """The primary key of a row."""
        return self.schema.primary.key(values)

    def trees(self) -> list[Tree]:
        """All its trees."""
        return [self.tree, *self.indexes, *([self.long_values] if self.long_values else [])]

    def insert(self, session: Session, values: Mapping[str, RowValue]) -> dict[str, RowValue]:
        """Add a row.

        Returns:
            Its values as stored: a long value that lies beside the row is :class:`Separated`.

        Raises:
            KeyDuplicate: It is there.
            WriteConflict: Another transaction works on it.
        """
        stored = {name: self._separate(session, value) for name, value in values.items()}
        key = self.key(stored)
        self.tree.insert(session, key, self.format.encode(stored))
        for index, tree in zip(self.schema.secondary, self.indexes, strict=True):
            tree.insert(session, index.key(stored), key)
        return stored

    def replace(
        self, session: Session, before: Mapping[str, RowValue], changes: Mapping[str, RowValue]
    ) -> dict[str, RowValue]:
        """Change a row whose values as stored are ``before``; the primary key stays.

        Raises:
            KeyNotFound: It is not there.
            WriteConflict: Another transaction works on it.
        """
        stored = {**before, **{name: self._separate(session, value) for name, value in changes.items()}}
        key = self.key(before)
        self.tree.replace(session, key, self.format.encode(stored))
        for index, tree in zip(self.schema.secondary, self.indexes, strict=True):
            old, new = index.key(before), index.key(stored)
            if old != new:
                tree.flag_delete(session, old, key)
                tree.insert(session, new, key)
        for name, value in before.items():
            if isinstance(value, Separated) and stored[name] != value:
                self.release_long_value(session, value)
        return stored

    def delete(self, session: Session, before: Mapping[str, RowValue]) -> None:
        """Delete a row whose values as stored are ``before``.

        Raises:
            KeyNotFound: It is not there.
            WriteConflict: Another transaction works on it.
        """
        key = self.key(before)
        self.tree.flag_delete(session, key)
        for index, tree in zip(self.schema.secondary, self.indexes, strict=True):
            tree.flag_delete(session, index.key(before), key)
        for value in before.values():
            if isinstance(value, Separated):
                self.release_long_value(session, value)

    def share_long_value(self, session: Session, value: Separated) -> None:
        """One more row refers to a long value."""
        assert self.long_values is not None
        self.long_values.add(session, value.identifier.to_bytes(4, "big"), 1)

    def release_long_value(self, session: Session, value: Separated) -> None:
        """A row refers to a long value no more; the last one takes it away."""
        tree = self.long_values
        assert tree is not None
        root = value.identifier.to_bytes(4, "big")
        if tree.add(session, root, -1):
            return
        size = int.from_bytes((tree.get(root) or bytes(8))[4:8], "little")
        for offset in range(0, size, self.chunk):
            tree.flag_delete(session, root + offset.to_bytes(4, "big"))
        tree.flag_delete(session, root)

    def _separate(self, session: Session, value: RowValue) -> RowValue:
        if not isinstance(value, bytes) or len(value) <= _INSIDE_MOST or self.long_values is None:
            return value
        identifier = self.next_long_value
        self.next_long_value += 1
        root = identifier.to_bytes(4, "big")
        head = (1).to_bytes(4, "little") + len(value).to_bytes(4, "little")
        self.long_values.insert(session, root, head)
        for offset in range(0, len(value), self.chunk):
            part = value[offset : offset + self.chunk]
            self.long_values.insert(session, root + offset.to_bytes(4, "big"), part)
        return Separated(identifier)

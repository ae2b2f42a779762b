"""The catalog of a database: the trees that it lies in, and the rows that describe tables."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from perdure.ese.checksums import LARGE_PAGE
from perdure.ese.columns import Column
from perdure.testing.ese_databases import record_bytes
from perdure.testing.information_store.row_format import long_key, text_key
from perdure.testing.information_store.schema import CATALOG, TableSchema
from perdure.testing.information_store.trees import Tree
from perdure.testing.information_store.versions import Session

__all__ = ["COLUMN", "INDEX", "LONG_VALUES", "TABLE", "CatalogEntry", "CatalogTrees", "describe_table"]

TABLE, COLUMN, INDEX, LONG_VALUES = 1, 2, 3, 4
"""Types of entries."""

_WESTERN = 1252
_SYSTEM = -1073741824
_PRIMARY_FLAGS, _SECONDARY_FLAGS = 65583, 65550
_LOCALE = "en-US"
_MAP_FLAGS = 197633
_LONG_VALUE_TYPE = 1
_LOCALE_COLUMN = 261
_TRUE = b"\xff"


@dataclass(frozen=True)
class CatalogEntry:
    """A row of the catalog: numbers and texts by column name; what is missing is null."""

    table: int
    type: int
    identifier: int
    root_or_type: int
    name: str
    space: int = 0
    flags: int = 0
    pages: int = 0
    is_table: bool = False
    offset: int | None = None
    chunk: int | None = None
    key_columns: bytes = b""
    default: bytes | None = None

    @property
    def key(self) -> bytes:
        """Its key in the catalog."""
        return long_key(self.table) + _short_key(self.type) + long_key(self.identifier)

    @property
    def name_key(self) -> bytes:
        """Its key in the index of names."""
        return long_key(self.table) + _short_key(self.type) + text_key(self.name)

    def encode(self, *, large: bool) -> bytes:
        """As stored."""
        numbers = [self.table, self.type, self.identifier, self.root_or_type, self.space, self.flags, self.pages]
        stored = {
            identifier: struct.pack("<h" if identifier == TABLE + 1 else "<i", number)
            for identifier, number in enumerate(numbers, 1)
        }
        if self.is_table:
            stored[8] = _TRUE
        if self.offset is not None:
            stored[9] = struct.pack("<h", self.offset)
        if self.type == INDEX:
            stored[10] = struct.pack("<i", _MAP_FLAGS)
        if self.chunk is not None:
            stored[12] = struct.pack("<i", self.chunk)
        stored[128] = self.name.encode("cp1252")
        if self.default is not None:
            stored[131] = self.default
        if self.key_columns:
            stored[132] = self.key_columns
        last = max(stored)
        columns = [column for column in CATALOG.columns if column.identifier <= last]
        last_fixed = max(identifier for identifier in stored if identifier < 128)
        columns = [column for column in columns if column.identifier <= last_fixed or column.variable]
        tagged = []
        if self.type == INDEX:
            tagged.append((_LOCALE_COLUMN, _LONG_VALUE_TYPE, _LOCALE.encode("utf-16-le")))
        return record_bytes(columns, stored, tagged, large=large)


def describe_table(
    schema: TableSchema,
    objid: int,
    root: int,
    indexes: Sequence[tuple[int, int]],
    long_values: tuple[int, int] | None,
    *,
    chunk: int | None = None,
    system: bool = False,
) -> list[CatalogEntry]:
    """The rows that describe a table.

    Args:
        schema: What it is.
        objid: Its object number.
        root: Its root page.
        indexes: Object number and root of its secondary indexes.
        long_values: Object number and root of its long values.
        chunk: Bytes in a part of a long value.
        system: Whether it belongs to the engine.
    """
    flags = _SYSTEM if system else 0
    rows = [
        CatalogEntry(
            objid,
            TABLE,
            objid,
            root,
            schema.name,
            space=80,
            flags=flags,
            pages=schema.pages,
            is_table=True,
            chunk=chunk,
        )
    ]
    rows += [_column(objid, column, system=system) for column in schema.columns]
    primary = CatalogEntry(
        objid,
        INDEX,
        objid,
        root,
        schema.primary.name,
        space=80,
        flags=_PRIMARY_FLAGS,
        key_columns=_key_columns(schema.primary.columns),
    )
    rows.append(primary)
    rows += [
        CatalogEntry(
            objid,
            INDEX,
            number,
            place,
            index.name,
            space=80,
            flags=_SECONDARY_FLAGS,
            key_columns=_key_columns(index.columns),
        )
        for index, (number, place) in zip(schema.secondary, indexes, strict=True)
    ]
    if long_values is not None:
        rows.append(CatalogEntry(objid, LONG_VALUES, long_values[0], long_values[1], "LV", space=100, pages=1))
    return rows


@dataclass(eq=False, repr=False)
class CatalogTrees:
    """The trees of the catalog, its shadow, and the tables beside them."""

    objects: Tree
    names: Tree
    roots: Tree
    shadow: Tree
    object_ids: Tree

    def add(self, session: Session, entries: Iterable[CatalogEntry]) -> None:
        """Add rows to the catalog, to its shadow, and to the indexes."""
        large = self.objects.store.file.page_size > LARGE_PAGE
        for entry in entries:
            record, key = entry.encode(large=large), entry.key
            self.objects.insert(session, key, record)
            self.shadow.insert(session, key, record)
            self.names.insert(session, entry.name_key, key)
            if entry.is_table:
                self.roots.insert(session, b"\x7f\xff" + text_key(entry.name), key)
            if entry.type in (TABLE, INDEX, LONG_VALUES):
                self._add_object(session, entry, large=large)

    def _add_object(self, session: Session, entry: CatalogEntry, *, large: bool) -> None:
        key = long_key(entry.identifier)
        if entry.type == INDEX and self.object_ids.get(key) is not None:
            return  # the primary index is the table itself
        fields = [
            (256, 0, struct.pack("<i", entry.identifier)),
            (257, 0, struct.pack("<i", entry.table)),
            (258, 0, struct.pack("<h", entry.type)),
        ]
        self.object_ids.insert(session, key, record_bytes((), {}, fields, large=large))


def _column(objid: int, column: Column, *, system: bool) -> CatalogEntry:
    return CatalogEntry(
        objid,
        COLUMN,
        column.identifier,
        int(column.type),
        column.name,
        space=column.size,
        flags=column.flags,
        pages=_WESTERN if system and objid in (2, 3) else column.codepage,
        offset=column.offset,
        default=column.default,
    )


def _key_columns(identifiers: Iterable[int]) -> bytes:
    return b"".join(b"\0\0" + identifier.to_bytes(2, "little") for identifier in identifiers)


def _short_key(value: int) -> bytes:
    return b"\x7f" + (value ^ 0x8000).to_bytes(2, "big")

"""Tables of a mailbox store, and the tables that the engine keeps for itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perdure.ese.columns import FIRST_TAGGED, FIRST_VARIABLE, Column, ColumnFlag, ColumnType, fixed_size
from perdure.testing.information_store.row_format import RowValue, integer_key, long_key

__all__ = [
    "BY_FOLDER",
    "CATALOG",
    "CATALOG_SHADOW",
    "MAILBOXES",
    "OBJECT_IDS",
    "SYSTEM_LOCALES",
    "IndexSchema",
    "TableSchema",
    "columns_of",
    "folder_table",
    "message_table",
]

Values = Mapping[str, RowValue]

_WESTERN, _UNICODE = 1252, 1200


@dataclass(frozen=True)
class IndexSchema:
    """An index.

    Args:
        name: Its name.
        columns: Identifiers of its columns.
        key: Makes the key of a row.
    """

    name: str
    columns: tuple[int, ...]
    key: Callable[[Values], bytes]


@dataclass(frozen=True)
class TableSchema:
    """A table.

    Args:
        name: Its name.
        columns: In order of their identifiers.
        primary: Its primary index.
        secondary: Its other indexes.
        long_values: Whether it has a tree of long values.
        pages: Of its first extent.
    """

    name: str
    columns: tuple[Column, ...]
    primary: IndexSchema
    secondary: tuple[IndexSchema, ...] = ()
    long_values: bool = False
    pages: int = 4


def columns_of(*named: tuple[str, ColumnType], autoincrement: str = "") -> tuple[Column, ...]:
    """Columns with identifiers and places in the order in which they are given."""
    made: list[Column] = []
    fixed, variable, tagged, offset = 1, FIRST_VARIABLE, FIRST_TAGGED, 4
    for name, kind in named:
        size = fixed_size(kind)
        flags = ColumnFlag.AUTOINCREMENT | ColumnFlag.NOT_NULL if name == autoincrement else 0
        if size:
            made.append(Column(fixed, name, kind, size, int(flags), offset=offset))
            fixed, offset = fixed + 1, offset + size
        elif kind in (ColumnType.LONG_BINARY, ColumnType.LONG_TEXT):
            codepage = _UNICODE if kind is ColumnType.LONG_TEXT else 0
            made.append(Column(tagged, name, kind, 0, codepage=codepage))
            tagged += 1
        else:
            codepage = _WESTERN if kind is ColumnType.TEXT else 0
            made.append(Column(variable, name, kind, 255, codepage=codepage))
            variable += 1
    return tuple(made)


def _number(values: Values, name: str) -> int:
    value = values[name]
    assert isinstance(value, int)
    return value


MAILBOXES = TableSchema(
    "Mailbox",
    columns_of(
        ("MailboxNumber", ColumnType.LONG),
        ("LastDelivery", ColumnType.LONG_LONG),
        ("MessageCount", ColumnType.LONG),
        ("MessageSize", ColumnType.LONG_LONG),
        ("NextDocumentId", ColumnType.LONG),
        ("DisplayName", ColumnType.TEXT),
        ("MailboxGuid", ColumnType.BINARY),
        autoincrement="MailboxNumber",
    ),
    IndexSchema("MailboxPK", (1,), lambda values: long_key(_number(values, "MailboxNumber"))),
)
"""One row for every mailbox."""


def folder_table(mailbox: int) -> TableSchema:
    """The folders of a mailbox."""
    return TableSchema(
        f"Folder_{mailbox}",
        columns_of(
            ("FolderId", ColumnType.LONG),
            ("MessageCount", ColumnType.LONG),
            ("UnreadCount", ColumnType.LONG),
            ("LastModified", ColumnType.LONG_LONG),
            ("DisplayName", ColumnType.TEXT),
        ),
        IndexSchema("FolderPK", (1,), lambda values: long_key(_number(values, "FolderId"))),
        pages=2,
    )


BY_FOLDER = "FolderReceived"
"""The secondary index of messages."""


def message_table(mailbox: int) -> TableSchema:
    """The messages of a mailbox."""
    return TableSchema(
        f"Message_{mailbox}",
        columns_of(
            ("DocumentId", ColumnType.LONG),
            ("FolderId", ColumnType.LONG),
            ("Received", ColumnType.LONG_LONG),
            ("Size", ColumnType.LONG),
            ("IsRead", ColumnType.BIT),
            ("Flags", ColumnType.LONG),
            ("ChangeNumber", ColumnType.LONG_LONG),
            ("Subject", ColumnType.TEXT),
            ("Sender", ColumnType.TEXT),
            ("Body", ColumnType.LONG_BINARY),
        ),
        IndexSchema("MessagePK", (1,), lambda values: long_key(_number(values, "DocumentId"))),
        (
            IndexSchema(
                BY_FOLDER,
                (2, 3),
                lambda values: long_key(_number(values, "FolderId")) + integer_key(_number(values, "Received")),
            ),
        ),
        long_values=True,
        pages=6,
    )


def _no_key(values: Values) -> bytes:
    raise AssertionError(f"the engine makes the keys of its own tables, not {values}")


_CATALOG_COLUMNS = columns_of(
    ("ObjidTable", ColumnType.LONG),
    ("Type", ColumnType.SHORT),
    ("Id", ColumnType.LONG),
    ("ColtypOrPgnoFDP", ColumnType.LONG),
    ("SpaceUsage", ColumnType.LONG),
    ("Flags", ColumnType.LONG),
    ("PagesOrLocale", ColumnType.LONG),
    ("RootFlag", ColumnType.BIT),
    ("RecordOffset", ColumnType.SHORT),
    ("LCMapFlags", ColumnType.LONG),
    ("KeyMost", ColumnType.UNSIGNED_SHORT),
    ("LVChunkMax", ColumnType.LONG),
    ("Name", ColumnType.TEXT),
    ("Stats", ColumnType.BINARY),
    ("TemplateTable", ColumnType.TEXT),
    ("DefaultValue", ColumnType.BINARY),
    ("KeyFldIDs", ColumnType.BINARY),
    ("VarSegMac", ColumnType.BINARY),
    ("ConditionalColumns", ColumnType.BINARY),
    ("TupleLimits", ColumnType.BINARY),
    ("Version", ColumnType.BINARY),
    ("SortID", ColumnType.BINARY),
    ("CallbackData", ColumnType.LONG_BINARY),
    ("CallbackDependencies", ColumnType.LONG_BINARY),
    ("SeparateLV", ColumnType.LONG_BINARY),
    ("SpaceHints", ColumnType.LONG_BINARY),
    ("SpaceDeferredLVHints", ColumnType.LONG_BINARY),
    ("LocaleName", ColumnType.LONG_BINARY),
)

CATALOG = TableSchema(
    "MSysObjects",
    _CATALOG_COLUMNS,
    IndexSchema("Id", (1, 2, 3), _no_key),
    (IndexSchema("Name", (1, 2, 128), _no_key), IndexSchema("RootObjects", (8, 128), _no_key)),
    pages=20,
)
"""The catalog; its first extent ends where its shadow begins."""

CATALOG_SHADOW = TableSchema("MSysObjectsShadow", _CATALOG_COLUMNS, IndexSchema("Id", (1, 2, 3), _no_key), pages=5)
"""The same rows again."""

OBJECT_IDS = TableSchema(
    "MSysObjids",
    (
        Column(256, "objid", ColumnType.LONG, 4),
        Column(257, "objidTable", ColumnType.LONG, 4),
        Column(258, "type", ColumnType.SHORT, 2),
    ),
    IndexSchema("primary", (256,), _no_key),
    pages=1,
)
"""Which table an object belongs to."""

SYSTEM_LOCALES = TableSchema(
    "MSysLocales",
    (
        Column(1, "Type", ColumnType.UNSIGNED_BYTE, 1, int(ColumnFlag.NOT_NULL), offset=4),
        Column(2, "iValue", ColumnType.LONG, 4, int(ColumnFlag.DEFAULT), default=bytes(4), offset=5),
        Column(128, "Key", ColumnType.BINARY, 255),
    ),
    IndexSchema("KeyPrimary", (128,), _no_key),
    pages=1,
)
"""Sort orders in use; it stays empty."""

"""Columns of a table, and values as their types read them."""

from __future__ import annotations

import codecs
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum, IntFlag
from typing import TypeAlias
from uuid import UUID

__all__ = ["Column", "ColumnFlag", "ColumnType", "Undecoded", "Value", "ole_moment", "value_of"]

FIRST_VARIABLE = 128
FIRST_TAGGED = 256


class ColumnType(IntEnum):
    """JET column types. A deleted column keeps its place with type ``NIL``."""

    NIL = 0
    BIT = 1
    UNSIGNED_BYTE = 2
    SHORT = 3
    LONG = 4
    CURRENCY = 5
    SINGLE = 6
    DOUBLE = 7
    DATETIME = 8
    BINARY = 9
    TEXT = 10
    LONG_BINARY = 11
    LONG_TEXT = 12
    SUPER_LONG = 13
    UNSIGNED_LONG = 14
    LONG_LONG = 15
    GUID = 16
    UNSIGNED_SHORT = 17
    UNSIGNED_LONG_LONG = 18

    @property
    def text(self) -> str:
        """As people read it: ``long text``."""
        return self.name.replace("_", " ").lower()


class ColumnFlag(IntFlag):
    """Flags of a column in the catalog."""

    NOT_NULL = 0x1
    VERSION = 0x2
    AUTOINCREMENT = 0x4
    MULTIVALUED = 0x8
    DEFAULT = 0x10
    ESCROW_UPDATE = 0x20
    FINALIZE = 0x40
    USER_DEFINED_DEFAULT = 0x80
    TEMPLATE_COLUMN = 0x100
    DELETE_ON_ZERO = 0x200
    PRIMARY_INDEX_PLACEHOLDER = 0x800
    COMPRESSED = 0x1000
    ENCRYPTED = 0x2000


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A value that is there and whole, but cannot be read: encrypted, or compressed in a way that is not read.

    Args:
        reason: Why.
        content: The stored bytes.
    """

    reason: str
    content: bytes


Value: TypeAlias = "bool | int | float | str | bytes | UUID | Undecoded | list[Value] | None"
"""What a column holds; a list if it is multi-valued and has several. A ``DATETIME`` is the stored number of days."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Args:
        identifier: 1 to 127 fixed size, 128 to 255 variable size, from 256 tagged.
        name: Its name.
        type: What it holds.
        size: Bytes of a fixed column, the largest size of others, 0 for no limit.
        flags: See :class:`ColumnFlag`.
        codepage: Of text: 1200 is UTF-16.
        default: The stored value that records have where they hold none.
        offset: Where a fixed column begins in a record; ``None`` for others.
        derived: It comes from the table's template.
    """

    identifier: int
    name: str
    type: ColumnType
    size: int
    flags: int = 0
    codepage: int = 0
    default: bytes | None = None
    offset: int | None = None
    derived: bool = False

    @property
    def fixed(self) -> bool:
        return self.identifier < FIRST_VARIABLE

    @property
    def variable(self) -> bool:
        return FIRST_VARIABLE <= self.identifier < FIRST_TAGGED

    @property
    def tagged(self) -> bool:
        return self.identifier >= FIRST_TAGGED


_NUMBERS = {
    ColumnType.UNSIGNED_BYTE: struct.Struct("<B"),
    ColumnType.SHORT: struct.Struct("<h"),
    ColumnType.LONG: struct.Struct("<i"),
    ColumnType.CURRENCY: struct.Struct("<q"),
    ColumnType.SINGLE: struct.Struct("<f"),
    ColumnType.DOUBLE: struct.Struct("<d"),
    ColumnType.DATETIME: struct.Struct("<d"),
    ColumnType.UNSIGNED_LONG: struct.Struct("<I"),
    ColumnType.LONG_LONG: struct.Struct("<q"),
    ColumnType.UNSIGNED_SHORT: struct.Struct("<H"),
    ColumnType.UNSIGNED_LONG_LONG: struct.Struct("<Q"),
}
_FIXED_SIZES = {kind: number.size for kind, number in _NUMBERS.items()} | {ColumnType.BIT: 1, ColumnType.GUID: 16}
_TEXT = (ColumnType.TEXT, ColumnType.LONG_TEXT)
_UTF16 = 1200


def fixed_size(kind: ColumnType) -> int:
    """Bytes that a value of this type always takes, 0 if that varies."""
    return _FIXED_SIZES.get(kind, 0)


def value_of(column: Column, content: bytes) -> Value:
    """A stored value as its type reads it.

    Raises:
        ValueError: The type has another size.
    """
    kind = column.type
    number = _NUMBERS.get(kind)
    if number is not None:
        if len(content) != number.size:
            raise ValueError(f"{kind.text} takes {number.size} bytes, not {len(content)}")
        found: int | float = number.unpack(content)[0]
        return found
    if kind is ColumnType.BIT:
        return any(content)
    if kind is ColumnType.GUID:
        return UUID(bytes_le=content)
    if kind in _TEXT:
        encoding = _encoding(column.codepage)
        if encoding == "utf-16-le" and len(content) % 2:
            content += b"\0"  # a column of an odd fixed size cuts its last character in half
        return content.decode(encoding, "backslashreplace")
    return content


def _encoding(codepage: int) -> str:
    if codepage == _UTF16:
        return "utf-16-le"
    if codepage in (0, 20127):
        return "ascii"
    try:
        return codecs.lookup(f"cp{codepage}").name
    except LookupError:
        return "latin-1"


_OLE_BEGINNING = datetime(1899, 12, 30, tzinfo=UTC)


def ole_moment(days: float) -> datetime | None:
    """The moment that a ``DATETIME`` means if it holds days since 30 December 1899, ``None`` if that is no moment.

    Some programs keep other numbers in columns of this type.
    """
    try:
        return _OLE_BEGINNING + timedelta(days=days)
    except (OverflowError, ValueError):
        return None

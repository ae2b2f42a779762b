"""Rows of a table as stored: fixed columns, variable ones, and long values in the row or beside it."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from perdure.ese.columns import FIRST_VARIABLE, Column, ColumnType

__all__ = ["RowFormat", "RowValue", "Separated", "integer_key", "long_key", "text_key"]

_STRUCTS = {
    ColumnType.BIT: "B",
    ColumnType.SHORT: "h",
    ColumnType.LONG: "i",
    ColumnType.LONG_LONG: "q",
    ColumnType.DATETIME: "d",
}
_LONG_VALUE, _SEPARATED = 1, 4
_FLAG_BYTE = 0x4000
_NULL_VARIABLE = 0x8000


@dataclass(frozen=True, slots=True)
class Separated:
    """A long value that lies beside the row.

    Args:
        identifier: Its number in the tree of long values.
    """

    identifier: int


RowValue: TypeAlias = "int | float | bool | str | bytes | Separated | None"
"""What a column is given."""


def long_key(value: int) -> bytes:
    """A 32-bit number as a key: ordered as the numbers are."""
    return b"\x7f" + (value & 0xFFFFFFFF ^ 0x80000000).to_bytes(4, "big")


def integer_key(value: int) -> bytes:
    """A 64-bit number as a key."""
    return b"\x7f" + (value & 0xFFFFFFFFFFFFFFFF ^ 1 << 63).to_bytes(8, "big")


def text_key(value: str) -> bytes:
    """A text of the western code page as a key: without case, as the catalog's names are compared."""
    return b"\x7f" + value.upper().encode("cp1252") + b"\0"


@dataclass(eq=False, repr=False)
class RowFormat:
    """How rows of one table are stored.

    Args:
        columns: In order of their identifiers: fixed, variable and tagged ones. Fixed ones are never null.
        large: Whether the pages are larger than 8 KiB.
    """

    columns: Sequence[Column]
    large: bool
    _fixed: list[Column] = field(init=False)
    _variable: list[Column] = field(init=False)
    _tagged: list[Column] = field(init=False)

    def __post_init__(self) -> None:
        self._fixed = [column for column in self.columns if column.fixed]
        self._variable = [column for column in self.columns if column.variable]
        self._tagged = [column for column in self.columns if column.tagged]
        pattern = "".join(_STRUCTS[column.type] for column in self._fixed)
        nulls = (len(self._fixed) + 7) // 8
        fixed = struct.Struct(f"<BBH{pattern}{nulls}x")
        self._pack, self._unpack, self._head = fixed.pack, fixed.unpack_from, fixed.size
        self._ends = struct.Struct(f"<{len(self._variable)}H")
        self._last_fixed = self._fixed[-1].identifier if self._fixed else 0
        self._last_variable = self._variable[-1].identifier if self._variable else FIRST_VARIABLE - 1

    def encode(self, values: Mapping[str, RowValue]) -> bytes:
        """A row."""
        numbers = [values[column.name] for column in self._fixed]
        ends: list[int] = []
        variable = b""
        for column in self._variable:
            value = values.get(column.name)
            if value is None:
                ends.append(len(variable) | _NULL_VARIABLE)
            else:
                variable += _stored(column, value)
                ends.append(len(variable))
        head = self._pack(self._last_fixed, self._last_variable, self._head, *numbers)
        return head + self._ends.pack(*ends) + variable + self._tagged_part(values)

    def decode(self, content: bytes) -> dict[str, RowValue]:
        """The values of a row that :meth:`encode` made."""
        numbers = self._unpack(content)[3:]
        found: dict[str, RowValue] = {
            column.name: bool(number) if column.type is ColumnType.BIT else number
            for column, number in zip(self._fixed, numbers, strict=True)
        }
        start = self._head + self._ends.size
        begin = 0
        for column, end in zip(self._variable, self._ends.unpack_from(content, self._head), strict=True):
            if not end & _NULL_VARIABLE:
                part = content[start + begin : start + end]
                text = column.type is ColumnType.TEXT
                found[column.name] = part.decode("cp1252") if text else part
            begin = end & ~_NULL_VARIABLE
        found.update(self._decode_tagged(content[start + begin :]))
        return found

    def _decode_tagged(self, area: bytes) -> dict[str, RowValue]:
        if not area:
            return {}
        mask = 0x7FFF if self.large else 0x1FFF
        first = int.from_bytes(area[2:4], "little") & mask
        entries = [struct.unpack_from("<HH", area, at) for at in range(0, first, 4)]
        ends = [offset & mask for _, offset in entries[1:]] + [len(area)]
        names = {column.identifier: column.name for column in self._tagged}
        found: dict[str, RowValue] = {}
        for (identifier, offset), end in zip(entries, ends, strict=True):
            begin = (offset & mask) + 1
            part = area[begin:end]
            separated = area[begin - 1] & _SEPARATED
            found[names[identifier]] = Separated(int.from_bytes(part, "little")) if separated else part
        return found

    def _tagged_part(self, values: Mapping[str, RowValue]) -> bytes:
        there = [(column, values[column.name]) for column in self._tagged if values.get(column.name) is not None]
        if not there:
            return b""
        at = 4 * len(there)
        entries, contents = b"", b""
        for column, value in there:
            flags = _LONG_VALUE
            if isinstance(value, Separated):
                flags |= _SEPARATED
                content = value.identifier.to_bytes(4, "little")
            else:
                content = _stored(column, value)
            # Large pages have a byte of flags before every tagged value, small ones say so where they do.
            offset = at + len(contents)
            entries += struct.pack("<HH", column.identifier, offset if self.large else offset | _FLAG_BYTE)
            contents += bytes([flags]) + content
        return entries + contents


def _stored(column: Column, value: RowValue) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-16-le" if column.codepage == 1200 else "cp1252")
    assert isinstance(value, bytes), f"column {column.name} holds text or bytes"
    return value

"""Records: fixed, variable and tagged columns of one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Protocol

from perdure.ese.columns import FIRST_TAGGED, FIRST_VARIABLE, Column, ColumnFlag, Undecoded, Value, value_of
from perdure.ese.compression import Incompressible, decompressed

__all__ = ["LongValueReader", "Record", "RecordLayout", "TaggedFlag"]

_HEADER = 4
_NULL_VARIABLE = 0x8000
_DERIVED, _FLAG_BYTE, _NULL_TAGGED = 0x8000, 0x4000, 0x2000
_USER_DEFINED_DEFAULT = int(ColumnFlag.USER_DEFINED_DEFAULT)


class TaggedFlag(IntFlag):
    """The flag byte before a tagged value."""

    LONG_VALUE = 1
    COMPRESSED = 2
    SEPARATED = 4
    MULTI_VALUES = 8
    TWO_VALUES = 0x10
    NULL = 0x20
    ENCRYPTED = 0x40


class LongValueReader(Protocol):
    """Gives the long values that records refer to."""

    def read(self, identifier: bytes) -> bytes | Undecoded:
        """A whole value by its identifier as stored in a record."""


class _NoLongValues:
    def read(self, identifier: bytes) -> bytes | Undecoded:
        raise ValueError(f"it refers to long value {identifier[::-1].hex()}, and the table has no long values")


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """How the records of one table are read.

    Args:
        columns: All columns, in order of their identifiers.
        large_pages: Whether the database has pages above 8 KiB, whose tagged columns are stored differently.
        long_values: Where separated values lie.
    """

    columns: Sequence[Column]
    large_pages: bool
    long_values: LongValueReader

    @staticmethod
    def without_long_values(columns: Sequence[Column], *, large_pages: bool) -> RecordLayout:
        """The layout of a table that keeps all values in its records."""
        return RecordLayout(columns, large_pages, _NoLongValues())


class Record:
    """One row.

    Args:
        layout: How to read it.
        content: The stored bytes.

    Raises:
        ValueError: Its parts do not fit into it.
    """

    __slots__ = ("_content", "_fixed_end", "_last_fixed", "_last_variable", "_layout", "_tagged", "_variable_ends")

    def __init__(self, layout: RecordLayout, content: bytes) -> None:
        if len(content) < _HEADER:
            raise ValueError(f"a record of {len(content)} bytes has no header")
        self._layout = layout
        self._content = content
        self._last_fixed = content[0]
        self._last_variable = content[1]
        self._fixed_end = int.from_bytes(content[2:4], "little")
        variables = max(0, self._last_variable - FIRST_VARIABLE + 1)
        start = self._fixed_end + 2 * variables
        if self._fixed_end < _HEADER + (self._last_fixed + 7) // 8 or start > len(content):
            raise ValueError("its fixed columns reach beyond the record")
        self._variable_ends = memoryview(content)[self._fixed_end : start]
        tagged_start = start + (self._end_of(variables - 1) & ~_NULL_VARIABLE if variables else 0)
        if tagged_start > len(content):
            raise ValueError("its variable columns reach beyond the record")
        self._tagged = dict(self._read_tagged(content[tagged_start:]))

    def raw(self, column: Column) -> bytes | None:
        """The stored bytes of a column, its default if the record holds none, or ``None`` for null."""
        if column.fixed:
            return self._fixed(column)
        if column.variable:
            return self._variable(column)
        found = self._tagged.get((column.identifier, column.derived))
        return column_default(column) if found is None else found[1]

    def value(self, column: Column) -> Value:
        """What a column holds.

        Raises:
            ValueError: The stored bytes do not suit the column.
            EseDamaged: A long value is damaged.
        """
        if not column.tagged:
            content = self.raw(column)
            return None if content is None else value_of(column, content)
        found = self._tagged.get((column.identifier, column.derived))
        if found is None:
            default = column_default(column)
            return None if default is None else value_of(column, default)
        flags, content = found
        if content is None:
            return None
        if flags & TaggedFlag.MULTI_VALUES:
            return [self._read(column, value, part) for value, part in _multi_values(flags, content)]
        return self._read(column, flags, content)

    def values(self) -> Mapping[str, Value]:
        """All columns that are not null, by name."""
        named = ((column.name, self.value(column)) for column in self._layout.columns if self._may_hold(column))
        return {name: value for name, value in named if value is not None}

    def _may_hold(self, column: Column) -> bool:
        """Rules out most columns of a table that has thousands, of which a record holds few."""
        if column.identifier < FIRST_TAGGED or column.default is not None:
            return True
        return (column.identifier, column.derived) in self._tagged

    def _read(self, column: Column, flags: int, content: bytes) -> Value:
        if flags & TaggedFlag.SEPARATED:
            whole = self._layout.long_values.read(content)
            return whole if isinstance(whole, Undecoded) else value_of(column, whole)
        if flags & TaggedFlag.ENCRYPTED:
            return Undecoded("it is encrypted", content)
        if flags & TaggedFlag.COMPRESSED:
            try:
                content = decompressed(content)
            except Incompressible as error:
                return Undecoded(str(error), content)
        return value_of(column, content)

    def _fixed(self, column: Column) -> bytes | None:
        if column.identifier > self._last_fixed:
            return column_default(column)
        nulls = self._fixed_end - (self._last_fixed + 7) // 8
        place, bit = divmod(column.identifier - 1, 8)
        if self._content[nulls + place] >> bit & 1:
            return None
        assert column.offset is not None
        if column.offset + column.size > nulls:
            raise ValueError(f"column {column.name} reaches beyond the fixed columns")
        return self._content[column.offset : column.offset + column.size]

    def _variable(self, column: Column) -> bytes | None:
        if column.identifier > self._last_variable:
            return column_default(column)
        index = column.identifier - FIRST_VARIABLE
        end = self._end_of(index)
        if end & _NULL_VARIABLE:
            return None
        begin = self._end_of(index - 1) & ~_NULL_VARIABLE if index else 0
        start = self._fixed_end + len(self._variable_ends)
        if begin > end or start + end > len(self._content):
            raise ValueError(f"column {column.name} reaches beyond the variable columns")
        return self._content[start + begin : start + end]

    def _end_of(self, index: int) -> int:
        return int.from_bytes(self._variable_ends[2 * index : 2 * index + 2], "little")

    def _read_tagged(self, area: bytes) -> Iterator[tuple[tuple[int, bool], tuple[int, bytes | None]]]:
        """Column identifier and whether it is derived, flags, and the stored bytes or ``None`` for null."""
        if not area:
            return
        large = self._layout.large_pages
        mask = 0x7FFF if large else 0x1FFF
        if len(area) < 4:
            raise ValueError("its tagged columns are cut short")
        first = int.from_bytes(area[2:4], "little") & mask
        if not first or first % 4 or first > len(area):
            raise ValueError("its tagged columns have no beginning")
        entries = [
            (int.from_bytes(area[at : at + 2], "little"), int.from_bytes(area[at + 2 : at + 4], "little"))
            for at in range(0, first, 4)
        ]
        ends = [offset & mask for _, offset in entries[1:]] + [len(area)]
        for (identifier, offset), end in zip(entries, ends, strict=True):
            begin, flags = offset & mask, 0
            # Only the flags of a large page's derived bit share the offset's word.
            has_flags = large or bool(offset & _FLAG_BYTE)
            if identifier < FIRST_TAGGED or begin > end or end > len(area) or (has_flags and begin == end):
                raise ValueError(f"tagged column {identifier} reaches beyond the record")
            if has_flags:
                flags = area[begin]
                begin += 1
            null = bool(flags & TaggedFlag.NULL) if large else bool(offset & _NULL_TAGGED)
            yield (identifier, bool(offset & _DERIVED)), (flags, None if null else area[begin:end])


def column_default(column: Column) -> bytes | None:
    """The bytes that stand for a column that a record does not hold; a default made by a program is not known."""
    return None if column.flags & _USER_DEFINED_DEFAULT else column.default


def _multi_values(flags: int, content: bytes) -> Iterator[tuple[int, bytes]]:
    """Every value of a multi-valued column with the flags that hold for it alone."""
    alone = flags & ~(TaggedFlag.MULTI_VALUES | TaggedFlag.TWO_VALUES | TaggedFlag.SEPARATED | TaggedFlag.COMPRESSED)
    # Only the first of several values is ever compressed.
    first_alone = alone | flags & TaggedFlag.COMPRESSED
    if flags & TaggedFlag.TWO_VALUES:
        if not content or content[0] >= len(content):
            raise ValueError("its two values are cut short")
        yield first_alone, content[1 : 1 + content[0]]
        yield alone, content[1 + content[0] :]
        return
    first = int.from_bytes(content[:2], "little") & 0x7FFF
    if len(content) < 2 or first % 2 or not first or first > len(content):
        raise ValueError("its values have no beginning")
    offsets = [int.from_bytes(content[at : at + 2], "little") for at in range(0, first, 2)]
    ends = [offset & 0x7FFF for offset in offsets[1:]] + [len(content)]
    for index, (offset, end) in enumerate(zip(offsets, ends, strict=True)):
        begin = offset & 0x7FFF
        if begin > end or end > len(content):
            raise ValueError("a value reaches beyond its column")
        separated = TaggedFlag.SEPARATED if offset & 0x8000 else 0
        yield (first_alone if index == 0 else alone) | separated, content[begin:end]

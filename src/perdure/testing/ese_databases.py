"""Small ESE databases written by the rules of the format, with pages of any size: for tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.ese.checksums import LARGE_PAGE, xor32
from perdure.ese.columns import FIRST_VARIABLE, Column
from perdure.ese.pages import NodeFlag, PageFlag
from perdure.ese.repair import sealed_page

__all__ = ["TableContent", "database_bytes", "header_bytes", "page_bytes", "record_bytes"]

Nodes = Sequence[tuple[bytes, bytes, int]]

_RECORD = PageFlag.NEW_RECORD_FORMAT | PageFlag.ECC_CHECKSUM
_LEAF_ROOT = _RECORD | PageFlag.ROOT | PageFlag.LEAF
_CATALOG_ROOT, _SHADOW_ROOT, _FIRST_FREE = 4, 24, 25
_LAST = 64
"""Last page of every database made here."""


@dataclass(frozen=True)
class TableContent:
    """A table to be written.

    Args:
        name: Its name.
        columns: Its columns.
        records: Key and stored record of every row, in order of the keys.
        long_values: Identifier and parts of every long value, the parts as they are to be stored with their whole size.
    """

    name: str
    columns: Sequence[Column]
    records: Sequence[tuple[bytes, bytes]]
    long_values: Sequence[tuple[int, int, Sequence[tuple[int, bytes]]]] = ()


_DBTIME = 7
"""Of all pages, and of the database."""


def header_bytes(
    page_size: int,
    *,
    state: int = 3,
    required: tuple[int, int] = (0, 0),
    committed: int = 0,
    log_signature: bytes = bytes(28),
    log_time: bytes = bytes(8),
    signature: bytes = bytes(28),
) -> bytes:
    """One copy of a database header."""
    header = bytearray(page_size)
    struct.pack_into("<IIIQ", header, 4, 0x89ABCDEF, 0x620, 0, _DBTIME)
    header[24:52] = signature
    struct.pack_into("<I", header, 52, state)
    header[108:136] = log_signature
    struct.pack_into("<II", header, 232, 20, page_size)
    struct.pack_into("<ii", header, 296, *required)
    header[348:356] = log_time
    struct.pack_into("<i", header, 416, committed)
    struct.pack_into("<I", header, 667, 1)
    struct.pack_into("<I", header, 0, xor32(bytes(header)))
    return bytes(header)


def page_bytes(
    size: int,
    number: int,
    objid: int,
    *,
    flags: int,
    external: bytes,
    nodes: Nodes,
    previous: int = 0,
    following: int = 0,
) -> bytes:
    """One page; keys that share over two bytes with the external header are stored compressed, but not on roots."""
    large = size > LARGE_PAGE
    data_start = 80 if large else 40
    prefix = b"" if flags & PageFlag.ROOT else external
    parts = [(external, 0)] + [_node(key, data, node_flags, prefix) for key, data, node_flags in nodes]
    body, tags = bytearray(), bytearray()
    for tag, (content, node_flags) in enumerate(parts):
        offset = len(body)
        if large and tag:
            body += content[:1] + bytes([content[1] | node_flags << 5]) + content[2:]
        else:
            body += content
        place = offset if large else offset | node_flags << 13
        tags[:0] = struct.pack("<HH", len(content), place)
    free = size - data_start - len(body) - len(tags)
    assert free >= 0, f"page {number} is too full by {-free} bytes"
    head = struct.pack(
        "<QQIIIHHHHI", 0, _DBTIME, previous, following, objid, free, 0, len(body), len(parts), int(flags)
    )
    content = head.ljust(data_start, b"\0") + bytes(body) + bytes(free) + bytes(tags)
    return sealed_page(content, number)


def record_bytes(
    columns: Sequence[Column],
    stored: dict[int, bytes],
    tagged: Sequence[tuple[int, int, bytes]] = (),
    *,
    large: bool,
) -> bytes:
    """One record.

    Args:
        columns: Of the table.
        stored: The bytes of fixed and variable columns by identifier; columns that are missing are null.
        tagged: Identifier, flags and bytes of tagged columns.
        large: Whether it is for pages above 8 KiB.
    """
    fixed = [column for column in columns if column.fixed]
    last_fixed = max((column.identifier for column in fixed), default=0)
    nulls = bytearray((last_fixed + 7) // 8)
    body = bytearray()
    for column in fixed:
        body += stored.get(column.identifier, bytes(column.size))
        if column.identifier not in stored:
            nulls[(column.identifier - 1) // 8] |= 1 << (column.identifier - 1) % 8
    last_variable = max((column.identifier for column in columns if column.variable), default=FIRST_VARIABLE - 1)
    ends, variable = bytearray(), bytearray()
    for identifier in range(FIRST_VARIABLE, last_variable + 1):
        variable += stored.get(identifier, b"")
        ends += struct.pack("<H", len(variable) | (0 if identifier in stored else 0x8000))
    head = struct.pack("<BBH", last_fixed, last_variable, 4 + len(body) + len(nulls))
    return head + bytes(body + nulls + ends + variable) + _tagged(tagged, large=large)


def _tagged(tagged: Sequence[tuple[int, int, bytes]], *, large: bool) -> bytes:
    entries, values = bytearray(), bytearray()
    start = 4 * len(tagged)
    for identifier, flags, content in sorted(tagged):
        has_flags = large or flags != 0
        entries += struct.pack("<HH", identifier, start + len(values) | (0x4000 if has_flags and not large else 0))
        values += (bytes([flags]) if has_flags else b"") + content
    return bytes(entries + values)


def database_bytes(page_size: int, table: TableContent, *, header: bytes | None = None) -> bytes:
    """A database with one table of its own, whose tree has two leaves below its root."""
    root, left, right, values = _FIRST_FREE, _FIRST_FREE + 1, _FIRST_FREE + 2, _FIRST_FREE + 3
    pages = {
        1: page_bytes(page_size, 1, 1, flags=_LEAF_ROOT, external=struct.pack("<iIII", _LAST, 0, 1, 2), nodes=[]),
        2: _space(page_size, 2, 1, [(_LAST, _LAST)]),
        3: _space(page_size, 3, 1, [(_LAST, _LAST - values)]),
    }
    catalog = _catalog(table, root, values)
    for number, objid in ((_CATALOG_ROOT, 2), (_SHADOW_ROOT, 3)):
        pages[number] = page_bytes(page_size, number, objid, flags=_LEAF_ROOT, external=_single(1), nodes=catalog)
    half = len(table.records) // 2
    first, second = table.records[:half], table.records[half:]
    bound = first[-1][0] if first else b"\0"
    branch = [(bound, struct.pack("<I", left), 0), (b"", struct.pack("<I", right), 0)]
    root_flags = _RECORD | PageFlag.ROOT | PageFlag.PARENT_OF_LEAF
    pages[root] = page_bytes(page_size, root, 10, flags=root_flags, external=_single(3), nodes=branch)
    pages[left] = _leaf(page_size, left, first, following=right)
    pages[right] = _leaf(page_size, right, second, previous=left)
    pages[values] = page_bytes(
        page_size, values, 11, flags=_LEAF_ROOT | PageFlag.LONG_VALUE, external=_single(1), nodes=_long_values(table)
    )
    head = header if header is not None else header_bytes(page_size)
    blank = bytes(page_size)
    return head * 2 + b"".join(pages.get(number, blank) for number in range(1, _LAST + 1))


def _node(key: bytes, data: bytes, flags: int, prefix: bytes) -> tuple[bytes, int]:
    shared = 0
    while shared < min(len(key), len(prefix)) and key[shared] == prefix[shared]:
        shared += 1
    if shared > 2:
        head = struct.pack("<HH", shared, len(key) - shared)
        return head + key[shared:] + data, flags | NodeFlag.COMPRESSED
    return struct.pack("<H", len(key)) + key + data, flags


def _leaf(
    size: int, number: int, records: Sequence[tuple[bytes, bytes]], *, previous: int = 0, following: int = 0
) -> bytes:
    prefix = records[0][0] if records else b""
    nodes = [(key, record, 0) for key, record in records]
    flags = _RECORD | PageFlag.LEAF
    return page_bytes(
        size, number, 10, flags=flags, external=prefix, nodes=nodes, previous=previous, following=following
    )


def _space(size: int, number: int, objid: int, extents: Sequence[tuple[int, int]]) -> bytes:
    nodes = [(struct.pack(">I", last), struct.pack("<i", count), 0) for last, count in extents]
    return page_bytes(size, number, objid, flags=_LEAF_ROOT | PageFlag.SPACE_TREE, external=bytes(16), nodes=nodes)


def _single(pages: int) -> bytes:
    """The space header of a tree that has some pages behind its root and uses them all."""
    return struct.pack("<iIII", pages, 1, 0, 0)


def _long_values(table: TableContent) -> Nodes:
    nodes: list[tuple[bytes, bytes, int]] = []
    for identifier, size, parts in table.long_values:
        key = struct.pack(">I", identifier)
        nodes.append((key, struct.pack("<II", 1, size), 0))
        nodes += [(key + struct.pack(">I", offset), part, 0) for offset, part in parts]
    return nodes


def _catalog(table: TableContent, root: int, values: int) -> Nodes:
    objid = 10
    numbers = [(1, objid, root, 0, 0, 0, 0)]
    numbers += [
        (2, one.identifier, int(one.type), one.size, one.flags, one.codepage, one.offset or 0) for one in table.columns
    ]
    numbers.append((4, objid + 1, values, 0, 0, 0, 0))
    names = [table.name, *(column.name for column in table.columns), "LV"]
    return [_entry(objid, *pair) for pair in zip(numbers, names, strict=True)]


def _entry(objid: int, numbers: tuple[int, ...], name: str) -> tuple[bytes, bytes, int]:
    kind, identifier, *rest, offset = numbers
    fixed = struct.pack("<ihiiiiiBh", objid, kind, identifier, *rest, 0, offset)
    content = name.encode("ascii")
    head = struct.pack("<BBH", 9, FIRST_VARIABLE, 4 + len(fixed) + 2)
    key = struct.pack(">IHI", objid, kind, identifier)
    return key, head + fixed + bytes(2) + struct.pack("<H", len(content)) + content, 0

"""Recovery-point records and source descriptors: small sealed objects, msgpack inside.

A record is ``points/SOURCE/NUMBER`` (eight decimal digits). Writing it, with create-if-absent, is the only
commit point of a pool: two processes that would commit the same number cannot both succeed.

A source descriptor is ``sources/SOURCE``, with a twin ``sources/SOURCE.copy`` that is read when the first is damaged.
"""

from __future__ import annotations

import contextlib

from perdure.model.errors import Damaged
from perdure.model.points import DataSource, RecoveryPoint
from perdure.repository.container import Kind
from perdure.repository.documents import numbered, read_document, write_document
from perdure.repository.keys import KeyRing
from perdure.storage.contract import ObjectExists, Storage

__all__ = [
    "copy_source",
    "point_name",
    "point_number",
    "read_point",
    "read_source",
    "source_name",
    "write_point",
    "write_source",
]


def point_name(source: str, number: int) -> str:
    """Object name of a record."""
    return f"points/{source}/{number:08d}"


def point_number(name: str) -> int | None:
    """The number in a record's object name, or ``None`` if it is not one."""
    return numbered(name)


def source_name(source: str) -> str:
    """Object name of a source descriptor."""
    return f"sources/{source}"


def write_point(storage: Storage, keys: KeyRing, point: RecoveryPoint) -> int:
    """Commit a record; durable on return. Returns its size.

    Raises:
        ObjectExists: This number is taken.
    """
    return write_document(storage, keys, point_name(point.source, point.number), Kind.POINT, point)


def read_point(storage: Storage, keys: KeyRing, name: str) -> RecoveryPoint:
    """Read a record.

    Raises:
        Damaged: It is not what was written, or lies under another's name.
    """
    point = read_document(storage, keys, name, Kind.POINT, RecoveryPoint)
    if point_name(point.source, point.number) != name:
        raise Damaged(f"{name} is damaged: it is the record of another point", code="damaged-object")
    return point


def write_source(storage: Storage, keys: KeyRing, source: DataSource) -> None:
    """Register a source; durable on return."""
    write_document(storage, keys, source_name(source.id) + ".copy", Kind.SOURCE, source)
    write_document(storage, keys, source_name(source.id), Kind.SOURCE, source)


def copy_source(storage: Storage, keys: KeyRing, source: DataSource) -> None:
    """Register a source that has its id from another pool; what an interrupted call left is completed."""
    for name in (source_name(source.id) + ".copy", source_name(source.id)):
        with contextlib.suppress(ObjectExists):
            write_document(storage, keys, name, Kind.SOURCE, source)


def read_source(storage: Storage, keys: KeyRing, name: str) -> DataSource:
    """Read a source descriptor.

    Raises:
        Damaged: It is not what was written, or lies under another's name.
    """
    source = read_document(storage, keys, name, Kind.SOURCE, DataSource)
    if source_name(source.id) != name.removesuffix(".copy"):
        raise Damaged(f"{name} is damaged: it describes another source", code="damaged-object")
    return source

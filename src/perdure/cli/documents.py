"""Values of the domain as JSON documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from perdure.model.drills import Drill
from perdure.model.moments import rfc3339
from perdure.model.points import DataSource, RecoveryPoint
from perdure.model.positions import Position

__all__ = ["drill_document", "plain", "point_document", "source_document"]


def plain(value: object) -> Any:
    """A value as JSON has it.

    Dataclasses become objects, positions their text, bytes hexadecimal digits. A field ``*_ns`` is a moment:
    it loses the suffix and becomes an RFC 3339 time in UTC, or null when it is 0.
    """
    if isinstance(value, Position):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, RecoveryPoint):
        return point_document(value)
    if isinstance(value, DataSource):
        return source_document(value)
    if isinstance(value, Drill):
        return drill_document(value)
    if is_dataclass(value) and not isinstance(value, type):
        return dict(_pair(field.name, getattr(value, field.name)) for field in fields(value))
    if hasattr(value, "__struct_fields__"):
        return dict(_pair(name, getattr(value, name)) for name in value.__struct_fields__)
    if isinstance(value, Mapping):
        return dict(_pair(str(key), item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, Path):
        return str(value)
    return value


def drill_document(drill: Drill) -> dict[str, Any]:
    """A drill with its verdict; the source is left to whoever names it."""
    shown = dict(_pair(field.name, getattr(drill, field.name)) for field in fields(drill) if field.name != "source")
    return {
        "passed": drill.passed,
        "failure": drill.failure,
        "recovery_seconds": drill.recovery_seconds,
        **shown,
    }


def point_document(point: RecoveryPoint) -> dict[str, Any]:
    """A recovery point without the parts that only a pool can read."""
    return {
        "number": point.number,
        "kind": point.kind.value,
        "time": rfc3339(point.time_ns),
        "position": None if point.position is None else str(point.position),
        "size": point.size,
        "changed": point.changed,
        "stored": point.stored,
        "read": point.read,
        "cause": point.cause,
        "notes": list(point.notes),
        "committed": rfc3339(point.committed_ns) if point.committed_ns else None,
    }


def source_document(source: DataSource) -> dict[str, Any]:
    """A data source as registered."""
    return {
        "id": source.id,
        "name": source.name,
        "workload": source.workload,
        "location": source.location,
        "options": {key: list(values) for key, values in source.options.items()},
        "registered": rfc3339(source.registered_ns) if source.registered_ns else None,
    }


def _pair(name: str, value: object) -> tuple[str, Any]:
    if name.endswith("_ns") and isinstance(value, int):
        return name.removesuffix("_ns"), rfc3339(value) if value else None
    return name, plain(value)

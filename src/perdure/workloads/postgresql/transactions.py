"""The ends of transactions in the WAL, and what else a person may name: restore points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.workloads.postgresql.blocks import main_data
from perdure.workloads.postgresql.records import Records
from perdure.workloads.postgresql.replication import EPOCH_US

__all__ = ["TRANSACTION", "RestorePoint", "backup_ends", "restore_points", "transaction_ends"]

TRANSACTION = np.dtype([("place", "<u8"), ("time_ns", "<i8"), ("xid", "<u4"), ("kind", "<u4")])
"""The end of a transaction: LSN after its record, its own time, its number, and the kind of record."""

_XLOG, _XACT = 0, 1
COMMIT, PREPARE, COMMIT_PREPARED = 0x00, 0x10, 0x30
_BACKUP_END, _RESTORE_POINT = 0x50, 0x70

_TIME_OF_PREPARE = 16
"""Where a prepare has its time: after magic number, total length, transaction and database."""

_HAS_INFO = 0x80
_DATABASE, _SUBTRANSACTIONS, _FILES, _MESSAGES, _TWO_PHASE, _STATISTICS = 1, 2, 4, 8, 16, 256


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A named restore point: its name, the LSN after its record and its time in nanoseconds since 1970 UTC."""

    name: str
    place: int
    time_ns: int


def transaction_ends(records: Records) -> NDArray[np.void]:
    """Commits and prepares in order, an array of :data:`TRANSACTION`."""
    kinds = records.infos & 0x70
    rows = np.flatnonzero((records.managers == _XACT) & np.isin(kinds, (COMMIT, PREPARE, COMMIT_PREPARED)))
    found = np.empty(len(rows), TRANSACTION)
    found["place"] = records.ends[rows]
    found["xid"] = records.xids[rows]
    found["kind"] = kinds[rows]
    for number, row in enumerate(rows.tolist()):
        data = main_data(records, row)
        kind = int(kinds[row])
        found["time_ns"][number] = _moment_ns(data, _TIME_OF_PREPARE if kind == PREPARE else 0)
        if kind == COMMIT_PREPARED:
            found["xid"][number] = _prepared_xid(data, int(records.infos[row]))
    return found


def _prepared_xid(data: bytes, info: int) -> int:
    """The transaction that COMMIT PREPARED ends (``xl_xact_commit``); 0 if it cannot be told."""
    if not info & _HAS_INFO:
        return 0
    flags = _u32(data, 8)
    at = 12 + (8 if flags & _DATABASE else 0)
    if not flags & _TWO_PHASE or flags & _STATISTICS:
        # The size of an item of dropped statistics depends on the version.
        return 0
    for flag, size in ((_SUBTRANSACTIONS, 4), (_FILES, 12), (_MESSAGES, 16)):
        if flags & flag:
            at += 4 + size * _u32(data, at)
    return _u32(data, at)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def restore_points(records: Records) -> tuple[RestorePoint, ...]:
    """The named restore points among the records."""
    rows = np.flatnonzero((records.managers == _XLOG) & ((records.infos & 0xF0) == _RESTORE_POINT))
    points = []
    for row in rows.tolist():
        data = main_data(records, row)
        name = data[8:].split(b"\0", 1)[0].decode("utf-8", "replace")
        points.append(RestorePoint(name, int(records.ends[row]), _moment_ns(data, 0)))
    return tuple(points)


def backup_ends(records: Records) -> list[int]:
    """Rows of the records that end a backup."""
    return np.flatnonzero((records.managers == _XLOG) & ((records.infos & 0xF0) == _BACKUP_END)).tolist()


def _moment_ns(data: bytes, at: int) -> int:
    if len(data) < at + 8:
        return 0
    return (int.from_bytes(data[at : at + 8], "little", signed=True) + EPOCH_US) * 1000

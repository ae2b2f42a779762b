"""Places in the log by PostgreSQL's own names: LSN, transaction, named restore point."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from perdure.model.errors import BadInput
from perdure.model.logs import StoredSegment
from perdure.model.positions import Position
from perdure.workloads.postgresql.lsn import parse_lsn
from perdure.workloads.postgresql.segment_index import decode_index
from perdure.workloads.postgresql.transactions import COMMIT, COMMIT_PREPARED

__all__ = ["find_mark"]

Find = Callable[[StoredSegment], int | None]
"""The LSN of a place in a segment, ``None`` if it is not there."""


def find_mark(text: str, log: Iterable[StoredSegment]) -> Position | None:
    """See :meth:`perdure.workloads.contract.MarkingWorkload.find_mark`.

    A restore point's name may have been used again, and a transaction's number too: the newest one is found.
    """
    find = _finder(text)
    for segment in log:
        lsn = find(segment)
        if lsn is not None:
            return Position(segment.last.generation, lsn)
    return None


def _finder(text: str) -> Find:
    kind, colon, value = text.partition(":")
    if not colon:
        return _by_lsn(parse_lsn(text))
    if kind == "lsn":
        return _by_lsn(parse_lsn(value))
    if kind == "xid":
        if not value.isdecimal() or int(value) >= 1 << 32:
            raise BadInput(f"{value!r} is not a transaction's number", code="bad-target", hint="write it like xid:742")
        return _by_transaction(int(value))
    return _by_name(value)


def _by_lsn(lsn: int) -> Find:
    def find(segment: StoredSegment) -> int | None:
        return lsn if segment.span.after_place <= lsn <= segment.last.place else None

    return find


def _by_transaction(xid: int) -> Find:
    def find(segment: StoredSegment) -> int | None:
        ends = decode_index(segment.index).transaction_ends()
        rows = np.flatnonzero((ends["xid"] == xid) & np.isin(ends["kind"], (COMMIT, COMMIT_PREPARED)))
        return int(ends["place"][rows[-1]]) if len(rows) else None

    return find


def _by_name(name: str) -> Find:
    def find(segment: StoredSegment) -> int | None:
        places = [point.place for point in decode_index(segment.index).restore_points() if point.name == name]
        return places[-1] if places else None

    return find

"""Places that a person names in PostgreSQL's own words: an LSN, a transaction, a restore point."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from perdure.model.errors import BadInput, NotFound
from perdure.model.logs import StoredSegment
from perdure.model.positions import Position
from perdure.workloads.postgresql.lsn import format_lsn, parse_lsn
from perdure.workloads.postgresql.segment_index import decode_index

__all__ = ["locate"]


def locate(kind: str, text: str, segments: Iterable[StoredSegment]) -> Position:
    """Find a place in the log; the newest one where there are several.

    Args:
        kind: ``lsn``, ``xid`` or ``name``.
        text: The LSN, the transaction's number, or the restore point's name.
        segments: The stored log, oldest first.

    Raises:
        BadInput: The text is no such thing.
        NotFound: It is not in the log.
    """
    if kind == "lsn":
        return _lsn(parse_lsn(text), segments)
    if kind == "xid":
        if not text.isdecimal():
            raise BadInput(f"{text!r} is not a transaction number", code="bad-target", hint="write it like xid:1234")
        return _transaction(int(text) & 0xFFFFFFFF, segments)
    if kind == "name":
        return _restore_point(text, segments)
    raise BadInput(f"a PostgreSQL source has no {kind}", code="bad-target", hint="write lsn:, xid: or name:")


def _lsn(lsn: int, segments: Iterable[StoredSegment]) -> Position:
    found = [segment.last.generation for segment in segments if segment.after.place < lsn <= segment.last.place]
    if not found:
        raise NotFound(
            f"{format_lsn(lsn)} is not in the log in the pool", code="place-not-found", hint="see: perdure points NAME"
        )
    return Position(max(found), lsn)


def _transaction(xid: int, segments: Iterable[StoredSegment]) -> Position:
    found: Position | None = None
    for segment in segments:
        transactions = decode_index(segment.index).transaction_ends()
        places = transactions["place"][transactions["xid"] == xid]
        if len(places):
            found = Position(segment.last.generation, int(np.max(places)))
    if found is None:
        raise NotFound(
            f"no transaction {xid} was committed in the log in the pool",
            code="place-not-found",
            hint="a transaction that wrote nothing has no number; name a time instead",
        )
    return found


def _restore_point(name: str, segments: Iterable[StoredSegment]) -> Position:
    known: dict[str, Position] = {}
    for segment in segments:
        for point in decode_index(segment.index).restore_points():
            known[point.name] = Position(segment.last.generation, point.place)
    if name not in known:
        there = ", ".join(list(known)[-5:]) or "none"
        raise NotFound(
            f"no restore point {name!r} is in the log in the pool", code="place-not-found", hint=f"there are: {there}"
        )
    return known[name]

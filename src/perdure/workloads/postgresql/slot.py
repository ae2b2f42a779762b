"""The replication slot: it keeps WAL on the server until it is in the pool, and must not fill the server's disk."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from perdure.model.errors import SourceUnusable
from perdure.workloads.postgresql.connecting import Sql, server_sentence

__all__ = ["Slot", "drop_slot", "look_at_slot", "slot_name"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot as the server shows it.

    Args:
        active: Whether a connection uses it.
        wal_status: ``reserved``, ``extended``, ``unreserved`` or ``lost``; empty before it keeps anything.
        retained: Bytes of WAL that it keeps.
        safe: Bytes that may still be written before it is lost; ``None``: no limit is set.
    """

    active: bool
    wal_status: str
    retained: int
    safe: int | None


def slot_name(source_id: str) -> str:
    """The slot of a data source; several pools may protect one cluster, each with a slot of its own."""
    return f"perdure_{source_id[:12]}"


def look_at_slot(connection: Sql, name: str) -> Slot | None:
    """A slot's state, ``None`` if there is none of this name.

    Raises:
        SourceUnusable: The server does not answer.
    """
    try:
        rows = connection.execute(
            "SELECT active, coalesce(wal_status, ''), coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()"
            " THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint, safe_wal_size"
            " FROM pg_replication_slots WHERE slot_name = %s",
            (name,),
        ).fetchall()
    except psycopg.Error as error:
        raise SourceUnusable(f"the server does not answer: {server_sentence(error)}", code="server-gone") from error
    return Slot(*rows[0]) if rows else None


def drop_slot(connection: Sql, name: str) -> None:
    """Drop a slot if it is there and nobody uses it.

    Raises:
        SourceUnusable: The server refuses.
    """
    try:
        connection.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active",
            (name,),
        )
    except psycopg.Error as error:
        raise SourceUnusable(
            f"the replication slot {name} cannot be dropped: {server_sentence(error)}", code="slot-unusable"
        ) from error

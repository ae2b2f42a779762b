"""Backup sets: which databases a requester backs up, what their headers will remember of it, and what it lets go."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from perdure.snapshots.writer import BackupKind, Blocker, BlockerKind
from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.header_fields import BackupStamp, DatabaseFields, log_time_bytes
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.log_stream import log_position

__all__ = ["BackupSet", "SetState", "Truncation", "snapshot_stamp", "stamp_header", "truncation_limit"]


class SetState(Enum):
    """How far a set is."""

    PREPARED = "prepared"
    FROZEN = "frozen"
    THAWED = "thawed"
    FAILED = "failed"


@dataclass(eq=False, repr=False)
class BackupSet:
    """One set.

    Args:
        identifier: Its name.
        kind: What it is.
        databases: What it backs up.
        closed: The highest closed generation of each database's stream when it was prepared, by name.
        stamps: What a header remembers of it, by name; made at the freeze.
    """

    identifier: str
    kind: BackupKind
    databases: list[HostedDatabase]
    closed: dict[str, int]
    state: SetState = SetState.PREPARED
    stamps: dict[str, BackupStamp] = field(default_factory=dict)
    timer: threading.Timer | None = None

    def engines(self) -> list[Engine]:
        """The engines that it concerns, each once."""
        found: list[Engine] = []
        for hosted in self.databases:
            if hosted.engine is not None and hosted.engine not in found:
                found.append(hosted.engine)
        return found


def snapshot_stamp(engine: Engine, fields: DatabaseFields, kind: BackupKind) -> BackupStamp:
    """What the header inside of a snapshot says: from which to which generation logs belong to it."""
    first = fields.min_required
    if kind is BackupKind.INCREMENTAL:
        first = 1 + max(fields.full.last, fields.incremental.last)
    here = log_position(engine.stream.end)
    return BackupStamp(here, log_time_bytes(engine.clock()), first, engine.stream.generation)


def stamp_header(fields: DatabaseFields, kind: BackupKind, stamp: BackupStamp) -> None:
    """Let a header remember a backup; a full one makes it forget the incremental ones since the last."""
    match kind:
        case BackupKind.FULL:
            fields.full, fields.incremental = stamp, BackupStamp()
        case BackupKind.INCREMENTAL:
            fields.incremental = stamp
        case BackupKind.COPY:
            fields.copy = stamp


@dataclass(frozen=True, slots=True)
class Truncation:
    """What may be deleted.

    Args:
        below: The lowest generation that has to stay.
        blockers: What keeps the generations that the backup itself would let go.
    """

    below: int
    blockers: tuple[Blocker, ...]


def truncation_limit(
    engine: Engine, done: BackupSet, hosted: HostedDatabase, replicas: Callable[[str], list[Blocker]]
) -> Truncation:
    """What a complete full or incremental backup lets an engine delete.

    A log goes when it is backed up, lies below the checkpoint, no other database of the stream needs it for its own
    next backup, and every copy of the database has it: replayed, or for a lagged copy, inspected.

    Args:
        engine: The engine of the stream.
        done: The backup.
        hosted: The database.
        replicas: What copies of a database hold back, by its name.
    """
    backed_up = done.closed[hosted.name] + 1
    blockers = [Blocker(BlockerKind.CHECKPOINT, engine.checkpoint.generation)]
    ours = {one.name for one in done.databases}
    for name, other in engine.databases.items():
        if name in ours:
            continue
        fields = other.file.fields
        last = max(fields.full.last, fields.incremental.last)
        kind = BlockerKind.OTHER_DATABASE if fields.full else BlockerKind.NO_FULL_BACKUP
        blockers.append(Blocker(kind, last + 1 if fields.full else 1, name))
    blockers += replicas(hosted.name)
    holding = tuple(blocker for blocker in blockers if blocker.generation < backed_up)
    return Truncation(min([backed_up, *(blocker.generation for blocker in holding)]), holding)

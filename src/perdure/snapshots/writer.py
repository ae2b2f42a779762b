"""The writer protocol: how an engine that owns live files helps to back them up.

A *writer* is the engine's side (on Windows the Exchange writer behind VSS), a *requester* is perdure. The order is
that of VSS on every platform::

    prepare(full | copy | incremental) -> freeze -> [snapshot] -> thaw -> [transfer, verify, commit] -> complete | abort

``complete`` is the promise that the named databases are durable elsewhere, and the only thing that lets a writer
stamp their headers and delete log. A writer thaws by itself :data:`FREEZE_LIMIT_S` after a freeze; the set has
failed then, and a snapshot taken of it counts for nothing. A requester that vanishes has aborted its sets.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from perdure.model.errors import ImageFailed

__all__ = [
    "FREEZE_LIMIT_S",
    "SOCKET_NAME",
    "BackupKind",
    "BackupMark",
    "Blocker",
    "BlockerKind",
    "CompletedDatabase",
    "CopyRole",
    "DatabaseCopy",
    "DatabaseState",
    "DatabaseStatus",
    "FailedAtFreeze",
    "Frozen",
    "NonRetryable",
    "Retryable",
    "StoreWriter",
    "WriterError",
    "WriterTimeout",
]

FREEZE_LIMIT_S = 20.0
"""Seconds after which a writer thaws by itself."""

SOCKET_NAME = "perdure-writer.sock"
"""Name of the socket in a store's folder on which its writer is served."""


class BackupKind(enum.StrEnum):
    """What a backup set is: only the first and the last let the writer truncate log."""

    FULL = "full"
    COPY = "copy"
    INCREMENTAL = "incremental"


class DatabaseState(enum.StrEnum):
    """Whether the engine has a database open."""

    MOUNTED = "mounted"
    DISMOUNTED = "dismounted"
    FAILED = "failed"


class CopyRole(enum.StrEnum):
    """What a copy of a database is in its availability group; a database without copies is active."""

    ACTIVE = "active"
    PASSIVE = "passive"
    LAGGED = "lagged"


class BlockerKind(enum.StrEnum):
    """What keeps log from being truncated."""

    CHECKPOINT = "checkpoint"
    LAGGED_COPY = "lagged-copy"
    COPY_NOT_REPLAYED = "copy-not-replayed"
    CIRCULAR_LOGGING = "circular-logging"
    OTHER_DATABASE = "other-database"
    NO_FULL_BACKUP = "no-full-backup"


@dataclass(frozen=True, slots=True)
class BackupMark:
    """A backup that a database's header remembers.

    Args:
        generation_low: First log generation that belonged to it; 0 if unknown.
        generation_high: Last one.
        time_ns: When it was taken, nanoseconds since 1970 UTC.
    """

    generation_low: int
    generation_high: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class DatabaseCopy:
    """The same database on another node of an availability group.

    Args:
        node: Name of the node.
        folder: Folder of the store on that node, as this writer knows it.
        database_path: Path of its database file.
        log_folder: Folder of its log.
        role: What it is now.
        replayed_generation: Highest log generation replayed into it; for the active copy the current one.
        inspected_generation: Highest log generation that arrived there and was found sound.
        replay_lag_s: Seconds by which a lagged copy stays behind; 0 for others.
        healthy: Whether it can be switched to, or backed up, now.
    """

    node: str
    folder: str
    database_path: str
    log_folder: str
    role: CopyRole
    replayed_generation: int
    inspected_generation: int
    replay_lag_s: float = 0.0
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """One database as its engine sees it.

    Args:
        name: The administrator's name for it, unique in the store.
        guid: Its identity in the directory, in lower-case hexadecimal with hyphens.
        database_path: Path of its ``.edb`` file.
        log_folder: Folder of its log stream.
        log_base: Base name of the stream, ``E00`` to ``E99``.
        checkpoint_path: Path of the stream's checkpoint file.
        state: Whether the engine has it open.
        circular_logging: Whether the engine deletes log without a backup.
        role: What this copy is.
        node: Name of the node that this copy is on; may be empty outside of an availability group.
        replay_lag_s: Seconds by which this copy stays behind, if it is a lagged one.
        replayed_generation: Highest log generation in this copy's database; for the active one the current one.
        copies: The other copies.
        last_full: The last full backup, of whatever product.
        last_incremental: The last incremental backup since that.
        last_copy: The last copy backup.
    """

    name: str
    guid: str
    database_path: str
    log_folder: str
    log_base: str
    checkpoint_path: str
    state: DatabaseState
    circular_logging: bool = False
    role: CopyRole = CopyRole.ACTIVE
    node: str = ""
    replay_lag_s: float = 0.0
    replayed_generation: int = 0
    copies: tuple[DatabaseCopy, ...] = ()
    last_full: BackupMark | None = None
    last_incremental: BackupMark | None = None
    last_copy: BackupMark | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    """Databases whose files nobody writes.

    Args:
        seconds_left: Until the writer thaws by itself, measured at the answer.
        current_generations: Generation of the current log of every frozen database, by name.
    """

    seconds_left: float
    current_generations: dict[str, int]


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why log from some generation on was kept.

    Args:
        kind: What keeps it.
        generation: The lowest generation that must stay because of it.
        who: The node or database that is meant; empty where there is only one.
    """

    kind: BlockerKind
    generation: int
    who: str = ""


@dataclass(frozen=True, slots=True)
class CompletedDatabase:
    """What a writer did when a backup was complete.

    Args:
        name: The database.
        stamped: Whether its header now remembers this backup.
        truncated: First and last log generation deleted, inclusive; ``None`` if none was.
        blockers: What kept the rest.
    """

    name: str
    stamped: bool
    truncated: tuple[int, int] | None = None
    blockers: tuple[Blocker, ...] = ()


class WriterError(ImageFailed):
    """A writer did not do what it was asked to; nothing was truncated."""

    default_code = "writer-failed"


class Retryable(WriterError):
    """The writer cannot do it now (another backup runs, it is busy) and can later."""

    default_code = "writer-busy"


class NonRetryable(WriterError):
    """The writer cannot do it, and trying again will not change that."""

    default_code = "writer-refused"


class WriterTimeout(WriterError):
    """The writer did not answer, or a call came after it had thawed by itself."""

    default_code = "writer-timeout"


class FailedAtFreeze(WriterError):
    """The writer could not hold its writes; the set has failed and is to be aborted."""

    default_code = "writer-freeze-failed"


class StoreWriter(Protocol):
    """The writer of one store folder. Its methods may be called from several threads at once.

    Every method may raise :class:`Retryable`, :class:`NonRetryable` or :class:`WriterTimeout`.
    """

    def describe(self) -> tuple[DatabaseStatus, ...]:
        """Every database of the store as it is now, dismounted ones too. Changes nothing."""
        ...

    def prepare(self, databases: Sequence[str], kind: BackupKind) -> str:
        """Begin a backup set of databases by name; closes the current log so that all before it can be shipped.

        Returns:
            The set's id, for the other calls.

        Raises:
            Retryable: A backup of one of them is under way.
            NonRetryable: One is unknown, dismounted or failed; or an incremental was asked for with circular
                logging or without a full backup before it.
        """
        ...

    def freeze(self, backup_set: str) -> Frozen:
        """Hold all writes to the files of the set, for at most :data:`FREEZE_LIMIT_S`.

        Raises:
            FailedAtFreeze: Writes could not be held.
        """
        ...

    def thaw(self, backup_set: str) -> None:
        """Let writes go on. After this has returned, a snapshot taken since the freeze is consistent.

        Raises:
            WriterTimeout: The writer had thawed by itself: whatever was copied meanwhile is worthless.
        """
        ...

    def complete(self, backup_set: str, succeeded: Sequence[str]) -> tuple[CompletedDatabase, ...]:
        """End the set; what ``succeeded`` names is durable elsewhere and may be stamped, and its log truncated.

        Raises:
            WriterTimeout: The set had failed at its freeze; nothing was stamped or truncated.
        """
        ...

    def abort(self, backup_set: str) -> None:
        """End the set as if it had never been; thaws if need be, stamps and truncates nothing. May be called twice."""
        ...

"""A writer that only remembers what it was asked to do."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from perdure.snapshots.writer import (
    BackupKind,
    BackupMark,
    Blocker,
    BlockerKind,
    CompletedDatabase,
    CopyRole,
    DatabaseCopy,
    DatabaseState,
    DatabaseStatus,
    Frozen,
    NonRetryable,
    Retryable,
)

MAILBOXES = DatabaseStatus(
    name="Mailboxes 1",
    guid="0f1e2d3c-0000-4000-8000-123456789abc",
    database_path="/store/Mailboxes 1/Mailboxes 1.edb",
    log_folder="/store/Mailboxes 1",
    log_base="E00",
    checkpoint_path="/store/Mailboxes 1/E00.chk",
    state=DatabaseState.MOUNTED,
    role=CopyRole.PASSIVE,
    node="EX2",
    replayed_generation=41,
    copies=(
        DatabaseCopy("EX1", "/nodes/EX1", "/nodes/EX1/Mailboxes 1.edb", "/nodes/EX1", CopyRole.ACTIVE, 43, 43),
        DatabaseCopy("EX3", "/nodes/EX3", "/nodes/EX3/M.edb", "/nodes/EX3", CopyRole.LAGGED, 12, 42, 86_400.0, False),
    ),
    last_full=BackupMark(1, 17, 1_700_000_000_000_000_000),
)

COMPLETED = CompletedDatabase("Mailboxes 1", True, (18, 40), (Blocker(BlockerKind.LAGGED_COPY, 41, "EX3"),))


class MemoryWriter:
    """Implements ``StoreWriter``; ``failure`` is raised by every call but ``abort`` while it is set."""

    def __init__(self) -> None:
        self.open_sets: dict[str, tuple[tuple[str, ...], BackupKind]] = {}
        self.calls: list[str] = []
        self.succeeded: tuple[str, ...] = ()
        self.failure: Exception | None = None
        self.aborted = threading.Event()
        self.answering = threading.Event()
        self.answering.set()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self.answering.wait()
        if self.failure is not None:
            raise self.failure

    def describe(self) -> tuple[DatabaseStatus, ...]:
        self._called("describe")
        return (MAILBOXES,)

    def prepare(self, databases: Sequence[str], kind: BackupKind) -> str:
        self._called("prepare")
        if self.open_sets:
            raise Retryable("a backup is under way", hint="wait for it")
        name = f"set-{len(self.calls)}"
        self.open_sets[name] = (tuple(databases), kind)
        return name

    def freeze(self, backup_set: str) -> Frozen:
        self._called("freeze")
        return Frozen(19.5, dict.fromkeys(self._databases(backup_set), 43))

    def thaw(self, backup_set: str) -> None:
        self._called("thaw")
        self._databases(backup_set)

    def complete(self, backup_set: str, succeeded: Sequence[str]) -> tuple[CompletedDatabase, ...]:
        self._called("complete")
        self._databases(backup_set)
        del self.open_sets[backup_set]
        self.succeeded = tuple(succeeded)
        return (COMPLETED,)

    def abort(self, backup_set: str) -> None:
        self.calls.append("abort")
        self.open_sets.pop(backup_set, None)
        self.aborted.set()

    def _databases(self, backup_set: str) -> tuple[str, ...]:
        if backup_set not in self.open_sets:
            raise NonRetryable(f"there is no backup set {backup_set!r}")
        return self.open_sets[backup_set][0]

"""The writer of a store: prepare, freeze, thaw, complete and abort, by the rules of the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from perdure.snapshots.writer import (
    FREEZE_LIMIT_S,
    BackupKind,
    BackupMark,
    Blocker,
    BlockerKind,
    CompletedDatabase,
    CopyRole,
    DatabaseCopy,
    DatabaseState,
    DatabaseStatus,
    FailedAtFreeze,
    Frozen,
    NonRetryable,
    Retryable,
    WriterTimeout,
)
from perdure.testing.information_store import log_records as log
from perdure.testing.information_store.backup_sets import (
    BackupSet,
    SetState,
    Truncation,
    snapshot_stamp,
    stamp_header,
    truncation_limit,
)
from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.header_fields import BackupStamp, DatabaseFields, time_of
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.store import InformationStore

__all__ = ["BackupWriter", "mark_of"]

_BEGIN, _TRUNCATE, _UPDATE, _ABORT, _STOP = 1, 3, 4, 5, 6
"""Phases of a backup in the log."""

_OS_SNAPSHOT = 1
_SCOPES = {BackupKind.FULL: 1, BackupKind.INCREMENTAL: 2, BackupKind.COPY: 5}


class BackupWriter:
    """Implements :class:`perdure.snapshots.writer.StoreWriter` for a store.

    Args:
        store: The store.
        freeze_limit_s: Seconds after which it thaws by itself.
        replicas: What copies of a database hold back when its log is truncated, by its name.
        copies: The copies of a database on other nodes, by its name.
        truncated: Called with a database and the lowest generation that stays, when log was truncated.
    """

    def __init__(
        self,
        store: InformationStore,
        *,
        freeze_limit_s: float = FREEZE_LIMIT_S,
        replicas: Callable[[str], list[Blocker]] = lambda _name: [],
        copies: Callable[[str], tuple[DatabaseCopy, ...]] = lambda _name: (),
        truncated: Callable[[str, int], None] = lambda _name, _below: None,
    ) -> None:
        self._store = store
        self._limit = freeze_limit_s
        self._replicas, self._copies, self._truncated = replicas, copies, truncated
        self._sets: dict[str, BackupSet] = {}
        self._lock = threading.RLock()
        self._count = 0

    def describe(self) -> tuple[DatabaseStatus, ...]:
        with self._lock:
            return tuple(self._status(hosted) for hosted in self._store.databases.values())

    def prepare(self, databases: Sequence[str], kind: BackupKind) -> str:
        with self._lock:
            chosen = [self._mounted(name) for name in databases]
            busy = [engine for other in self._sets.values() for engine in other.engines()]
            for hosted in chosen:
                # Databases of one log stream are frozen together, so only one set at a time may concern it.
                if hosted.engine in busy:
                    raise Retryable(f"another backup of {hosted.name} is under way", hint="try again when it has ended")
                self._refuse_incremental(hosted, kind)
            self._count += 1
            made = BackupSet(f"set-{self._count}", kind, chosen, {})
            for engine in made.engines():
                with engine.operating():
                    self._log_phase(made, engine, _BEGIN)
                    engine.roll()
            for hosted in chosen:
                assert hosted.engine is not None
                made.closed[hosted.name] = hosted.engine.stream.generation - 1
            self._sets[made.identifier] = made
            return made.identifier

    def freeze(self, backup_set: str) -> Frozen:
        with self._lock:
            frozen = self._set(backup_set)
            if frozen.state is not SetState.PREPARED:
                raise FailedAtFreeze(f"backup set {backup_set} is {frozen.state.value}, so it cannot be frozen")
            for hosted in frozen.databases:
                if hosted.state is not DatabaseState.MOUNTED:
                    frozen.state = SetState.FAILED
                    raise FailedAtFreeze(f"{hosted.name} is not mounted any more", hint="begin the backup again")
            for engine in frozen.engines():
                with engine.operating():
                    engine.make_durable()
                    self._mark_snapshot(frozen, engine)
                    engine.freeze()
            frozen.state = SetState.FROZEN
            frozen.timer = threading.Timer(self._limit, self._thaw_by_itself, [backup_set])
            frozen.timer.daemon = True
            frozen.timer.start()
            current = {hosted.name: _engine_of(hosted).stream.generation for hosted in frozen.databases}
            return Frozen(self._limit, current)

    def thaw(self, backup_set: str) -> None:
        with self._lock:
            thawed = self._set(backup_set)
            if thawed.state is not SetState.FROZEN:
                raise WriterTimeout(
                    f"backup set {backup_set} is {thawed.state.value}: what was copied of it is worthless",
                    hint="abort the set and begin again",
                )
            self._let_go(thawed, SetState.THAWED)

    def complete(self, backup_set: str, succeeded: Sequence[str]) -> tuple[CompletedDatabase, ...]:
        with self._lock:
            done = self._set(backup_set)
            if done.state is not SetState.THAWED:
                self.abort(backup_set)
                raise WriterTimeout(f"backup set {backup_set} had failed: nothing was stamped and nothing truncated")
            del self._sets[backup_set]
            named = [hosted for hosted in done.databases if hosted.name in succeeded]
            done.databases = named
            results = [self.stamp(done, hosted) for hosted in named]
            return tuple(results)

    def abort(self, backup_set: str) -> None:
        with self._lock:
            aborted = self._sets.pop(backup_set, None)
            if aborted is None:
                return
            if aborted.state is SetState.FROZEN:
                self._let_go(aborted, SetState.FAILED)
            for engine in aborted.engines():
                with engine.operating():
                    self._log_phase(aborted, engine, _ABORT)
                    engine.make_durable()

    def _status(self, hosted: HostedDatabase) -> DatabaseStatus:
        place, plan = hosted.place, self._store.plan
        fields = self._fields(hosted)
        engine = hosted.engine
        return DatabaseStatus(
            name=hosted.name,
            guid=place.guid,
            database_path=str(hosted.path),
            log_folder=str(hosted.log_folder),
            log_base=place.base,
            checkpoint_path=str(hosted.log_folder / f"{place.base}.chk"),
            state=hosted.state,
            circular_logging=plan.circular,
            role=CopyRole.ACTIVE,
            node=self._store.node,
            replayed_generation=engine.stream.generation if engine is not None else 0,
            copies=self._copies(hosted.name),
            last_full=mark_of(fields.full),
            last_incremental=mark_of(fields.incremental),
            last_copy=mark_of(fields.copy),
        )

    def _fields(self, hosted: HostedDatabase) -> DatabaseFields:
        if hosted.database is not None:
            return hosted.database.file.fields
        if not hosted.path.exists():
            return DatabaseFields(self._store.plan.page_size, bytes(28), bytes(28))
        return Engine.read_fields(hosted.path, self._store.plan.page_size)

    def _mounted(self, name: str) -> HostedDatabase:
        hosted = self._store.databases.get(name)
        if hosted is None:
            raise NonRetryable(f"the store has no database {name!r}", hint="ask it to describe what it has")
        if hosted.state is not DatabaseState.MOUNTED:
            raise NonRetryable(f"{name} is {hosted.state.value}", hint="mount it, then begin the backup again")
        return hosted

    def _refuse_incremental(self, hosted: HostedDatabase, kind: BackupKind) -> None:
        if kind is not BackupKind.INCREMENTAL:
            return
        if self._store.plan.circular:
            raise NonRetryable(
                f"{hosted.name} has circular logging: its log does not hold all changes since the last backup",
                hint="take a full backup, or switch circular logging off",
            )
        assert hosted.database is not None
        if not hosted.database.file.fields.full:
            raise NonRetryable(
                f"{hosted.name} has no full backup that this one could add to", hint="take a full backup"
            )

    def _set(self, backup_set: str) -> BackupSet:
        found = self._sets.get(backup_set)
        if found is None:
            raise WriterTimeout(f"there is no backup set {backup_set}: it has ended", hint="begin the backup again")
        return found

    def _thaw_by_itself(self, backup_set: str) -> None:
        with self._lock:
            late = self._sets.get(backup_set)
            if late is not None and late.state is SetState.FROZEN:
                self._let_go(late, SetState.FAILED)

    def _let_go(self, frozen: BackupSet, state: SetState) -> None:
        """Thaw; the files as they are now are no snapshot any more, and their headers say so."""
        if frozen.timer is not None:
            frozen.timer.cancel()
        frozen.state = state
        for engine in frozen.engines():
            engine.thaw()
        for hosted in frozen.databases:
            if hosted.database is None or hosted.engine is None:
                continue
            with hosted.engine.operating():
                file = hosted.database.file
                file.fields.snapshot = BackupStamp()
                file.write_header()

    def _mark_snapshot(self, frozen: BackupSet, engine: Engine) -> None:
        for hosted in frozen.databases:
            if hosted.engine is not engine or hosted.database is None:
                continue
            file = hosted.database.file
            stamp = snapshot_stamp(engine, file.fields, frozen.kind)
            frozen.stamps[hosted.name] = stamp
            file.fields.snapshot = stamp
            file.write_header()

    def stamp(self, done: BackupSet, hosted: HostedDatabase) -> CompletedDatabase:
        """Let a database's header remember a backup, and truncate its log."""
        engine, database = hosted.engine, hosted.database
        if engine is None or database is None:
            return CompletedDatabase(hosted.name, stamped=False)
        with engine.operating():
            closed = done.closed[hosted.name]
            taken = done.stamps[hosted.name]
            stamp = BackupStamp(taken.position, taken.time, min(taken.first, closed), closed)
            stamp_header(database.file.fields, done.kind, stamp)
            database.file.write_header()
            self._log_phase(done, engine, _UPDATE)
            if done.kind is BackupKind.COPY:
                self._log_phase(done, engine, _STOP)
                engine.make_durable()
                return CompletedDatabase(hosted.name, stamped=True)
            engine.advance_checkpoint()
            truncation = self._truncation(engine, done, hosted)
            self._log_phase(done, engine, _TRUNCATE)
            self._log_phase(done, engine, _STOP)
            engine.make_durable()
            deleted = engine.delete_logs(truncation.below)
            self._truncated(hosted.name, truncation.below)
            return CompletedDatabase(hosted.name, stamped=True, truncated=deleted, blockers=truncation.blockers)

    def _truncation(self, engine: Engine, done: BackupSet, hosted: HostedDatabase) -> Truncation:
        if self._store.plan.circular:
            return Truncation(0, (Blocker(BlockerKind.CIRCULAR_LOGGING, engine.checkpoint.generation),))
        return truncation_limit(engine, done, hosted, self._replicas)

    def _log_phase(self, of: BackupSet, engine: Engine, phase: int) -> None:
        for hosted in of.databases:
            if hosted.engine is engine and hosted.database is not None:
                mark = of.stamps.get(hosted.name, BackupStamp()).encode()
                dbid = hosted.database.file.fields.dbid
                engine.append(log.backup_mark(phase, _OS_SNAPSHOT, _SCOPES[of.kind], dbid, mark))


def _engine_of(hosted: HostedDatabase) -> Engine:
    assert hosted.engine is not None
    return hosted.engine


def mark_of(stamp: BackupStamp) -> BackupMark | None:
    """A backup that a header remembers, as the protocol says it."""
    if not stamp:
        return None
    moment: datetime = time_of(stamp.time)
    return BackupMark(stamp.first, stamp.last, int(moment.timestamp() * 1000) * 1_000_000)

"""The writer of one node of an availability group: for the databases active there, and for its passive copies."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from perdure.snapshots.writer import (
    FREEZE_LIMIT_S,
    BackupKind,
    CompletedDatabase,
    DatabaseState,
    DatabaseStatus,
    FailedAtFreeze,
    Frozen,
    NonRetryable,
    Retryable,
    WriterTimeout,
)
from perdure.testing.information_store.availability import AvailabilityGroup, GroupNode
from perdure.testing.information_store.backup_sets import BackupSet, SetState, stamp_header
from perdure.testing.information_store.backup_writer import BackupWriter, mark_of
from perdure.testing.information_store.header_fields import NOWHERE, BackupStamp, log_time_bytes
from perdure.testing.information_store.replica import Replica

__all__ = ["NodeWriter"]

_PASSIVE = "copy-"


class NodeWriter:
    """Implements :class:`perdure.snapshots.writer.StoreWriter` for a node.

    A passive copy is backed up like an active one: its replay stops while it is frozen. It has no current log, so the
    image comes with closed logs only. When the backup is complete both its header and that of the active copy remember
    it, and the log is truncated on all nodes.

    Args:
        group: The availability group.
        node: Name of the node.
        freeze_limit_s: Seconds after which it thaws by itself.
    """

    def __init__(self, group: AvailabilityGroup, node: str, *, freeze_limit_s: float = FREEZE_LIMIT_S) -> None:
        self._group, self._name, self._limit = group, node, freeze_limit_s
        self._store = self._node.store
        self._active = self._writer()
        self._sets: dict[str, tuple[BackupSet, list[Replica]]] = {}
        self._lock = threading.RLock()
        self._count = 0

    @property
    def _node(self) -> GroupNode:
        return self._group.nodes[self._name]

    def _writer(self) -> BackupWriter:
        group, node = self._group, self._name
        return BackupWriter(
            self._node.store,
            freeze_limit_s=self._limit,
            replicas=group.blockers,
            copies=lambda name: group.copies(name, node),
            truncated=group.truncated,
        )

    def _active_writer(self) -> BackupWriter:
        """The writer of the node's store; the node has another store after it has failed."""
        if self._node.store is not self._store:
            self._store, self._active = self._node.store, self._writer()
        return self._active

    def describe(self) -> tuple[DatabaseStatus, ...]:
        with self._lock:
            passive = [self._status(replica) for replica in self._node.replicas.values()]
            return (*self._active_writer().describe(), *passive)

    def prepare(self, databases: Sequence[str], kind: BackupKind) -> str:
        with self._lock:
            replicas = [self._node.replicas[name] for name in databases if name in self._node.replicas]
            if not replicas:
                return self._active_writer().prepare(databases, kind)
            if len(replicas) != len(databases):
                raise NonRetryable("active and passive copies cannot be in one backup set", hint="back them up apart")
            busy = [replica for _, some in self._sets.values() for replica in some]
            for replica in replicas:
                name = replica.place.name
                if replica in busy:
                    raise Retryable(f"another backup of the copy of {name} is under way")
                if not replica.healthy:
                    raise NonRetryable(f"the copy of {name} has failed: {replica.failure}", hint="reseed it")
                if kind is BackupKind.INCREMENTAL and not replica.fields().full:
                    raise NonRetryable(f"{name} has no full backup that this one could add to", hint="take a full one")
            self._roll_active(replicas)
            self._count += 1
            made = BackupSet(f"{_PASSIVE}{self._count}", kind, [], {})
            made.closed = {replica.place.name: replica.inspected for replica in replicas}
            self._sets[made.identifier] = (made, replicas)
            return made.identifier

    def freeze(self, backup_set: str) -> Frozen:
        if not backup_set.startswith(_PASSIVE):
            return self._active_writer().freeze(backup_set)
        with self._lock:
            frozen, replicas = self._passive(backup_set)
            if frozen.state is not SetState.PREPARED:
                raise FailedAtFreeze(f"backup set {backup_set} is {frozen.state.value}, so it cannot be frozen")
            for replica in replicas:
                with replica.lock:
                    fields = replica.fields()
                    now = log_time_bytes(self._group.clock())
                    first = fields.min_required or replica.replayed
                    stamp = BackupStamp(NOWHERE, now, first, max(first, replica.inspected))
                    frozen.stamps[replica.place.name] = fields.snapshot = stamp
                    replica.stamp(fields)
                    replica.frozen.set()
            frozen.state = SetState.FROZEN
            frozen.timer = threading.Timer(self._limit, self._thaw_by_itself, [backup_set])
            frozen.timer.daemon = True
            frozen.timer.start()
            return Frozen(self._limit, {replica.place.name: replica.inspected for replica in replicas})

    def thaw(self, backup_set: str) -> None:
        if not backup_set.startswith(_PASSIVE):
            self._active_writer().thaw(backup_set)
            return
        with self._lock:
            thawed, replicas = self._passive(backup_set)
            if thawed.state is not SetState.FROZEN:
                raise WriterTimeout(f"backup set {backup_set} is {thawed.state.value}: what was copied is worthless")
            self._let_go(thawed, replicas, SetState.THAWED)

    def complete(self, backup_set: str, succeeded: Sequence[str]) -> tuple[CompletedDatabase, ...]:
        if not backup_set.startswith(_PASSIVE):
            return self._active_writer().complete(backup_set, succeeded)
        with self._lock:
            done, replicas = self._passive(backup_set)
            if done.state is not SetState.THAWED:
                self.abort(backup_set)
                raise WriterTimeout(f"backup set {backup_set} had failed: nothing was stamped and nothing truncated")
            del self._sets[backup_set]
            return tuple(self._complete(done, one) for one in replicas if one.place.name in succeeded)

    def abort(self, backup_set: str) -> None:
        if not backup_set.startswith(_PASSIVE):
            self._active_writer().abort(backup_set)
            return
        with self._lock:
            aborted = self._sets.pop(backup_set, None)
            if aborted is not None and aborted[0].state is SetState.FROZEN:
                self._let_go(*aborted, SetState.FAILED)

    def _status(self, replica: Replica) -> DatabaseStatus:
        place = replica.place
        fields = replica.fields()
        return DatabaseStatus(
            name=place.name,
            guid=place.guid,
            database_path=str(replica.path),
            log_folder=str(replica.log_folder),
            log_base=place.base,
            checkpoint_path=str(replica.log_folder / f"{place.base}.chk"),
            state=DatabaseState.MOUNTED if replica.healthy else DatabaseState.FAILED,
            circular_logging=self._group.plan.circular,
            role=replica.role,
            node=self._name,
            replay_lag_s=replica.lag_s,
            replayed_generation=replica.replayed,
            copies=self._group.copies(place.name, self._name),
            last_full=mark_of(fields.full),
            last_incremental=mark_of(fields.incremental),
            last_copy=mark_of(fields.copy),
        )

    def _roll_active(self, replicas: Sequence[Replica]) -> None:
        """Close the active copies' current logs and ship them, so that the backup has all up to now."""
        for replica in replicas:
            hosted = self._group.hosted(replica.place.name)
            if hosted.engine is not None and hosted.state is DatabaseState.MOUNTED:
                with hosted.engine.operating():
                    hosted.engine.roll()
        self._group.ship()

    def _passive(self, backup_set: str) -> tuple[BackupSet, list[Replica]]:
        found = self._sets.get(backup_set)
        if found is None:
            raise WriterTimeout(f"there is no backup set {backup_set}: it has ended", hint="begin the backup again")
        return found

    def _thaw_by_itself(self, backup_set: str) -> None:
        with self._lock:
            late = self._sets.get(backup_set)
            if late is not None and late[0].state is SetState.FROZEN:
                self._let_go(*late, SetState.FAILED)

    @staticmethod
    def _let_go(frozen: BackupSet, replicas: Sequence[Replica], state: SetState) -> None:
        if frozen.timer is not None:
            frozen.timer.cancel()
        frozen.state = state
        for replica in replicas:
            with replica.lock:
                fields = replica.fields()
                fields.snapshot = BackupStamp()
                replica.stamp(fields)
                replica.frozen.clear()

    def _complete(self, done: BackupSet, replica: Replica) -> CompletedDatabase:
        name = replica.place.name
        closed, taken = done.closed[name], done.stamps[name]
        with replica.lock:
            fields = replica.fields()
            stamp = BackupStamp(taken.position, taken.time, min(taken.first, closed), closed)
            stamp_header(fields, done.kind, stamp)
            replica.stamp(fields)
        active = self._group.active(name)
        hosted = active.store.databases[name]
        if hosted.state is not DatabaseState.MOUNTED:
            return CompletedDatabase(name, stamped=True)
        of_active = BackupSet(done.identifier, done.kind, [hosted], {name: closed}, stamps={name: taken})
        writer = BackupWriter(active.store, replicas=self._group.blockers, truncated=self._group.truncated)
        return writer.stamp(of_active, hosted)

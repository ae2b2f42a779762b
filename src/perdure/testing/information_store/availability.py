"""An availability group: databases with one active copy, and passive copies to which its log is shipped."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import msgspec

from perdure.snapshots.writer import Blocker, CopyRole, DatabaseCopy, DatabaseState
from perdure.testing.information_store.clock import Clock, machine_clock
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.journal import JournalWriter
from perdure.testing.information_store.layout import StorePlan
from perdure.testing.information_store.replica import Replica
from perdure.testing.information_store.store import InformationStore, StoreOptions
from perdure.testing.information_store.stream_end import close_stream_end, closed_logs, find_stream_end

__all__ = ["AvailabilityGroup", "GroupNode"]


@dataclass(eq=False, repr=False)
class GroupNode:
    """One node.

    Args:
        name: Its name.
        store: The databases that are active here.
        replicas: The passive copies here, by database.
    """

    name: str
    store: InformationStore
    replicas: dict[str, Replica] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.store.folder


@dataclass(eq=False, repr=False)
class AvailabilityGroup:
    """The group.

    Args:
        folders: Folder of every node, by name.
        plan: How the stores are set up.
        journals: Where commits are noted, on whatever node they happen.
        clock: What time it is.
        options: How the engines are set up.
    """

    folders: dict[str, Path]
    plan: StorePlan
    journals: Path
    clock: Clock = machine_clock
    options: StoreOptions = field(default_factory=StoreOptions)
    nodes: dict[str, GroupNode] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.chance = Random(self.plan.seed)  # noqa: S311 - content, not a secret
        for name in self.folders:
            self.nodes[name] = GroupNode(name, self._new_store(name))

    def add_database(self, name: str, node: str, *, mailboxes: int = 0, size: int = 0) -> HostedDatabase:
        """Make a database that is active on a node."""
        made = self.nodes[node].store.add_database(name, mailboxes=mailboxes, size=size)
        self._guard(made)
        return made

    def active(self, name: str) -> GroupNode:
        """The node on which a database is active."""
        return next(node for node in self.nodes.values() if name in node.store.databases)

    def hosted(self, name: str) -> HostedDatabase:
        """A database where it is active."""
        return self.active(name).store.databases[name]

    def replicas(self, name: str) -> list[Replica]:
        """The passive copies of a database."""
        return [node.replicas[name] for node in self.nodes.values() if name in node.replicas]

    def add_copy(self, name: str, node: str, *, lag_s: float = 0.0) -> Replica:
        """Make a passive copy of a database on a node, and seed it."""
        with self.lock:
            target, hosted = self.nodes[node], self.hosted(name)
            made = Replica(node, target.folder, hosted.place, self.plan.page_size, lag_s)
            target.replicas[name] = made
            self._seed(made)
            return made

    def reseed(self, name: str, node: str) -> None:
        """Throw a passive copy away and seed it again."""
        with self.lock:
            replica = self.nodes[node].replicas[name]
            replica.remove()
            replica.inspected = replica.replayed = 0
            self._seed(replica)
            replica.failure = ""

    def ship(self) -> None:
        """Copy closed logs to all passive copies, and let them replay what is due."""
        with self.lock:
            for node in self.nodes.values():
                for hosted in node.store.databases.values():
                    shipped = closed_logs(hosted.log_folder, hosted.place.base)
                    for replica in self.replicas(hosted.name):
                        replica.receive(shipped)
                        replica.replay(self.clock())

    def switch(self, name: str, node: str) -> None:
        """Make the passive copy on a node the active one, without any loss.

        The active copy is dismounted, its last log is shipped too, and it goes on as a passive copy.
        """
        with self.lock:
            source, target = self.active(name), self.nodes[node]
            replica = target.replicas[name]
            assert replica.healthy, f"the copy of {name} on {node} has failed: {replica.failure}"
            hosted = source.store.databases[name]
            if hosted.state is DatabaseState.MOUNTED:
                source.store.dismount(name)
            self.ship()
            end = find_stream_end(hosted.log_folder, hosted.place.base)
            assert end is not None
            last = close_stream_end(Disk(), hosted.log_folder, hosted.place.base, end)
            replica.receive(closed_logs(hosted.log_folder, hosted.place.base))
            replica.replay_until(last.generation)
            assert replica.healthy, f"the copy of {name} on {node} has failed: {replica.failure}"
            place = source.store.forget(name)
            source.replicas[name] = Replica(
                source.name,
                source.folder,
                place,
                self.plan.page_size,
                inspected=last.generation,
                replayed=last.generation,
            )
            self._activate(name, target)

    def fail_over(self, name: str, node: str) -> None:
        """The node on which a database is active dies; the copy on another takes over with the logs that it has.

        What was committed only in logs that had not been shipped is lost. The old active copy has diverged: it has to
        be reseeded.
        """
        with self.lock:
            source, target = self.active(name), self.nodes[node]
            replica = target.replicas[name]
            assert replica.healthy, f"the copy of {name} on {node} has failed: {replica.failure}"
            failed = dict(source.store.databases)
            source.store.crash()
            source.store = self._new_store(source.name)
            for other, hosted in failed.items():
                source.replicas[other] = Replica(
                    source.name,
                    source.folder,
                    hosted.place,
                    self.plan.page_size,
                    failure="the node failed while this copy was active: it holds what other copies have lost",
                )
            replica.replay_until(replica.inspected)
            for other_copy in self.replicas(name):
                if other_copy.inspected > replica.inspected:
                    other_copy.failure = "it holds logs that the active copy has lost"
            journal = JournalWriter(target.store.journal_path(name))
            journal.cut((replica.inspected + 1) << 32)
            journal.close()
            self._activate(name, target)

    def blockers(self, name: str) -> list[Blocker]:
        """What passive copies hold back when log is truncated."""
        return [replica.blocker() for replica in self.replicas(name)]

    def copies(self, name: str, node: str) -> tuple[DatabaseCopy, ...]:
        """The copies of a database on other nodes than one."""
        found = [replica.described() for replica in self.replicas(name) if replica.node != node]
        active = next((one for one in self.nodes.values() if name in one.store.databases), None)
        if active is not None and active.name != node:
            found.append(self._described(active, active.store.databases[name]))
        return tuple(found)

    def truncated(self, name: str, below: int) -> None:
        """Let passive copies delete what was truncated on the active one."""
        for replica in self.replicas(name):
            if replica.healthy:
                replica.truncate(below)

    def stop(self) -> None:
        """End all nodes in order."""
        with self.lock:
            for node in self.nodes.values():
                node.store.stop()

    @staticmethod
    def _described(node: GroupNode, hosted: HostedDatabase) -> DatabaseCopy:
        generation = hosted.engine.stream.generation if hosted.engine is not None else 0
        return DatabaseCopy(
            node=node.name,
            folder=str(node.folder),
            database_path=str(hosted.path),
            log_folder=str(hosted.log_folder),
            role=CopyRole.ACTIVE,
            replayed_generation=generation,
            inspected_generation=max(0, generation - 1),
            healthy=hosted.state is DatabaseState.MOUNTED,
        )

    def _new_store(self, name: str) -> InformationStore:
        plan = msgspec.structs.replace(self.plan, seed=self.chance.getrandbits(32), databases=())
        return InformationStore(
            self.folders[name],
            plan,
            Disk(),
            self.clock,
            self.options,
            name,
            journals=self.journals,
        )

    def _seed(self, replica: Replica) -> None:
        """Copy the active database and the logs that it needs, at one moment."""
        name = replica.place.name
        hosted = self.hosted(name)
        engine = hosted.engine
        assert engine is not None, f"{name} is not mounted, so no copy can be seeded from it"
        replica.path.parent.mkdir(parents=True, exist_ok=True)
        replica.log_folder.mkdir(parents=True, exist_ok=True)
        with engine.operating():
            engine.roll()
            engine.advance_checkpoint()
            assert hosted.database is not None
            needed = hosted.database.file.fields.min_required
            shutil.copyfile(hosted.path, replica.path)
            logs = closed_logs(hosted.log_folder, hosted.place.base)
        replica.inspected = needed - 1
        replica.replayed = needed - 1
        replica.receive({number: path for number, path in logs.items() if number >= needed})

    def _activate(self, name: str, target: GroupNode) -> None:
        replica = target.replicas.pop(name)
        target.store.take_in(replica.place)
        self._guard(target.store.databases[name])

    def _guard(self, hosted: HostedDatabase) -> None:
        """Circular logging keeps what a copy still needs."""
        engine: Engine | None = hosted.engine
        assert engine is not None
        name = hosted.name
        engine.keep_from = lambda generation: min(
            [generation, *(blocker.generation for blocker in self.blockers(name))]
        )

"""An information store: databases in a folder, their engines, and what an administrator does to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import UUID

import msgspec

from perdure.ese.catalog import read_catalog
from perdure.ese.database import Database
from perdure.snapshots.writer import DatabaseState
from perdure.testing.information_store.clock import Clock, machine_clock
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.engine import CLEAN, Engine
from perdure.testing.information_store.engine_settings import EngineSettings
from perdure.testing.information_store.hosted import HostedDatabase
from perdure.testing.information_store.layout import DatabasePlace, StorePlan, read_plan, write_plan
from perdure.testing.information_store.mailboxes import schemas_of
from perdure.testing.information_store.recovery import recover
from perdure.testing.information_store.stream_end import close_stream_end, find_stream_end

__all__ = ["InformationStore", "StoreOptions"]

_JOURNALS = "journal"


@dataclass(frozen=True)
class StoreOptions:
    """How the engines of a store are set up, beside what its plan says.

    Args:
        checkpoint_depth: Log generations after which a changed page is written at the latest.
        log_resilience: Newest generations that may be lost without making a database unusable.
        cached_pages: Of a database, in memory.
        write_chance: How likely some dirty pages are written after a transaction.
        commit_group: Commits that become durable with one write of the log, as those of several clients do.
    """

    checkpoint_depth: int = 20
    log_resilience: int = 1
    cached_pages: int = 4096
    write_chance: float = 0.05
    commit_group: int = 1


@dataclass(eq=False, repr=False)
class InformationStore:
    """A store.

    Args:
        folder: Where it lies.
        plan: What it consists of.
        disk: Under its files.
        clock: What time it is.
        options: How its engines are set up.
        node: Its name in an availability group.
        databases: By name, dismounted ones too.
    """

    folder: Path
    plan: StorePlan
    disk: Disk = field(default_factory=Disk)
    clock: Clock = machine_clock
    options: StoreOptions = StoreOptions()
    node: str = ""
    journals: Path | None = None
    """Where commits are noted, if not in the store's folder."""
    databases: dict[str, HostedDatabase] = field(default_factory=dict)
    _engines: dict[tuple[str, str], Engine] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = Random(self.plan.seed)  # noqa: S311 - content, not a secret
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal_folder.mkdir(parents=True, exist_ok=True)
        write_plan(self.folder, self.plan)

    @staticmethod
    def open(
        folder: Path,
        *,
        disk: Disk | None = None,
        clock: Clock = machine_clock,
        options: StoreOptions = StoreOptions(),
        node: str = "",
        journals: Path | None = None,
    ) -> InformationStore:
        """Start a store that is there, recover it if it was not shut down in order, and mount what it had mounted."""
        plan = read_plan(folder)
        assert plan is not None, f"{folder} holds no store"
        store = InformationStore(folder, plan, disk or Disk(), clock, options, node, journals)
        for place in plan.databases:
            store.databases[place.name] = store._hosted(place)
        for place in plan.databases:
            if place.mounted:
                store.mount(place.name)
        return store

    def add_database(self, name: str, *, mailboxes: int = 0, size: int = 0) -> HostedDatabase:
        """Make a database, mount it, and fill it with at least ``size`` bytes."""
        guid = str(UUID(int=self.chance.getrandbits(128), version=4))
        place = self.plan.place_for(name, guid)
        self.remember(place)
        hosted = self.databases[name] = self._hosted(place)
        engine = self._engine_of(hosted)
        with engine.operating():
            made = engine.create_database(name, hosted.path, self.chance)
            hosted.opened(engine, made, new=True)
            if mailboxes:
                hosted.add_mailboxes(mailboxes)
        if size:
            hosted.fill(size)
        return hosted

    def mount(self, name: str) -> HostedDatabase:
        """Mount a database; one that was not shut down in order is recovered first."""
        hosted = self.databases[name]
        engine = self._engine_of(hosted)
        with engine.operating():
            with Database(hosted.path) as closed:
                tables = {table.name for table in read_catalog(closed).tables}
            mounted = engine.mount(name, hosted.path, hosted.place.guid, schemas_of(tables))
            hosted.opened(engine, mounted)
        self.remember(self._mounted(hosted.place, mounted=True))
        return hosted

    def dismount(self, name: str) -> None:
        """Dismount a database in order: it is clean then."""
        hosted = self.databases[name]
        assert hosted.engine is not None
        with hosted.engine.operating():
            hosted.abandon_clients()
            hosted.engine.dismount(name)
            hosted.closed()
        self.remember(self._mounted(hosted.place, mounted=False))
        self._end_if_idle(hosted.engine)

    def stop(self) -> None:
        """End in order. What was mounted is mounted again at the next start."""
        for hosted in self.databases.values():
            if hosted.engine is not None and hosted.state is DatabaseState.MOUNTED:
                with hosted.engine.operating():
                    hosted.abandon_clients()
                    hosted.engine.dismount(hosted.name)
                    hosted.closed()
        for engine in self._engines.values():
            with engine.operating():
                engine.stop()
        self._engines.clear()
        for hosted in self.databases.values():
            hosted.engine = None

    def crash(self, *, lose_power: Random | None = None) -> None:
        """End at once, as the process does when it is killed, or the machine when its power is cut."""
        for hosted in self.databases.values():
            if hosted.journal is not None:
                hosted.journal.close()
        if lose_power is None:
            self.disk.close_all()
        else:
            self.disk.cut_power(lose_power)

    def work(self, transactions: int) -> None:
        """Let the clients of all mounted databases end so many transactions each."""
        for hosted in self.databases.values():
            if hosted.state is DatabaseState.MOUNTED:
                hosted.work(transactions)

    def journal_path(self, name: str) -> Path:
        """Where the commits of a database are noted."""
        return self._journal_folder / f"{name}.journal"

    def take_in(self, place: DatabasePlace) -> HostedDatabase:
        """Mount a database that was not of this store before."""
        self.databases[place.name] = self._hosted(place)
        self.remember(place)
        return self.mount(place.name)

    def forget(self, name: str) -> DatabasePlace:
        """A dismounted database is not of this store any more; its files stay.

        Returns:
            Where they lie.
        """
        hosted = self.databases.pop(name)
        assert hosted.state is not DatabaseState.MOUNTED, f"{name} is mounted"
        others = tuple(place for place in self.plan.databases if place.name != name)
        self.plan = msgspec.structs.replace(self.plan, databases=others)
        write_plan(self.folder, self.plan)
        return hosted.place

    @property
    def _journal_folder(self) -> Path:
        return self.journals or self.folder / _JOURNALS

    def _hosted(self, place: DatabasePlace) -> HostedDatabase:
        chance = Random(self.chance.getrandbits(64))  # noqa: S311 - content, not a secret
        return HostedDatabase(place, self.folder, None, self.journal_path(place.name), chance)

    def remember(self, place: DatabasePlace) -> None:
        """Note where a database lies, and whether it is mounted."""
        self.plan = self.plan.with_place(place)
        if place.name in self.databases:
            self.databases[place.name].place = place
        write_plan(self.folder, self.plan)

    @staticmethod
    def _mounted(place: DatabasePlace, *, mounted: bool) -> DatabasePlace:
        return DatabasePlace(place.name, place.guid, place.file, place.log_folder, place.base, mounted)

    def _engine_of(self, hosted: HostedDatabase) -> Engine:
        """The engine of a database's stream, started if it is not running."""
        key = (hosted.place.log_folder, hosted.place.base)
        if key not in self._engines:
            self._engines[key] = self._start(hosted)
        return self._engines[key]

    def _start(self, hosted: HostedDatabase) -> Engine:
        place, folder = hosted.place, hosted.log_folder
        folder.mkdir(parents=True, exist_ok=True)
        sharing = [
            other
            for other in self.databases.values()
            if (other.place.log_folder, other.place.base) == (place.log_folder, place.base) and other.path.exists()
        ]
        dirty = [one for one in sharing if Engine.read_fields(one.path, self.plan.page_size).state != CLEAN]
        settings = EngineSettings(
            folder,
            place.base,
            self.plan.page_size,
            self.plan.circular,
            self.options.checkpoint_depth,
            self.options.log_resilience,
            cached_pages=self.options.cached_pages,
            was_circular=self.plan.was_circular,
            commit_group=self.options.commit_group,
            write_chance=self.options.write_chance,
            seed=self.chance.getrandbits(32),
        )
        end = find_stream_end(folder, place.base)
        if end is None:
            engine = Engine(settings, self.disk, Engine.new_signature(self.chance, self.clock), self.clock)
            engine.start()
        else:
            assert end.log.header is not None
            engine = Engine(settings, self.disk, end.log.header.signature.raw, self.clock)
            if dirty:
                recover(engine, [one.dirty() for one in dirty])
                engine.start()
            else:
                engine.start(close_stream_end(self.disk, folder, place.base, end))
        return engine

    def _end_if_idle(self, engine: Engine) -> None:
        if engine.databases:
            return
        for key, running in list(self._engines.items()):
            if running is engine:
                engine.stop()
                del self._engines[key]
        for hosted in self.databases.values():
            if hosted.engine is engine:
                hosted.engine = None

"""The engine of one log stream: sessions, databases, the checkpoint, and what is written when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import UUID

from perdure.ese.headers.copies import chosen_copy
from perdure.ese.structures import LogPosition
from perdure.testing.information_store import log_records as log
from perdure.testing.information_store.clock import Clock, machine_clock
from perdure.testing.information_store.disk import Disk
from perdure.testing.information_store.engine_settings import EngineSettings
from perdure.testing.information_store.engine_statements import EngineStatement, parameters_of
from perdure.testing.information_store.header_fields import (
    NOWHERE,
    AttachedDatabase,
    BackupStamp,
    DatabaseFields,
    LogFields,
    log_position_bytes,
    log_time_bytes,
    signature_bytes,
)
from perdure.testing.information_store.log_stream import (
    LogStream,
    PreviousLog,
    log_position,
)
from perdure.testing.information_store.mounted_database import MountedDatabase
from perdure.testing.information_store.paged_file import PagedFile
from perdure.testing.information_store.schema import TableSchema
from perdure.testing.information_store.tree_pages import TreePage
from perdure.testing.information_store.tree_store import TreeStore
from perdure.testing.information_store.trees import Tree
from perdure.testing.information_store.versions import Session

__all__ = ["CLEAN", "DIRTY", "Engine"]

JUST_CREATED, DIRTY, CLEAN = 1, 2, 3
"""States of a database's header."""

_TRANSACTION_STEP = 4
_SYSTEM_PROCESS = 1


@dataclass(eq=False, repr=False)
class Engine:
    """The engine. Everything that changes it happens inside of :meth:`operating`.

    Args:
        settings: How it is set up.
        disk: Where its files lie.
        clock: What time it is.
        signature: Of its log stream.
    """

    settings: EngineSettings
    disk: Disk
    signature: bytes
    clock: Clock = machine_clock
    stream: LogStream = field(init=False)
    databases: dict[str, MountedDatabase] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    before_flush: list[Callable[[], None]] = field(default_factory=list)
    """What has to be done before the log becomes durable."""
    checkpoint: LogPosition = NOWHERE
    keep_from: Callable[[int], int] = lambda generation: generation
    """The lowest generation that circular logging keeps, from that of the checkpoint."""

    def __post_init__(self) -> None:
        self.chance = Random(self.settings.seed)  # noqa: S311 - decides when, guards nothing
        self._created: dict[int, bytes] = {}
        self._transaction = 0
        self._process = _SYSTEM_PROCESS
        self._version = 0
        self._gate = threading.Condition(threading.RLock())
        self._frozen = False
        self._written_until = 0
        self._commits_waiting = 0
        self._system = Session(_SYSTEM_PROCESS, self, system=True)
        self.stream = LogStream(
            self.disk,
            self.settings.log_folder,
            self.settings.base,
            self.clock,
            self._log_header,
            self._before_generation,
            self.settings.log_segments,
        )

    @property
    def checkpoint_path(self) -> Path:
        return self.settings.log_folder / f"{self.settings.base}.chk"

    @staticmethod
    def new_signature(chance: Random, clock: Clock) -> bytes:
        """A signature that nothing else has."""
        return signature_bytes(chance.getrandbits(32), clock())

    @contextmanager
    def operating(self) -> Iterator[None]:
        """Whatever changes the engine's files happens in here; waits while they are frozen."""
        with self._gate:
            while self._frozen:
                self._gate.wait()
            yield

    def freeze(self) -> None:
        """Let nothing be written until :meth:`thaw`; returns when nobody is at it."""
        with self._gate:
            self._frozen = True

    def thaw(self) -> None:
        """Let writes go on."""
        with self._gate:
            self._frozen = False
            self._gate.notify_all()

    def start(self, previous: PreviousLog | None = None) -> None:
        """Begin to write: a new stream, or the generation after the last one of a stream."""
        if not self.stream.generation:
            self.stream.begin(previous or PreviousLog())
        self.append(log.initialise(parameters_of(self.settings), log_time_bytes(self.clock())))
        self.make_durable()

    def resume(self, previous: PreviousLog) -> None:
        """Begin the generation after the last one of a stream, to end its recovery in it."""
        self._created[previous.generation] = previous.created
        self.stream.begin(previous)

    def adopt(
        self, name: str, path: Path, guid: str, schemas: dict[str, TableSchema], held: list[TreePage]
    ) -> MountedDatabase:
        """Open a database that is being recovered, as it is attached in the log; some pages are newer than its file."""
        fields = self.read_fields(path, self.settings.page_size)
        store = self._store(path, fields, path.stat().st_size // fields.page_size - 2)
        for page in held:
            store.file.take_over(page, fields.min_required << 32)
        self._version = max(self._version, 1 << 30)
        adopted = self.databases[name] = MountedDatabase.open(name, path, guid, store, schemas)
        return adopted

    def session(self) -> Session:
        """A new session."""
        self._process += 1
        made = Session(self._process, self)
        self.sessions.append(made)
        return made

    def leave(self, sessions: list[Session]) -> None:
        """These sessions are over."""
        self.sessions = [session for session in self.sessions if session not in sessions]

    def append(self, record: bytes) -> int:
        """Add a record to the log."""
        return self.stream.append(record)

    def next_transaction(self) -> int:
        """A new transaction number."""
        self._transaction += _TRANSACTION_STEP
        return self._transaction

    def make_durable(self) -> None:
        """Make all of the log durable."""
        self._commits_waiting = 0
        for action in self.before_flush:
            action()
        self.stream.flush()

    def create_database(self, name: str, path: Path, chance: Random) -> MountedDatabase:
        """Make a database and mount it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = self.settings
        fields = DatabaseFields(settings.page_size, self.new_signature(chance, self.clock), self.signature)
        fields.dbid, fields.dbtime = self._free_dbid(), 0x40
        store = self._store(path, fields, 0)
        store.file.write_header()
        record = log.create_database(fields.dbid, fields.signature, str(path))
        fields.attach, fields.attach_time = log_position(self.append(record)), log_time_bytes(self.clock())
        system = self._system
        system.begin()
        guid = str(UUID(int=chance.getrandbits(128), version=4))
        made = MountedDatabase.create(name, path, guid, store, system, pages=settings.initial_pages)
        system.commit()
        self.append(log.create_database_finish(fields.dbid))
        self.databases[name] = made
        self._mark_dirty(made)
        return made

    def mount(self, name: str, path: Path, guid: str, schemas: dict[str, TableSchema]) -> MountedDatabase:
        """Mount a clean database of this stream."""
        fields = self.read_fields(path, self.settings.page_size)
        assert fields.state == CLEAN, f"{path} is not clean: it has to be recovered first"
        if fields.log_signature != self.signature:
            # A clean database may join another stream; what its header says of backups was about the old one.
            fields.log_signature = self.signature
            fields.consistent, fields.consistent_time = NOWHERE, bytes(8)
            fields.full = fields.incremental = fields.copy = BackupStamp()
        fields.dbid = self._free_dbid()
        store = self._store(path, fields, path.stat().st_size // fields.page_size - 2)
        record = log.attach_database(
            fields.dbid, log_position_bytes(fields.consistent), fields.signature, self.signature, str(path)
        )
        fields.attach, fields.attach_time = log_position(self.append(record)), log_time_bytes(self.clock())
        fields.detach, fields.detach_time = NOWHERE, bytes(8)
        opened = MountedDatabase.open(name, path, guid, store, schemas)
        self.databases[name] = opened
        self._mark_dirty(opened)
        return opened

    def dismount(self, name: str) -> None:
        """Write everything of a database and detach it: it needs no log then."""
        database = self.databases[name]
        self._end_transactions(database)
        self.clean_up()
        file = database.file
        self.make_durable()
        file.write_all()
        file.file.sync()
        place = self.append(log.detach_database(file.fields.dbid, str(database.path)))
        self.make_durable()
        fields = file.fields
        fields.state = CLEAN
        fields.consistent = fields.detach = log_position(place)
        fields.consistent_time = fields.detach_time = log_time_bytes(self.clock())
        fields.min_required = fields.max_required = fields.max_committed = fields.min_consistent = 0
        fields.max_required_time = fields.max_committed_time = bytes(8)
        file.write_header()
        self.disk.close(file.file)
        del self.databases[name]
        self.advance_checkpoint()

    def stop(self) -> None:
        """Dismount everything and end the log in order."""
        for name in list(self.databases):
            self.dismount(name)
        self.advance_checkpoint()
        here = log_position_bytes(log_position(self.stream.end))
        self.append(log.terminate(here, log_position_bytes(self.checkpoint), log_time_bytes(self.clock())))
        self.make_durable()
        self.stream.close()

    def commit(self, session: Session, *, durable: bool = True) -> int:
        """Commit a session's transaction.

        Returns:
            Place of its last record, 0 if it changed nothing.
        """
        place = session.commit()
        if place and durable:
            self.make_durable()
        return place

    def committed(self) -> None:
        """A transaction was committed: its log becomes durable, at once or with a few others."""
        self._commits_waiting += 1
        if self._commits_waiting >= self.settings.commit_group:
            self.make_durable()

    def clean_up(self) -> None:
        """Remove what ended transactions have left behind."""
        system = self._system
        waiting = [version for session in self.sessions for version in session.to_clean]
        if not waiting:
            return
        system.begin()
        for session in self.sessions:
            session.cleaned(lambda version: version.tree.clean_up(system, version.bookmark))
        system.commit()

    def maintain(self) -> None:
        """What the engine does besides: clean up, write some dirty pages out of order, advance the checkpoint."""
        self.clean_up()
        behind = self.stream.generation - self.settings.checkpoint_depth
        for database in self.databases.values():
            file = database.file
            if self.chance.random() < self.settings.write_chance:
                file.write_some(max(4, len(file.dirty) // 8), self.chance)
            if behind > self._written_until and file.oldest_dirty(self.stream.end) >> 32 < behind:
                file.write_until(behind << 32)
            file.shed()
        self._written_until = max(behind, 0)
        if (
            self.stream.generation > self.checkpoint.generation + 1
            and self.chance.random() < self.settings.write_chance
        ):
            self.advance_checkpoint()

    def roll(self) -> None:
        """Close the current generation."""
        self.append(log.force_rollover("backup"))
        self.make_durable()
        self.stream.roll()

    def advance_checkpoint(self) -> None:
        """Note from where recovery has to start now, in the databases and in the checkpoint file."""
        begun = [session.begun_at for session in self.sessions if session.begun_at]
        oldest = min([self.stream.end, *begun])
        for database in self.databases.values():
            oldest = min(oldest, database.file.oldest_dirty(oldest))
        for database in self.databases.values():
            file = database.file
            file.file.sync()
            if file.fields.min_required != oldest >> 32:
                file.fields.min_required = file.fields.min_consistent = oldest >> 32
                file.fields.max_required = max(file.fields.max_required, oldest >> 32)
                file.fields.max_required_time = self._created_of(file.fields.max_required)
                file.write_header()
        self.checkpoint = log_position(oldest)
        self._statement().write_checkpoint(self.disk, self.checkpoint_path)
        if self.settings.circular:
            self.delete_logs(self.keep_from(self.checkpoint.generation))

    def delete_logs(self, below: int) -> tuple[int, int] | None:
        """Delete closed logs of lower generations.

        Returns:
            First and last that were deleted.
        """
        deleted: list[int] = []
        for path in sorted(self.settings.log_folder.glob(f"{self.settings.base}????????.log")):
            generation = int(path.stem[len(self.settings.base) :], 16)
            if generation < below:
                path.unlink()
                deleted.append(generation)
        return (deleted[0], deleted[-1]) if deleted else None

    @staticmethod
    def read_fields(path: Path, page_size: int) -> DatabaseFields:
        """The header of a database as it is in its file."""
        with path.open("rb") as file:
            content = file.read(2 * page_size)
        chosen, _ = chosen_copy(content[:page_size], content[page_size:])
        assert chosen is not None, f"{path} has no sound header"
        return DatabaseFields.decode(chosen)

    def _end_transactions(self, database: MountedDatabase) -> None:
        """Roll back what sessions have under way in a database; those of others on the stream go on."""
        trees = {id(tree) for tree in database.trees()}
        for session in self.sessions:
            while any(id(version.tree) in trees for version in session.versions):
                session.roll_back()

    def _mark_dirty(self, database: MountedDatabase) -> None:
        fields = database.file.fields
        self.make_durable()
        fields.state = DIRTY
        fields.min_required = fields.min_consistent = fields.attach.generation
        fields.max_required = max(fields.max_required, fields.attach.generation)
        fields.max_required_time = self._created_of(fields.max_required)
        fields.max_committed, fields.max_committed_time = self.stream.generation, self.stream.created
        database.file.write_header()

    def _store(self, path: Path, fields: DatabaseFields, last_page: int) -> TreeStore:
        store: TreeStore

        def reserved_on(page: TreePage) -> int:
            return store.reserved_on(page)

        file = PagedFile(
            self.disk,
            self.disk.open(path),
            fields,
            last_page,
            lambda pages: self._log_unlogged_before(store, pages),
            self._make_durable_until,
            self._created_of,
            reserved_on,
            self.settings.cached_pages,
            self.settings.log_resilience,
            lambda: self.stream.generation,
        )
        store = TreeStore(file, self.append, self.stream.append_together, fields.dbid, self._next_version)
        return store

    def _log_unlogged_before(self, store: TreeStore, pages: list[TreePage]) -> None:
        """Before a page with uncommitted data is written, the log gets the data before."""
        by_number = {page.number: page for page in pages}
        for version in list(store.unlogged_before.values()):
            tree, page = version.tree, by_number.get(version.page)
            if page is not None:
                assert isinstance(tree, Tree)
                # The node may have moved to another page since; what counts is where it was changed.
                line = tree.is_on(page, version.bookmark) if page.leaf and page.objid == tree.objid else None
                tree.log_before(tree.locks[version.bookmark], version, page, line or 0)
        if self.stream.flushed != self.stream.end:
            self.make_durable()

    def _make_durable_until(self, place: int) -> None:
        if self.stream.flushed <= place:
            self.make_durable()

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    def _free_dbid(self) -> int:
        used = {database.file.fields.dbid for database in self.databases.values()}
        return next(number for number in range(1, 100) if number not in used)

    def _created_of(self, generation: int) -> bytes:
        return self._created.get(generation, bytes(8))

    def _before_generation(self, generation: int, created: bytes) -> None:
        self._created[generation] = created
        for database in self.databases.values():
            fields = database.file.fields
            fields.max_committed, fields.max_committed_time = generation, created
            database.file.write_header()

    def _statement(self) -> EngineStatement:
        databases = tuple(
            AttachedDatabase(
                fields.dbid,
                fields.dbtime,
                fields.last_objid,
                fields.attach,
                fields.consistent,
                fields.signature,
                str(database.path),
            )
            for database in self.databases.values()
            for fields in (database.file.fields,)
        )
        return EngineStatement(self.settings, self.signature, self.checkpoint, databases)

    def _log_header(self, generation: int, created: bytes, previous: PreviousLog) -> LogFields:
        return self._statement().of_log(generation, created, previous)

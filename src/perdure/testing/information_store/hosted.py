"""One database of a store with everything around it: its engine, its mailboxes, its clients, its journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from perdure.snapshots.writer import DatabaseState
from perdure.testing.information_store.engine import Engine
from perdure.testing.information_store.journal import JournalWriter, last_stream
from perdure.testing.information_store.layout import DatabasePlace
from perdure.testing.information_store.mailboxes import Mailboxes, schemas_of
from perdure.testing.information_store.mounted_database import MountedDatabase
from perdure.testing.information_store.recovery import DirtyDatabase
from perdure.testing.information_store.transactions import Client, Mix

__all__ = ["HostedDatabase"]

_CLIENTS = 4
_FILL_BATCH = 24
_MAINTAIN = 0.3


@dataclass(eq=False, repr=False)
class HostedDatabase:
    """A database that a store hosts; it may be dismounted.

    Args:
        place: Where it lies.
        folder: The store's.
        engine: That of its log stream; ``None`` while nothing of the stream is mounted.
        journal_path: Where its commits are noted.
        chance: Decides what its clients do.
    """

    place: DatabasePlace
    folder: Path
    engine: Engine | None
    journal_path: Path
    chance: Random
    mix: Mix = field(default_factory=Mix)
    state: DatabaseState = DatabaseState.DISMOUNTED
    database: MountedDatabase | None = None
    mailboxes: Mailboxes | None = None
    journal: JournalWriter | None = None
    clients: list[Client] = field(default_factory=list)
    last_place: int = 0
    """Place of the last commit."""

    @property
    def name(self) -> str:
        return self.place.name

    @property
    def path(self) -> Path:
        """Its file."""
        return self.folder / self.place.file

    @property
    def log_folder(self) -> Path:
        return self.folder / self.place.log_folder

    @property
    def operations(self) -> int:
        """Row operations of its clients so far."""
        return sum(client.operations for client in self.clients)

    def opened(self, engine: Engine, database: MountedDatabase, *, new: bool = False) -> None:
        """The engine has mounted it: let clients in."""
        self.engine, self.database = engine, database
        known = last_stream(self.journal_path)
        self.journal = JournalWriter(self.journal_path)
        if known != engine.signature.hex():
            self.journal.begin_stream(engine.signature)
        engine.before_flush.append(self.journal.flush)
        sessions = [engine.session() for _ in range(_CLIENTS)]
        if new:
            sessions[0].begin()
            self.mailboxes = Mailboxes.create(database, sessions[0], self._draw())
            engine.commit(sessions[0])
        else:
            self.mailboxes = Mailboxes.load(database, self._draw())
        self.clients = [
            Client(engine, self.mailboxes, self.journal, session, self._draw(), self.mix, self._committed)
            for session in sessions
        ]
        self.state = DatabaseState.MOUNTED

    def closed(self, state: DatabaseState = DatabaseState.DISMOUNTED) -> None:
        """The engine has it open no more."""
        if self.engine is not None and self.journal is not None:
            self.engine.before_flush.remove(self.journal.flush)
            self.engine.leave([client.session for client in self.clients])
            self.journal.close()
        self.database, self.mailboxes, self.journal, self.clients = None, None, None, []
        self.state = state

    def dirty(self) -> DirtyDatabase:
        """It as recovery sees it after a crash."""
        return DirtyDatabase(self.name, self.path, self.place.guid, schemas_of, self._log_ended)

    def abandon_clients(self) -> None:
        """Roll back what clients have under way."""
        for client in self.clients:
            client.abandon()

    def add_mailboxes(self, count: int) -> None:
        """Make so many mailboxes."""
        assert self.mailboxes is not None
        first = 1 + max(self.mailboxes.by_number, default=0)
        for number in range(first, first + count):
            self.clients[0].add_mailbox(number, f"Mailbox {number} of {self.name}")

    def fill(self, size: int) -> None:
        """Deliver messages until the file is at least so large."""
        assert self.engine is not None
        assert self.database is not None
        file = self.database.file
        used = 0
        # Pages that the file has for later do not count, so bodies are counted beside its size.
        while used < size or file.last_page * file.page_size < size:
            with self.engine.operating():
                used += self.clients[0].deliver(_FILL_BATCH)
                self.engine.maintain()

    def step(self) -> bool:
        """Let one client do one row operation; whether a transaction has ended."""
        engine = self.engine
        if engine is None:
            return True
        with engine.operating():
            if not self.clients:
                return True
            ended = self.chance.choice(self.clients).step()
            if ended and self.chance.random() < _MAINTAIN:
                engine.maintain()
            return ended

    def work(self, transactions: int) -> None:
        """Let clients end so many transactions, interleaved; some others stay open."""
        ended = 0
        while ended < transactions:
            ended += self.step()

    def _draw(self) -> Random:
        return Random(self.chance.getrandbits(64))  # noqa: S311 - content, not a secret

    def _log_ended(self, place: int) -> None:
        journal = JournalWriter(self.journal_path)
        journal.cut(place)
        journal.close()

    def _committed(self, place: int) -> None:
        self.last_place = place

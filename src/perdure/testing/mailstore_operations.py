"""The operations of the mail store, each with two meanings: what it does to SQLite, and to the ledger's model.

An operation names everything that it depends on (ids, seeds, flags), so that a list of them can be replayed
without the database that they were made for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from perdure.testing.mailstore_content import BodyKind, body, digest, subject

__all__ = [
    "FLAG_FLAGGED",
    "FLAG_SEEN",
    "OPERATIONS",
    "SCHEMA",
    "TABLES",
    "AddFolder",
    "AddMailbox",
    "Delete",
    "DeleteEverything",
    "Deliver",
    "Move",
    "Operation",
    "SetFlags",
    "State",
    "decode",
    "encode",
]

FLAG_SEEN = 1
FLAG_FLAGGED = 4

SCHEMA = """
CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL);
CREATE TABLE mailboxes (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);
CREATE TABLE folders (
    id INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL REFERENCES mailboxes (id),
    name TEXT NOT NULL,
    total INTEGER NOT NULL,
    unseen INTEGER NOT NULL
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    folder INTEGER NOT NULL REFERENCES folders (id),
    flags INTEGER NOT NULL,
    received INTEGER NOT NULL,
    subject TEXT NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX messages_by_folder ON messages (folder, received);
INSERT INTO clock VALUES (1, 0);
"""

TABLES = ("clock", "mailboxes", "folders", "messages")

Row = tuple[Any, ...]


@dataclass(slots=True)
class State:
    """The contents of every table by primary key: the row's other columns, a message's body as its digest."""

    clock: dict[int, Row] = field(default_factory=lambda: {1: (0,)})
    mailboxes: dict[int, Row] = field(default_factory=dict)
    folders: dict[int, Row] = field(default_factory=dict)
    messages: dict[int, Row] = field(default_factory=dict)

    def tables(self) -> dict[str, dict[int, Row]]:
        """A copy that later operations do not touch."""
        return {name: dict(getattr(self, name)) for name in TABLES}

    def count(self, folder: int, total: int, unseen: int) -> None:
        """Add to a folder's counters."""
        mailbox, name, old_total, old_unseen = self.folders[folder]
        self.folders[folder] = (mailbox, name, old_total + total, old_unseen + unseen)


class Operation(Protocol):
    """One change. Its fields are what the ledger keeps."""

    word: ClassVar[str]

    def execute(self, database: sqlite3.Connection) -> None:
        """Do it, inside the caller's transaction."""
        ...

    def replay(self, state: State) -> None:
        """Do the same to the model."""
        ...


def _count(database: sqlite3.Connection, folder: int, total: int, unseen: int) -> None:
    database.execute("UPDATE folders SET total = total + ?, unseen = unseen + ? WHERE id = ?", (total, unseen, folder))


def _unseen(flags: int) -> int:
    return 0 if flags & FLAG_SEEN else 1


@dataclass(frozen=True, slots=True)
class AddMailbox:
    """Open a mailbox."""

    word: ClassVar[str] = "mailbox"
    id: int
    address: str

    def execute(self, database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO mailboxes VALUES (?, ?)", (self.id, self.address))

    def replay(self, state: State) -> None:
        state.mailboxes[self.id] = (self.address,)


@dataclass(frozen=True, slots=True)
class AddFolder:
    """Make a folder in a mailbox."""

    word: ClassVar[str] = "folder"
    id: int
    mailbox: int
    name: str

    def execute(self, database: sqlite3.Connection) -> None:
        database.execute("INSERT INTO folders VALUES (?, ?, ?, 0, 0)", (self.id, self.mailbox, self.name))

    def replay(self, state: State) -> None:
        state.folders[self.id] = (self.mailbox, self.name, 0, 0)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Insert a message whose body comes from its seed; ``digest`` was taken from the bytes that were bound."""

    word: ClassVar[str] = "deliver"
    id: int
    folder: int
    received: int
    kind: str
    seed: int
    size: int
    digest: str

    @classmethod
    def make(
        cls, key: int, *, folder: int, received: int, kind: BodyKind, seed: int, size: int
    ) -> tuple[Deliver, bytes]:
        """The operation and the body that it will insert."""
        content = body(kind, seed, size)
        return cls(key, folder, received, kind.value, seed, size, digest(content)), content

    def execute(self, database: sqlite3.Connection) -> None:
        self.insert(database, body(BodyKind(self.kind), self.seed, self.size))

    def insert(self, database: sqlite3.Connection, content: bytes) -> None:
        """As ``execute``, with the body at hand."""
        database.execute(
            "INSERT INTO messages VALUES (?, ?, 0, ?, ?, ?, ?)",
            (self.id, self.folder, self.received, subject(self.seed), self.size, content),
        )
        _count(database, self.folder, 1, 1)

    def replay(self, state: State) -> None:
        state.messages[self.id] = (self.folder, 0, self.received, subject(self.seed), self.size, self.digest)
        state.count(self.folder, 1, 1)


@dataclass(frozen=True, slots=True)
class SetFlags:
    """Mark a message as seen, flagged, and so on."""

    word: ClassVar[str] = "flags"
    id: int
    flags: int

    def execute(self, database: sqlite3.Connection) -> None:
        folder, old = database.execute("SELECT folder, flags FROM messages WHERE id = ?", (self.id,)).fetchone()
        database.execute("UPDATE messages SET flags = ? WHERE id = ?", (self.flags, self.id))
        _count(database, folder, 0, _unseen(self.flags) - _unseen(old))

    def replay(self, state: State) -> None:
        folder, old, *rest = state.messages[self.id]
        state.messages[self.id] = (folder, self.flags, *rest)
        state.count(folder, 0, _unseen(self.flags) - _unseen(old))


@dataclass(frozen=True, slots=True)
class Move:
    """Move a message to another folder."""

    word: ClassVar[str] = "move"
    id: int
    folder: int

    def execute(self, database: sqlite3.Connection) -> None:
        old, flags = database.execute("SELECT folder, flags FROM messages WHERE id = ?", (self.id,)).fetchone()
        database.execute("UPDATE messages SET folder = ? WHERE id = ?", (self.folder, self.id))
        _count(database, old, -1, -_unseen(flags))
        _count(database, self.folder, 1, _unseen(flags))

    def replay(self, state: State) -> None:
        old, flags, *rest = state.messages[self.id]
        state.messages[self.id] = (self.folder, flags, *rest)
        state.count(old, -1, -_unseen(flags))
        state.count(self.folder, 1, _unseen(flags))


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a message."""

    word: ClassVar[str] = "delete"
    id: int

    def execute(self, database: sqlite3.Connection) -> None:
        folder, flags = database.execute("SELECT folder, flags FROM messages WHERE id = ?", (self.id,)).fetchone()
        database.execute("DELETE FROM messages WHERE id = ?", (self.id,))
        _count(database, folder, -1, -_unseen(flags))

    def replay(self, state: State) -> None:
        folder, flags, *_ = state.messages.pop(self.id)
        state.count(folder, -1, -_unseen(flags))


@dataclass(frozen=True, slots=True)
class DeleteEverything:
    """The mistake: ``DELETE FROM messages`` with its ``WHERE`` forgotten. The counters stay, and are now wrong."""

    word: ClassVar[str] = "delete everything"

    def execute(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM messages")

    def replay(self, state: State) -> None:
        state.messages.clear()


OPERATIONS: dict[str, type[Any]] = {
    kind.word: kind for kind in (AddMailbox, AddFolder, Deliver, SetFlags, Move, Delete, DeleteEverything)
}


def encode(operation: Operation) -> list[Any]:
    """An operation as the ledger writes it: its word, then its fields in order."""
    return [operation.word, *(getattr(operation, told.name) for told in fields(OPERATIONS[operation.word]))]


def decode(told: Sequence[Any]) -> Operation:
    """The inverse of :func:`encode`."""
    operation: Operation = OPERATIONS[told[0]](*told[1:])
    return operation

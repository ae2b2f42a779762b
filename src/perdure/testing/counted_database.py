"""A small live SQLite database that counts its commits, with a model of what it holds after each of them.

Tables come and go, rows hold texts that are a word repeated, so that the model keeps the word and not the text. Every
transaction counts the single row of ``counter`` up; a recovered copy therefore says itself which commit it shows, and
:meth:`CountedDatabase.differences` says whether it holds what that commit left::

    database = CountedDatabase(path, page_size=1024)
    database.commit([Insert(0, word=7, times=40)])
    …
    assert database.differences(recovered, database.history[-1]) == []

The writer is a process of its own that uses the standard library's ``sqlite3``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import apsw

from perdure.testing.sqlite_writer import SqliteWriter

__all__ = [
    "Change",
    "Contents",
    "CountedDatabase",
    "Create",
    "Delete",
    "Drop",
    "Index",
    "Insert",
    "Moment",
    "Update",
    "read_counter",
]

Contents = dict[str, dict[int, tuple[int, int]]]
"""Table by name, row by id: the word's number and how often it stands there."""

_INITIAL_TABLES = ("t0", "t1")


@dataclass(frozen=True, slots=True)
class Moment:
    """What one commit left.

    Args:
        counter: The number that the database itself holds.
        contents: All rows of all tables.
        begun_ns: Wall clock before its transaction began, nanoseconds since 1970 UTC.
    """

    counter: int
    contents: Contents
    begun_ns: int


class Change(Protocol):
    """A part of a transaction."""

    def apply(self, contents: Contents) -> list[str]:
        """Make the change to the model; returns the statements that make it to the database (none: impossible now)."""
        ...


@dataclass(frozen=True, slots=True)
class Insert:
    """Add a row to the ``table``-th table."""

    table: int
    word: int
    times: int

    def apply(self, contents: Contents) -> list[str]:
        name, rows = _table(contents, self.table)
        key = max(rows, default=0) + 1
        rows[key] = (self.word, self.times)
        return [f"INSERT INTO {name} VALUES ({key}, {_text(self.word, self.times)})"]  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the text of the ``row``-th row."""

    table: int
    row: int
    word: int
    times: int

    def apply(self, contents: Contents) -> list[str]:
        name, rows = _table(contents, self.table)
        if not rows:
            return []
        key = sorted(rows)[self.row % len(rows)]
        rows[key] = (self.word, self.times)
        return [f"UPDATE {name} SET body = {_text(self.word, self.times)} WHERE id = {key}"]  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the rows from the ``row``-th on, at most ``count``."""

    table: int
    row: int
    count: int

    def apply(self, contents: Contents) -> list[str]:
        name, rows = _table(contents, self.table)
        keys = sorted(rows)[self.row % len(rows) :][: self.count] if rows else []
        for key in keys:
            del rows[key]
        return [f"DELETE FROM {name} WHERE id = {key}" for key in keys]  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Create:
    """Make another table."""

    def apply(self, contents: Contents) -> list[str]:
        name = next(f"t{number}" for number in range(len(contents) + 1) if f"t{number}" not in contents)
        contents[name] = {}
        return [_create(name)]


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop the ``table``-th table, unless it is the last."""

    table: int

    def apply(self, contents: Contents) -> list[str]:
        name, _ = _table(contents, self.table)
        if len(contents) == 1:
            return []
        del contents[name]
        return [f"DROP TABLE {name}"]


@dataclass(frozen=True, slots=True)
class Index:
    """Make or drop an index on the ``table``-th table; the model does not change."""

    table: int
    made: bool

    def apply(self, contents: Contents) -> list[str]:
        name, _ = _table(contents, self.table)
        if self.made:
            return [f"CREATE INDEX IF NOT EXISTS by_body_{name} ON {name} (substr(body, 1, 40))"]
        return [f"DROP INDEX IF EXISTS by_body_{name}"]


@dataclass(slots=True)
class CountedDatabase:
    """The database, its first writer and the history of its commits.

    Args:
        path: Must not exist.
        page_size: Bytes per page.
        history: What every commit left, in order; ``VACUUM`` is a commit that changes nothing.
        writer: The process that makes the commits.
    """

    path: Path
    page_size: int
    history: list[Moment] = field(default_factory=list)
    writer: SqliteWriter = field(init=False)

    def __post_init__(self) -> None:
        self.writer = SqliteWriter(self.path, f"page_size={self.page_size}", "journal_mode=WAL")
        self._configure()
        self.writer.run("CREATE TABLE counter (n INTEGER)", "INSERT INTO counter VALUES (0)")
        self.writer.run(*map(_create, _INITIAL_TABLES))
        self.history.append(Moment(0, {name: {} for name in _INITIAL_TABLES}, time.time_ns()))
        self.commit([])

    def commit(self, changes: Sequence[Change]) -> None:
        """Make a transaction and wait for it."""
        self.writer.run(*self.planned(changes))

    def planned(self, changes: Sequence[Change]) -> list[str]:
        """The statements of a transaction, which the caller must run; the history has it already."""
        contents = self._copied()
        statements = [statement for change in changes for statement in change.apply(contents)]
        self.history.append(Moment(self.history[-1].counter + 1, contents, time.time_ns()))
        return ["BEGIN IMMEDIATE", "UPDATE counter SET n = n + 1", *statements, "COMMIT"]

    def roll_back(self, changes: Sequence[Change]) -> None:
        """Make a transaction and roll it back; when it is large, its pages reach the WAL all the same."""
        contents = self._copied()
        statements = [statement for change in changes for statement in change.apply(contents)]
        self.writer.run("BEGIN IMMEDIATE", "UPDATE counter SET n = n + 1", *statements, "ROLLBACK")

    def vacuum(self) -> None:
        """Rewrite the whole database in one commit."""
        last = self.history[-1]
        self.history.append(Moment(last.counter, last.contents, time.time_ns()))
        self.writer.run("VACUUM")

    def checkpoint(self, mode: str) -> None:
        """Checkpoint as an application does, without waiting for readers."""
        self.writer.run("PRAGMA busy_timeout=0", f"PRAGMA wal_checkpoint({mode})", "PRAGMA busy_timeout=10000")

    def restart_writer(self, *, kill: bool) -> None:
        """End the writer and start another one; the last connection that closes checkpoints and removes the WAL."""
        if kill:
            self.writer.kill()
        else:
            self.writer.close()
        self.writer = SqliteWriter(self.path)
        self._configure()

    def close(self) -> None:
        """End the writer."""
        self.writer.kill()

    def differences(self, copy: Path, moment: Moment) -> list[str]:
        """How a recovered copy differs from what a commit left; empty when it does not."""
        connection = apsw.Connection(
            f"{copy.absolute().as_uri()}?mode=ro&immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            found = [f"integrity_check: {text}" for (text,) in connection.execute("PRAGMA integrity_check")]
            if found == ["integrity_check: ok"]:
                found = []
            ((counter,),) = connection.execute("SELECT n FROM counter")
            if counter != moment.counter:
                found.append(f"it shows commit {counter}, not {moment.counter}")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
            if tables != {"counter", *moment.contents}:
                return [*found, f"it has the tables {sorted(tables)}, not {sorted(moment.contents)}"]
            for name, rows in moment.contents.items():
                held = dict(connection.execute(f"SELECT id, body FROM {name}"))  # noqa: S608 - our own names
                expected = {key: f"{word:07x}" * times for key, (word, times) in rows.items()}
                if held != expected:
                    found.append(f"table {name} differs in {sorted(held.items() ^ expected.items())[:1]!s:.200}")
            return found
        finally:
            connection.close()

    def _configure(self) -> None:
        # A page cache this small spills large transactions into the WAL before they are committed.
        pragmas = ("wal_autocheckpoint=0", "cache_size=10", "synchronous=OFF")
        self.writer.run(*(f"PRAGMA {pragma}" for pragma in pragmas))

    def _copied(self) -> Contents:
        return {name: dict(rows) for name, rows in self.history[-1].contents.items()}


def read_counter(copy: Path) -> int:
    """Which commit a recovered copy shows."""
    connection = apsw.Connection(
        f"{copy.absolute().as_uri()}?mode=ro&immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    )
    try:
        ((counter,),) = connection.execute("SELECT n FROM counter")
    finally:
        connection.close()
    return int(counter)


def _create(name: str) -> str:
    return f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, body TEXT)"


def _text(word: int, times: int) -> str:
    # hex(zeroblob(n)) is 2n zeros: the cheapest way to repeat something in plain SQL. Seven digits never fill a page
    # evenly, so all pages of a long text differ.
    return f"replace(hex(zeroblob({times})), '00', '{word:07x}')"


def _table(contents: Contents, number: int) -> tuple[str, dict[int, tuple[int, int]]]:
    name = sorted(contents)[number % len(contents)]
    return name, contents[name]

"""A writer process of the mail store: ``python -m perdure.testing.mailstore_writer DATABASE LEDGER NAME``.

It is an ordinary application: the standard library's ``sqlite3``, WAL mode, a busy timeout, SQLite's own
automatic checkpoints, and no knowledge of perdure. It stops cleanly on SIGTERM and SIGINT, and can be killed
at any moment.
"""

from __future__ import annotations

import argparse
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep, time_ns

from perdure.testing.mailstore_content import BodyKind, draw_size
from perdure.testing.mailstore_ledger import LedgerWriter
from perdure.testing.mailstore_operations import (
    FLAG_FLAGGED,
    FLAG_SEEN,
    AddFolder,
    Delete,
    DeleteEverything,
    Deliver,
    Move,
    Operation,
    SetFlags,
)

__all__ = ["Writer", "connect", "main", "transact"]

BUSY_SECONDS = 60.0
_LATE = 0.5
"""A writer that fell behind its rate by more than this many seconds does not make up for it in a burst."""


_GLANCE = 1.2
"""Seconds between the mistake and its COMMIT."""


def connect(database: Path) -> sqlite3.Connection:
    """Open the mail store as its applications do."""
    connection = sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def transact(connection: sqlite3.Connection, ledger: LedgerWriter, work: Callable[[], list[Operation]]) -> int:
    """Run ``work`` in one transaction that counts the clock up and stands in the ledger; returns its ``n``."""
    connection.execute("BEGIN IMMEDIATE")
    n = 0
    try:
        ((n,),) = connection.execute("UPDATE clock SET n = n + 1 WHERE id = 1 RETURNING n").fetchall()
        ledger.intent(n, work())
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
            ledger.undone(n)
        raise
    ledger.done(n)
    return int(n)


class Writer:
    """Makes random transactions, every one from what it finds in the database at that moment.

    Args:
        connection: The mail store.
        seed: Decides what it does; together with the database's state it always does the same.
        small: Transactions as small as they can be (one short message or one flag), for many in a second.
    """

    def __init__(self, connection: sqlite3.Connection, seed: int, *, small: bool = False) -> None:
        self._connection = connection
        self._random = random.Random(seed)  # noqa: S311 (a workload, not a secret)
        self._small = small

    def work(self) -> list[Operation]:
        """One transaction's worth of operations, done."""
        if self._small:
            return self._flags(1) if self._random.random() < 0.7 else self._deliver(1, 1024)
        choice = self._random.random()
        if choice < 0.50:
            return self._deliver(self._random.choice((1, 1, 1, 2, 3)), None)
        if choice < 0.70:
            return self._flags(self._random.randint(1, 20))
        if choice < 0.83:
            return self._move(self._random.randint(1, 5))
        if choice < 0.98:
            return self._delete(self._random.randint(1, 3))
        return self._add_folder()

    def _deliver(self, count: int, size: int | None) -> list[Operation]:
        done: list[Operation] = []
        ((last,),) = self._connection.execute("SELECT ifnull(max(id), 0) FROM messages").fetchall()
        for key in range(last + 1, last + 1 + count):
            kind = self._random.choice((BodyKind.TEXT, BodyKind.TEXT, BodyKind.NOISE))
            length = size or draw_size(self._random)
            operation, content = Deliver.make(
                key,
                folder=self._some_folder(),
                received=time_ns(),
                kind=kind,
                seed=self._random.getrandbits(48),
                size=length,
            )
            operation.insert(self._connection, content)
            done.append(operation)
        return done

    def _flags(self, count: int) -> list[Operation]:
        found = self._some_messages(count)
        flags = FLAG_SEEN if self._random.random() < 0.8 else FLAG_SEEN | FLAG_FLAGGED
        return self._do([SetFlags(key, old ^ flags) for key, _, old in found])

    def _move(self, count: int) -> list[Operation]:
        folder = self._some_folder()
        return self._do([Move(key, folder) for key, old, _ in self._some_messages(count) if old != folder])

    def _delete(self, count: int) -> list[Operation]:
        return self._do([Delete(key) for key, _, _ in self._some_messages(count)])

    def _add_folder(self) -> list[Operation]:
        ((last,),) = self._connection.execute("SELECT max(id) FROM folders").fetchall()
        mailboxes = [key for (key,) in self._connection.execute("SELECT id FROM mailboxes ORDER BY id")]
        return self._do([AddFolder(last + 1, self._random.choice(mailboxes), f"Folder {last + 1}")])

    def _do(self, operations: list[Operation]) -> list[Operation]:
        if not operations:
            return self._deliver(1, None)
        for operation in operations:
            operation.execute(self._connection)
        return operations

    def _some_folder(self) -> int:
        ((last,),) = self._connection.execute("SELECT max(id) FROM folders").fetchall()
        return self._random.randint(1, last)

    def _some_messages(self, count: int) -> list[tuple[int, int, int]]:
        """Up to ``count`` different messages: id, folder, flags."""
        ((last,),) = self._connection.execute("SELECT ifnull(max(id), 0) FROM messages").fetchall()
        found = {}
        for _ in range(count if last else 0):
            row = self._connection.execute(
                "SELECT id, folder, flags FROM messages WHERE id >= ? ORDER BY id LIMIT 1",
                (self._random.randint(1, last),),
            ).fetchone()
            if row is not None:
                found[row[0]] = row
        return list(found.values())


def _mistake(connection: sqlite3.Connection) -> list[Operation]:
    """A person at a prompt: ``BEGIN``, the wrong ``DELETE``, a glance that sees nothing amiss, ``COMMIT``.

    Meanwhile nobody else can commit, so there is a moment that lies clearly between the last good commit and it.
    """
    operation = DeleteEverything()
    operation.execute(connection)
    sleep(_GLANCE)
    return [operation]


def main(arguments: list[str] | None = None) -> int:
    """Write until told to stop."""
    parser = argparse.ArgumentParser(prog="mailstore_writer", description="Write to a mail store, with a ledger.")
    parser.add_argument("database", type=Path)
    parser.add_argument("ledger", type=Path, help="folder for the ledger files")
    parser.add_argument("name", help="name of this writer and of its ledger file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.0, help="commits per second; 0: as many as go")
    parser.add_argument("--commits", type=int, default=0, help="stop after so many; 0: when told to")
    parser.add_argument("--small", action="store_true", help="the smallest transactions that there are")
    parser.add_argument("--mistake", action="store_true", help="run one DELETE FROM messages, and nothing else")
    given = parser.parse_args(arguments)
    if not given.database.is_file():
        parser.error(f"{given.database} does not exist")

    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    connection = connect(given.database)
    with LedgerWriter(given.ledger, given.name) as ledger:
        if given.mistake:
            transact(connection, ledger, lambda: _mistake(connection))
        else:
            writer = Writer(connection, given.seed, small=given.small)
            made, due = 0, monotonic()
            while not stopping and (given.commits == 0 or made < given.commits):
                transact(connection, ledger, writer.work)
                made += 1
                if given.rate:
                    due = max(due + 1 / given.rate, monotonic() - _LATE)
                    sleep(max(0.0, due - monotonic()))
    connection.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

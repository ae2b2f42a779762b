"""Load on a PostgreSQL server with a ledger of what was committed when, to hold recovered copies against."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

import psycopg

from perdure.testing.postgres_server import PostgresServer
from perdure.workloads.postgresql.lsn import parse_lsn

__all__ = ["Entry", "PostgresLoad"]

_NEW = """
CREATE TABLE IF NOT EXISTS ledger (id bigint PRIMARY KEY, client int, amount int, filler text);
CREATE TABLE IF NOT EXISTS account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, filler text);
INSERT INTO account SELECT g, 0, repeat('f', 200) FROM generate_series(1, 2000) g ON CONFLICT DO NOTHING;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed transaction.

    Args:
        id: Its row.
        amount: By which it changed an account.
        before: The WAL's end before it was committed.
        after: The WAL's end when its commit had returned.
        time_ns: Its own time, on the server's clock, nanoseconds since 1970 UTC; 0 until :meth:`PostgresLoad.settle`.
    """

    id: int
    amount: int
    before: int
    after: int
    time_ns: int = 0


@dataclass(slots=True)
class PostgresLoad:
    """Clients that each move money and write it down, in transactions of two statements.

    Args:
        server: The server; it needs ``track_commit_timestamp``.
        clients: How many.
        pause_s: How long each waits between transactions.
        conninfo: Where to connect, if not to the server directly.
    """

    server: PostgresServer
    clients: int = 3
    pause_s: float = 0.002
    entries: list[Entry] = field(default_factory=list)
    unsure: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _next: int = 1

    def prepare(self) -> PostgresLoad:
        """Make the tables."""
        self.server.execute(_NEW)
        return self

    def __enter__(self) -> PostgresLoad:
        self._stop.clear()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many transactions more were committed."""
        wanted = len(self.entries) + count
        deadline = time.monotonic() + 60
        while len(self.entries) < wanted:
            if time.monotonic() > deadline:
                raise AssertionError("the load stands still")
            time.sleep(0.01)

    def _client(self, number: int) -> None:
        chance = random.Random(number)  # noqa: S311 - load, not secrets
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.Error), self.server.connect() as connection:
                while not self._stop.is_set():
                    self._transaction(connection, number, chance)
                    self._stop.wait(self.pause_s)
            self._stop.wait(0.05)

    def _transaction(
        self, connection: psycopg.Connection[tuple[object, ...]], number: int, chance: random.Random
    ) -> None:
        with self._guard:
            row, self._next = self._next, self._next + 1
        amount = chance.randrange(1, 100)
        text = "x" * chance.choice([0, 10, 300, 2000])
        before = _end(connection)
        # Until the server has answered nobody knows whether it is committed.
        self.unsure.add(row)
        with connection.transaction():
            connection.execute(
                "UPDATE account SET balance = balance + %s WHERE id = %s", (amount, chance.randrange(1, 2001))
            )
            connection.execute("INSERT INTO ledger VALUES (%s, %s, %s, %s)", (row, number, amount, text))
        after = _end(connection)
        self.unsure.discard(row)
        with self._guard:
            self.entries.append(Entry(row, amount, before, after))

    def settle(self) -> dict[int, Entry]:
        """All entries by row, with the times that the server gave them."""
        rows = self.server.execute(
            "SELECT id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint FROM ledger"
        )
        times = {int(row): int(moment) * 1000 for row, moment in rows}
        return {each.id: Entry(each.id, each.amount, each.before, each.after, times[each.id]) for each in self.entries}


def _end(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    return parse_lsn(str(connection.execute("SELECT pg_current_wal_insert_lsn()").fetchall()[0][0]))


@contextlib.contextmanager
def opened(server: PostgresServer) -> Iterator[PostgresServer]:
    """A recovered server, started and out of recovery, killed in the end."""
    with server:
        server.start()
        deadline = time.monotonic() + 60
        while server.execute("SELECT pg_is_in_recovery()")[0][0]:
            if time.monotonic() > deadline:
                raise AssertionError("recovery does not end")
            time.sleep(0.02)
        yield server
